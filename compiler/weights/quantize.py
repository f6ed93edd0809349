"""Weight quantization at the speed of memory: W8A16, an absolute maximum and a scale for each
output channel.

The rules are those of the numerics contract; `backends/reference/numerics.py` states them in plain
NumPy, and this agrees with it to the bit. A grouped scheme is the same loop over `weight.reshape(N
* K // g, g)`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError

Array = npt.NDArray[Any]
CodesRule = Literal["stored-scale", "tpu-mlir"]

_DROPPED_BITS = {F32: 0, F16: 0x1FFF, BF16: 0xFFFF}
"""Bits of an f32 significand that the stored scale does not have."""
_BITS_DTYPE = {F32: np.uint32, F16: np.uint16, BF16: np.uint16}
_F16_LEAST = np.float32(2.0**-14)
_F16_MOST = np.float32(65504)
_PARTS_A_THREAD = 4
"""Threads take turns at parts of a tensor this much smaller than their share, so that they end
together."""


class ScaleOutOfRangeError(Exception):
    """A scale would be subnormal or infinite in f16: the whole tensor takes f32 scales."""


@dataclass(frozen=True)
class RowQuantizer:
    """Quantizes rows (output channels) of one tensor, chunk by chunk.

    `stored` is the type that the scales will be stored in, `name` the tensor, `transposed` whether
    errors give indices of the transpose.
    """

    stored: ElementType
    name: str
    rule: CodesRule = "stored-scale"
    transposed: bool = False

    def quantize(self, rows: Array, scales: Array, codes: Array, first_row: int = 0) -> None:
        """Writes `scales` f32[N] (values that `stored` holds exactly, but for "tpu-mlir") and
        `codes` i8[N, K].

        `rows` is f16, bf16 or f32 `[N, K]`; `first_row` is its place in the tensor. Raises
        `ModelReadError` for NaN and Inf, `ScaleOutOfRangeError` where f16 scales will not do.
        """
        from tilewright.compiler.weights import loops

        element = _element_of_array(rows, self.name)
        loop = {F16: loops.quantize_f16, BF16: loops.quantize_bf16, F32: loops.quantize_f32}
        exact = self.rule == "stored-scale"
        bounded = exact and self.stored == F16
        status = loop[element](
            rows.view(_BITS_DTYPE[element]),
            scales,
            codes,
            np.uint32(_DROPPED_BITS[self.stored] if exact else 0),
            _F16_LEAST if bounded else np.float32(0),
            _F16_MOST if bounded else np.float32(np.inf),
        )
        if status == loops.SCALE_OUT_OF_RANGE:
            raise ScaleOutOfRangeError
        if status != loops.QUANTIZED:
            self._reject(rows, status, first_row)

    def _reject(self, rows: Array, row: int, first_row: int) -> NoReturn:
        values = rows[row].astype(np.float32)
        column = int(np.argmax(~np.isfinite(values)))
        index = (first_row + row, column)
        raise not_finite(self.name, values[column], index[::-1] if self.transposed else index)


def not_finite(name: str, value: Any, index: tuple[int, ...]) -> ModelReadError:
    """The error for a NaN or Inf in a weight."""
    return ModelReadError(
        f"weight {name!r} holds {value} at index {list(index)}",
        why="a weight that is not finite would make its whole output channel NaN",
        hint="the checkpoint is damaged, or was saved after training diverged",
    )


def quantize_w8a16(
    weight: Array,
    scale_element: ElementType,
    *,
    codes: CodesRule = "stored-scale",
    name: str = "weight",
    threads: int = 1,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Codes `i8[N, K]` and stored scales `[N, 1]` of `weight[N, K]`, stored as f16, bf16 or f32.

    `scale_element` is f16 or bf16; the scales are f32 where an f16 scale would be subnormal or
    infinite. `out` takes the codes, if given. Raises `ModelReadError` for NaN and Inf.
    """
    check_rule(codes)
    if weight.ndim != 2:
        raise UnsupportedError(
            f"weight {name!r} has rank {weight.ndim}; only matrices are quantized"
        )
    weight = np.ascontiguousarray(weight)
    out = np.empty(weight.shape, np.int8) if out is None else out
    scales = np.empty(weight.shape[0], np.float32)
    try:
        _quantize_parts(RowQuantizer(scale_element, name, codes), weight, scales, out, threads)
    except ScaleOutOfRangeError:
        scale_element = F32
        _quantize_parts(RowQuantizer(F32, name, codes), weight, scales, out, threads)
    return out, store_scales(scales, scale_element)


def _quantize_parts(
    quantizer: RowQuantizer, weight: Array, scales: Array, codes: Array, threads: int
) -> None:
    count = len(weight)
    if threads <= 1:
        quantizer.quantize(weight, scales, codes)
        return
    step = max(1, -(-count // (threads * _PARTS_A_THREAD)))

    def part(start: int) -> None:
        rows = slice(start, start + step)
        quantizer.quantize(weight[rows], scales[rows], codes[rows], start)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(part, range(0, count, step)):
            pass


def store_scales(scales: Array, element: ElementType) -> Array:
    """Scales f32[N] as they are stored: `[N, 1]` of `element`."""
    with np.errstate(over="ignore", under="ignore"):
        return scales.astype(element.dtype).reshape(-1, 1)


def check_rule(rule: str) -> None:
    """Raises `OptionError` for a rule of codes that does not exist."""
    if rule not in ("stored-scale", "tpu-mlir"):
        raise OptionError(
            f"unknown rule for codes {rule!r}", hint="one of 'stored-scale', 'tpu-mlir'"
        )


def _element_of_array(array: Array, name: str) -> ElementType:
    for element in (F16, BF16, F32):
        if array.dtype == element.dtype:
            return element
    raise UnsupportedError(f"weight {name!r} is stored as {array.dtype}, not as f16, bf16 or f32")
