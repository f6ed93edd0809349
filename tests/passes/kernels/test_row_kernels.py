"""Kernels that work on whole rows: softmax, normalizations, reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import FLOATS, Array, Pitched, check, normal
from xdsl.ir import Operation

from tilewright.dialects import tpu
from tilewright.dialects.element_types import F16, F32, ElementType

SHAPES = [(1, 1), (1, 4096), (3, 7), (65, 33), (64, 1), (130, 100), (2, 3, 5), (77,), (70, 5000)]

elements = pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
MODES = ("sum", "mean", "max", "min")


@elements
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax(shape: tuple[int, ...], element: ElementType):
    check(tpu.SoftmaxOp, normal(shape, element, scale=5.0))
    check(tpu.SoftmaxOp, Pitched(normal(shape, element, scale=5.0), 3, 6))


@elements
@pytest.mark.parametrize("hidden", ["lowest", "infinite"])
def test_softmax_of_masked_scores(element: ElementType, hidden: str):
    """The lowest finite value, or -inf, hides columns; a row of nothing else is even, or NaN."""
    import ml_dtypes

    scores = normal((70, 90), element)
    low = -np.inf if hidden == "infinite" else float(ml_dtypes.finfo(element.dtype).min)
    for row in range(70):
        scores[row, row + 1 :] = low
    scores[3] = low
    check(tpu.SoftmaxOp, scores)


@elements
def test_softmax_of_large_scores(element: ElementType):
    """The maximum is taken off first: no overflow. One infinity or NaN makes a row NaN."""
    scores = normal((66, 40), element, scale=1e4)
    scores[1, 7], scores[2, 0] = np.inf, np.nan
    check(tpu.SoftmaxOp, scores)


def norm(
    kind: str, eps: float, weight: Array | None, bias: Array | None
) -> tuple[Callable[..., Operation], list[Array]]:
    parameters = [each for each in (weight, bias) if each is not None]

    def build(x: Any, *rest: Any) -> Operation:
        if kind == "rms":
            return tpu.RMSNormOp(x, *rest, eps=eps)
        given_weight = rest[0] if weight is not None else None
        given_bias = rest[-1] if bias is not None else None
        return tpu.LayerNormOp(x, given_weight, given_bias, eps=eps)

    return build, parameters


@elements
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_rms_norm(shape: tuple[int, ...], weighted: bool, element: ElementType):
    weight = normal(shape[-1:], element, 1) if weighted else None
    build, parameters = norm("rms", 1e-5, weight, None)
    check(build, normal(shape, element, scale=3.0), *parameters)
    check(build, Pitched(normal(shape, element, scale=0.01), 1, 4), *parameters)


@elements
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("parts", ["", "w", "b", "wb"])
def test_layer_norm(shape: tuple[int, ...], parts: str, element: ElementType):
    weight = normal(shape[-1:], element, 1) if "w" in parts else None
    bias = normal(shape[-1:], element, 2) if "b" in parts else None
    build, parameters = norm("layer", 1e-5, weight, bias)
    check(build, normal(shape, element) + element.dtype.type(2), *parameters)


def test_layer_norm_of_a_row_far_from_zero():
    """The variance is that of the centred row: no cancellation."""
    x = normal((5, 300), F32) + np.float32(1000)
    build, parameters = norm("layer", 1e-12, normal((300,), F32), normal((300,), F32))
    check(build, Pitched(x, 3, 1), *parameters)


@elements
def test_norms_of_rows_of_zeros_infinities_and_nan(element: ElementType):
    x = normal((4, 70), element)
    x[0], x[1, 3], x[2, 5] = 0, np.inf, np.nan
    for kind in ("rms", "layer"):
        build, parameters = norm(kind, 1e-5, normal((70,), element), None)
        check(build, x, *parameters)


@elements
@pytest.mark.parametrize("mode", MODES)
def test_reduce(mode: str, element: ElementType):
    for shape in [*SHAPES, (3, 40000), (130, 9001)]:
        check(
            lambda x: tpu.ReduceOp(x, mode),
            normal(shape, element),
            exact=mode in ("max", "min"),
        )
    check(lambda x: tpu.ReduceOp(x, mode), Pitched(normal((70, 9001), element), 1, 2))


@elements
@pytest.mark.parametrize("mode", MODES)
def test_reduce_of_infinities_and_nan(mode: str, element: ElementType):
    x = normal((8, 20000), element)
    x[0, 19999], x[1, 0], x[2, 5000], x[3, 15000] = np.nan, np.nan, np.inf, -np.inf
    x[4], x[5] = -np.inf, np.inf
    x[6, 3], x[6, 15000] = np.inf, -np.inf
    check(lambda x: tpu.ReduceOp(x, mode), x, exact=mode in ("max", "min"))


@given(st.integers(1, 200), st.integers(1, 600), st.sampled_from(FLOATS), st.booleans())
@settings(deadline=None, max_examples=40)
def test_any_size(rows: int, cols: int, element: ElementType, pitched: bool):
    x: Any = normal((rows, cols), element)
    x = Pitched(x, 1, 2) if pitched else x
    check(tpu.SoftmaxOp, x)
    check(lambda v, w: tpu.RMSNormOp(v, w, eps=1e-6), x, normal((cols,), element))
    check(lambda v: tpu.ReduceOp(v, "min"), x, exact=True)


def test_reduce_of_whole_numbers_is_exact():
    """A column left out or taken twice shows, at every place where a row may be split."""
    x = np.arange(3 * 20481).reshape(3, 20481).astype(np.float32) % 5
    item = check(lambda v: tpu.ReduceOp(v, "sum"), x)
    assert np.array_equal(item.run(), x.sum(axis=1, keepdims=True))
    halves = x.astype(F16.dtype)
    item = check(lambda v: tpu.ReduceOp(v, "sum"), halves)
