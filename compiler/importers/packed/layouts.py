"""Unpacking codes and zero points from the int32 words of GPTQ and AWQ, as plain array shuffling.

GPTQ: `qweight` int32 `[K * bits / 32, N]` holds the codes of consecutive inputs, the first in the
lowest bits; `qzeros` int32 `[G, N * bits / 32]` the zero points of consecutive output channels.
AWQ (`gemm`): `qweight` int32 `[K, N / 8]` and `qzeros` int32 `[G, N / 8]` both hold output
channels, in the order 0, 2, 4, 6, 1, 3, 5, 7 of each eight, the first in the lowest bits.

Sources: `QuantLinear.pack` in `auto_gptq/nn_modules/qlinear/qlinear_cuda.py`, `WQLinear_GEMM
.from_linear` in `awq/modules/linear/gemm.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

WORD_BITS = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The output channel, of eight, in each place of a word."""
_LEAST_CODES = {4: 0x11111111, 8: 0x01010101}
"""A one in every place of a word."""


def gptq_codes(qweight: Array, bits: int) -> Bytes:
    """The codes `u8[N, K]` of `qweight` int32 `[K * bits / 32, N]`."""
    rows = np.ascontiguousarray(qweight.T).view(np.uint8)
    return rows if bits == 8 else unpack_nibbles(rows)


def gptq_zeros(qzeros: Array, bits: int, *, add_to_words: bool) -> Bytes:
    """The stored zero points `u8[N, G]` of `qzeros` int32 `[G, N * bits / 32]`.

    With `add_to_words`, a one is added to every place of a word first, with carries.
    """
    words = np.ascontiguousarray(qzeros).view(np.uint32)
    if add_to_words:
        words = words + np.uint32(_LEAST_CODES[bits])
    rows = words.view(np.uint8)
    return np.ascontiguousarray((rows if bits == 8 else unpack_nibbles(rows)).T)


def awq_codes(packed: Array) -> Bytes:
    """The 4-bit values `u8[N, R]` of int32 `[R, N / 8]`: `qweight` (R = K) or `qzeros` (R = G)."""
    rows = unpack_nibbles(np.ascontiguousarray(packed).view(np.uint8))
    count = len(AWQ_ORDER)
    places = rows.reshape(len(rows), -1, count)
    codes = np.empty_like(places)
    codes[:, :, AWQ_ORDER] = places
    return np.ascontiguousarray(codes.reshape(rows.shape).T)


def unpack_nibbles(packed: Bytes) -> Bytes:
    """The values 0..15 in bytes `[R, C]`, the low nibble first: `[R, 2 C]`."""
    values = np.empty((len(packed), packed.shape[1], 2), np.uint8)
    np.bitwise_and(packed, 0xF, out=values[:, :, 0])
    np.right_shift(packed, 4, out=values[:, :, 1])
    return values.reshape(len(packed), -1)


def pack_nibbles(values: Bytes) -> Bytes:
    """Values 0..15 `[R, C]`, with C even, as bytes `[R, C / 2]`, the first in the low nibble."""
    return values[:, 0::2] | np.left_shift(values[:, 1::2], np.uint8(4))
