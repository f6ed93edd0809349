"""What int8 ops compute in both semantics, and that errors of operands are carried on soundly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xdsl.ir import Block, Operation

from tilewright.backends.reference import bounds, float64, typed
from tilewright.backends.reference.balls import FLOAT64, MACHINE, Ball
from tilewright.backends.reference.composition import propagate
from tilewright.backends.reference.int8_ops import ANY_CODE, quantized, requantized
from tilewright.backends.reference.requant import (
    quantize_activations,
    requant_table,
    requantize_by_table,
)
from tilewright.dialects import tpu
from tilewright.dialects.element_types import ELEMENT_TYPES, F16, tensor_type

Array = NDArray[Any]

X = np.array([[0.5, -1.5, 300.0, np.nan], [0.25, -0.75, np.inf, 1e-3]], np.float16)
SCALE = np.array([[0.5]], np.float32)


def op_on(kind: Any, *arrays: Array) -> Operation:
    """An op on values of the types of `arrays`."""
    elements = {element.dtype: element for element in ELEMENT_TYPES}
    types = [tensor_type(array.shape, elements[array.dtype]) for array in arrays]
    op = kind(*Block(arg_types=types).args)
    assert isinstance(op, Operation)
    return op


def test_quantize() -> None:
    """Halves to even, ends that hold, NaN is 0; the same in both semantics, and exact."""
    op = op_on(tpu.QuantizeOp, X, SCALE)
    expected = [[1, -3, 127, 0], [0, -2, 127, 0]]
    for level in (typed, float64):
        (codes,) = level.evaluate(op, [X, SCALE])
        assert codes.dtype == np.int8
        assert codes.tolist() == expected
        assert bounds.bound(op, [X, SCALE], codes) is None


def test_int8_matmul() -> None:
    numbers = np.random.default_rng(0)
    x = numbers.integers(-128, 128, (2, 3, 50)).astype(np.int8)
    codes = numbers.integers(-127, 128, (1100, 50)).astype(np.int8)
    scale = numbers.random(1100).astype(np.float32) * np.float32(1e-3)
    table = requant_table(scale + 1e-6, numbers.standard_normal(1100), 0.02, 0.01)
    op = op_on(tpu.Int8MatMulOp, x, codes, table)
    sums = np.einsum("abk,nk->abn", x.astype(np.int64), codes.astype(np.int64))
    expected = requantize_by_table(sums.astype(np.int32), table)
    for level in (typed, float64):
        (result,) = level.evaluate(op, [x, codes, table])
        assert result.dtype == np.int8
        assert np.array_equal(result, expected)
        assert bounds.bound(op, [x, codes, table], result) is None
    for arithmetic in (FLOAT64, MACHINE):
        (ball,) = propagate(op, [Ball.exact(each) for each in (x, codes, table)], arithmetic)
        assert np.array_equal(ball.value, expected)
        assert not ball.radius.any()


def test_dequantize_rounds_once() -> None:
    codes = np.arange(-128, 128, dtype=np.int8)[None, :]
    scale = np.array([[0.0123]], np.float32)
    op = op_on(lambda q, s: tpu.DequantizeOp(q, s, element=F16), codes, scale)
    (exact,) = float64.evaluate(op, [codes, scale])
    assert np.array_equal(exact, codes * np.float64(scale[0, 0]))
    (result,) = typed.evaluate(op, [codes, scale])
    assert np.array_equal(result, exact.astype(np.float16))
    limit = bounds.bound(op, [codes, scale], exact)
    assert limit is not None
    assert (limit <= np.spacing(np.abs(exact).astype(np.float16)).astype(float) * 0.5001).all()
    assert not bounds.outside(result, exact, limit).any()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 3))
def test_codes_of_what_may_be_elsewhere(seed: int, reach: float) -> None:
    """Each value that a ball holds has a code within the radius."""
    numbers = np.random.default_rng(seed)
    value = numbers.standard_normal((4, 8)) * 20
    radius = np.abs(numbers.standard_normal((4, 8))) * reach
    ball = quantized(Ball(value, radius), Ball.exact(SCALE))
    for share in (-1, -0.5, 0.3, 1):
        codes = quantize_activations(value + share * radius, SCALE).astype(float)
        assert (np.abs(codes - ball.value) <= ball.radius).all()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 1000))
def test_sums_that_may_be_elsewhere(seed: int, reach: int) -> None:
    numbers = np.random.default_rng(seed)
    sums = numbers.integers(-(2**20), 2**20, (3, 5)).astype(np.float64)
    radius = numbers.integers(0, reach + 1, (3, 5)).astype(np.float64)
    table = requant_table(numbers.random(5).astype(np.float32) + 0.1, None, 1e-3, 0.1)
    ball = requantized(Ball(sums, radius), Ball.exact(table))
    for share in (-1, 0, 1):
        moved = (sums + share * radius).astype(np.int32)
        codes = requantize_by_table(moved, table).astype(float)
        assert (np.abs(codes - ball.value) <= ball.radius).all()
    assert (ball.radii[radius == 0] == 0).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_a_layer_on_activations_with_errors(seed: int) -> None:
    """Quantize, multiply, dequantize: what moved inputs give lies within the last radius."""
    numbers = np.random.default_rng(seed)
    x, radius = numbers.standard_normal((3, 24)), np.full((3, 24), 0.01)
    scale, after = np.array([[0.03]], np.float32), np.array([[0.1]], np.float32)
    codes = numbers.integers(-127, 128, (7, 24)).astype(np.int8)
    table = requant_table(np.full(7, 0.01, np.float32), None, 0.03, 0.1)

    def layer(first: Ball) -> Ball:
        (q,) = propagate(op_on(tpu.QuantizeOp, x.astype("f4"), scale), [first, exact(scale)], F64)
        product = op_on(tpu.Int8MatMulOp, codes[:3], codes, table)
        (y,) = propagate(product, [q, exact(codes), exact(table)], F64)
        back = op_on(tpu.DequantizeOp, codes[:3, :7].copy(), after)
        (result,) = propagate(back, [y, exact(after)], F64)
        return result

    ball = layer(Ball(x, radius))
    moved = layer(Ball.exact(x + radius * numbers.uniform(-1, 1, x.shape)))
    assert (np.abs(moved.value - ball.value) <= ball.radii + moved.radii).all()
    assert np.isfinite(ball.radii).all()


F64 = FLOAT64
exact = Ball.exact


def test_scales_that_are_not_certain_leave_nothing_certain() -> None:
    ball = quantized(Ball.exact(X.astype(np.float64)), Ball(SCALE.astype(float), SCALE / 2))
    assert (ball.radii == ANY_CODE).all()
    lost = quantized(Ball.exact(X.astype(np.float64)), Ball.exact(np.full((1, 1), np.nan)))
    assert np.isnan(lost.value).all()


@pytest.mark.parametrize("place", ["sums", "table"])
def test_what_was_destroyed_stays_visible(place: str) -> None:
    sums, table = np.full((2, 3), 50.0), requant_table(np.ones(3, np.float32), None, 1.0, 1.0)
    numbers = table.astype(np.float64)
    if place == "sums":
        sums[0, 1] = np.nan
    else:
        numbers[1, 2] = np.nan
    ball = requantized(Ball.exact(sums), Ball.exact(numbers))
    assert np.isnan(ball.value[0, 1])
    assert ball.value[0, 0] == ball.value[1, 2] == 50
