"""Codes of 4 bits, two in a byte."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tilewright.dialects.quantization import CodeFormat
from tilewright.testing.quantizer import Subject
from tilewright.testing.strategies.scalars import draw_positions, packed_int4_bytes
from tilewright.testing.strategies.shapes import matrix_shapes
from tilewright.testing.suite.property import (
    Array,
    Case,
    at,
    only_four_bits,
    quantizer_property,
    require,
    require_each,
)

_NEEDS = ("pack", "unpack")


def _low(subject: Subject) -> int:
    return 0 if subject.scheme.format is CodeFormat.U4 else -8


@st.composite
def _draw_codes(draw: st.DrawFn, low: int, *, odd: bool | None = None) -> Array:
    rows, depth = draw(matrix_shapes())
    if odd is not None and depth % 2 != odd:
        depth += 1
    codes = low + draw_positions(draw, (rows, depth), 16).astype(np.int64)
    return codes.astype(np.uint8 if low == 0 else np.int8)


def _codes(subject: Subject) -> st.SearchStrategy[Case]:
    return st.tuples(_draw_codes(_low(subject)))


def _odd_codes(subject: Subject) -> st.SearchStrategy[Case]:
    return st.tuples(_draw_codes(_low(subject), odd=True))


def _pack(subject: Subject, codes: Array) -> Array:
    assert subject.quantizer.pack is not None
    return np.asarray(subject.quantizer.pack(codes)).view(np.uint8)


def _unpack(subject: Subject, packed: Array, depth: int) -> Array:
    assert subject.quantizer.unpack is not None
    return np.asarray(subject.quantizer.unpack(packed, depth)).astype(np.int64)


@quantizer_property("packing-round-trip", _codes, needs=_NEEDS, applies=only_four_bits)
def packing_round_trip(subject: Subject, codes: Array) -> None:
    """Codes that are packed and unpacked are the codes, signs included.

    Catches signs that are not extended, masks that are forgotten, nibbles in different orders.
    """
    back = _unpack(subject, _pack(subject, codes), codes.shape[1])
    require(back.shape == codes.shape, f"{list(codes.shape)} codes become {list(back.shape)}")
    require_each(
        back == codes, lambda i: f"code {at(codes, i)} at {list(i)} is {at(back, i)} after"
    )


@quantizer_property("packing-low-nibble-first", _codes, needs=_NEEDS, applies=only_four_bits)
def packing_low_nibble_first(subject: Subject, codes: Array) -> None:
    """A byte holds the even code in its low nibble and the odd one in its high nibble.

    Catches the other order, and packing across halves of a row: a round trip does not see either,
    but every other reader does.
    """
    packed = _pack(subject, codes)
    even, odd = codes[:, 0::2].astype(np.uint8) & 15, codes[:, 1::2].astype(np.uint8) & 15
    width = odd.shape[1]
    require(
        packed.shape[1] >= even.shape[1], f"a row of {codes.shape[1]} codes takes too few bytes"
    )
    low, high = packed[:, : even.shape[1]] & 15, packed[:, :width] >> 4
    require_each(low == even, lambda i: f"the low nibble of byte {list(i)} is {at(low, i)}")
    require_each(high == odd, lambda i: f"the high nibble of byte {list(i)} is {at(high, i)}")


@quantizer_property("packing-odd-length", _odd_codes, needs=_NEEDS, applies=only_four_bits)
def packing_odd_length(subject: Subject, codes: Array) -> None:
    """Rows of an odd length take a byte for the last code, with a high nibble of 0.

    Catches rows that run into each other, a last code that is dropped, bytes that are not
    reproducible.
    """
    packed = _pack(subject, codes)
    width = (codes.shape[1] + 1) // 2
    require(packed.shape == (len(codes), width), f"the bytes have shape {list(packed.shape)}")
    require_each(packed[:, -1] >> 4 == 0, lambda i: f"the last high nibble of row {i[0]} is not 0")


def _bytes(subject: Subject) -> st.SearchStrategy[Case]:
    del subject
    return packed_int4_bytes(matrix_shapes())


@quantizer_property("packing-of-all-bytes", _bytes, needs=_NEEDS, applies=only_four_bits)
def packing_of_all_bytes(subject: Subject, packed: Array, depth: int) -> None:
    """Bytes that are unpacked are codes of the scheme, and give the bytes when they are packed.

    Catches bytes from 0x80 on that are read as negative numbers, and -8 that is turned to -7.
    """
    codes = _unpack(subject, packed, depth)
    low = _low(subject)
    require_each(
        (codes >= low) & (codes <= low + 15),
        lambda i: f"code {at(codes, i)} at {list(i)} is not in {low}..{low + 15}",
    )
    again = _pack(subject, codes.astype(np.uint8 if low == 0 else np.int8))
    require_each(again == packed, lambda i: f"byte {at(packed, i)} is {at(again, i)} after")
