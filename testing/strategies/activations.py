"""Activations `[M, K]`: what weights are multiplied with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tilewright.testing.strategies.scalars import draw_positions
from tilewright.testing.strategies.shapes import ShapeLike, as_strategy
from tilewright.testing.strategies.tails import GAUSSIAN
from tilewright.testing.strategies.weights import outliers, tailed

Array = npt.NDArray[Any]

_LARGEST_INTEGER = 4


def activations(shape: ShapeLike, *, dtype: npt.DTypeLike = np.float16) -> st.SearchStrategy[Array]:
    """Gaussian activations around 1, some with an input channel 32 times as large as the others, as
    language models have.

        @given(activations((4, 64)))
        def test_product(x): ...
    """
    return st.one_of(
        tailed(shape, GAUSSIAN, exponents=(-1, 1), dtype=dtype),
        outliers(shape, kind="column", exponents=(-1, 1), dtype=dtype),
        integer_activations(shape, dtype=dtype),
    )


@st.composite
def integer_activations(
    draw: st.DrawFn, shape: ShapeLike, *, dtype: npt.DTypeLike = np.float16
) -> Array:
    """Integers from -4 to 4. Sums of their products with integer codes are exact in f32 in any
    order, so that results can be compared to the bit.
    """
    size = draw(as_strategy(shape))
    values = np.array(sorted(range(-_LARGEST_INTEGER, _LARGEST_INTEGER + 1), key=abs))
    return values[draw_positions(draw, size, len(values))].astype(dtype)


@st.composite
def cancelling(
    draw: st.DrawFn, rows: int, weight_shape: ShapeLike, *, dtype: npt.DTypeLike = np.float16
) -> tuple[Array, Array]:
    """`(x[rows, K], weight[N, K])` whose products cancel in pairs but for a last bit: the result is
    a thousandth of its terms, or 0.

    Bounds in ulps of the result fail on it; bounds by `sum |x| |w|` hold.
    """
    weight = draw(tailed(weight_shape, GAUSSIAN, exponents=(-2, 0)))
    x = draw(tailed((rows, weight.shape[1]), GAUSSIAN, exponents=(-1, 1), dtype=dtype))
    pairs = weight.shape[1] // 2
    weight[:, pairs : 2 * pairs] = weight[:, :pairs]
    bits = (draw_positions(draw, (rows, pairs), 3) - 1).astype(np.float64)
    unit = float(np.finfo(np.float16).eps)
    x[:, pairs : 2 * pairs] = (-x[:, :pairs].astype(np.float64) * (1 + bits * unit)).astype(dtype)
    return x, weight
