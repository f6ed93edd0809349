"""Scalars and arrays by bit pattern: f16, bf16, fp8 and int4.

Every pattern of a format is equally likely, so a run of a few hundred examples meets subnormals,
infinities, NaNs and the largest values, which `st.floats(width=16)` favours no more than 1.0 and
which it has not at all for bf16 and fp8. What shrinks goes towards 0, 1, -1, 2, 0.5.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tilewright.testing.formats import (
    BFLOAT16,
    FLOAT8_E4M3,
    FLOAT8_E5M2,
    FLOAT16,
    INT4,
    NumberFormat,
    table,
)
from tilewright.testing.strategies.shapes import Shape, ShapeLike, as_strategy

Array = npt.NDArray[Any]


def scalars(
    number: NumberFormat,
    *,
    allow_nan: bool = True,
    allow_infinity: bool = True,
    allow_subnormal: bool = True,
    min_magnitude: float = 0.0,
    max_magnitude: float | None = None,
) -> st.SearchStrategy[Any]:
    """NumPy scalars of a format, each allowed bit pattern equally likely.

    Both zeros are drawn where `min_magnitude` is 0. Raises `OptionError` where nothing is left.
    """
    values = table(
        number,
        allow_nan=allow_nan,
        allow_infinity=allow_infinity,
        allow_subnormal=allow_subnormal,
        min_magnitude=min_magnitude,
        max_magnitude=max_magnitude,
    )
    return st.integers(0, len(values) - 1).map(lambda index: values[index])


def float16s(
    *, allow_nan: bool = True, allow_infinity: bool = True, allow_subnormal: bool = True
) -> st.SearchStrategy[Any]:
    """`np.float16` scalars by bit pattern.

    @given(float16s(allow_nan=False))
    def test_rounding_is_monotone(x): ...
    """
    return scalars(
        FLOAT16,
        allow_nan=allow_nan,
        allow_infinity=allow_infinity,
        allow_subnormal=allow_subnormal,
    )


def bfloat16s(
    *, allow_nan: bool = True, allow_infinity: bool = True, allow_subnormal: bool = True
) -> st.SearchStrategy[Any]:
    """`ml_dtypes.bfloat16` scalars by bit pattern."""
    return scalars(
        BFLOAT16,
        allow_nan=allow_nan,
        allow_infinity=allow_infinity,
        allow_subnormal=allow_subnormal,
    )


def float8s_e4m3(*, allow_nan: bool = True, allow_subnormal: bool = True) -> st.SearchStrategy[Any]:
    """`ml_dtypes.float8_e4m3fn` scalars by bit pattern; the format has no infinities."""
    return scalars(FLOAT8_E4M3, allow_nan=allow_nan, allow_subnormal=allow_subnormal)


def float8s_e5m2(
    *, allow_nan: bool = True, allow_infinity: bool = True, allow_subnormal: bool = True
) -> st.SearchStrategy[Any]:
    """`ml_dtypes.float8_e5m2` scalars by bit pattern."""
    return scalars(
        FLOAT8_E5M2,
        allow_nan=allow_nan,
        allow_infinity=allow_infinity,
        allow_subnormal=allow_subnormal,
    )


def int4s() -> st.SearchStrategy[Any]:
    """`np.int8` scalars from -8 to 7."""
    return scalars(INT4)


@st.composite
def bit_arrays(
    draw: st.DrawFn,
    number: NumberFormat,
    shape: ShapeLike,
    *,
    allow_nan: bool = True,
    allow_infinity: bool = True,
    allow_subnormal: bool = True,
    min_magnitude: float = 0.0,
    max_magnitude: float | None = None,
) -> Array:
    """Arrays of a format, each element any allowed bit pattern, all drawn at once.

    For what must work on every value: conversions, comparisons, rounding of whole tensors.

        @given(bit_arrays(FLOAT16, (4, 33), allow_nan=False))
        def test_conversion_keeps_finite_values(x): ...
    """
    values = table(
        number,
        allow_nan=allow_nan,
        allow_infinity=allow_infinity,
        allow_subnormal=allow_subnormal,
        min_magnitude=min_magnitude,
        max_magnitude=max_magnitude,
    )
    return values[draw_positions(draw, draw(as_strategy(shape)), len(values))]


@st.composite
def packed_int4_bytes(draw: st.DrawFn, shape: ShapeLike) -> tuple[Array, int]:
    """Bytes `uint8[N, ceil(K / 2)]` of two codes each, and K; `shape` draws `(N, K)`.

    Every byte is possible; the last high nibble of an odd row is 0. For unpacking, and for kernels
    that read packed codes.
    """
    rows, depth = draw(as_strategy(shape))
    width = -(-depth // 2)
    raw = draw(st.binary(min_size=rows * width, max_size=rows * width))
    packed = np.frombuffer(raw, np.uint8).reshape(rows, width).copy()
    if depth % 2:
        packed[:, -1] &= 0x0F
    return packed, depth


def draw_positions(draw: st.DrawFn, shape: Shape, count: int) -> Array:
    """Positions in a table of at most 65536 rows, `shape`, equally likely; they shrink to 0.

    Two bytes an element, the high one first: so that what Hypothesis does to shrink bytes makes
    positions smaller.
    """
    size = prod(shape)
    raw = draw(st.binary(min_size=2 * size, max_size=2 * size))
    words = np.frombuffer(raw, ">u2").astype(np.int64)
    return ((words * count) >> 16).reshape(shape)
