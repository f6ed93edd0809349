"""Operations on balls: the exact result of every point of the operands' balls is in the result's.

Exact results are long double's. What is checked so can fail: balls of half the radius are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.backends.reference import primitives as p
from tilewright.backends.reference.balls import FLOAT64, MACHINE, Arithmetic, Ball
from tilewright.backends.reference.constants import constant, factor
from tilewright.backends.reference.numerics import round_to
from tilewright.dialects.element_types import BF16, F16, F32

Array = NDArray[Any]
Exact = Callable[..., Array]

ARITHMETICS = (FLOAT64, MACHINE)
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([0.0, 1e-15, 1e-9, 1e-4, 0.1, 3.0])
"""Radii, relative to the values."""


def long(values: Array) -> Array:
    return values.astype(np.longdouble)


def _erf(x: Array) -> Array:
    return long(np.vectorize(math.erf, otypes=[np.float64])(x.astype(np.float64)))


def _softsign(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


UNARY: dict[str, tuple[Exact, float]] = {
    "cast": (lambda x: x, 30.0),
    "neg": (np.negative, 30.0),
    "abs": (np.abs, 30.0),
    "relu": (lambda x: np.maximum(x, 0), 3.0),
    "sqrt": (np.sqrt, 30.0),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 30.0),
    "reciprocal": (lambda x: 1 / x, 30.0),
    "exp": (np.exp, 5.0),
    "sigmoid": (_softsign, 5.0),
    "tanh": (np.tanh, 3.0),
    "erf": (_erf, 2.0),
}
"""The exact function and the spread of its arguments."""

BINARY: dict[str, Exact] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}
REDUCE: dict[str, Exact] = {"sum": np.sum, "max": np.max, "min": np.min}


def drawn(
    rng: np.random.Generator, m: Arithmetic, shape: tuple[int, ...], size: float, spread: float = 1
) -> Ball:
    """A ball of normal numbers that the arithmetic holds, radii around `size` of them."""
    value = m.widen(rng.standard_normal(shape) * spread).astype(np.float64)
    radius = size * np.abs(value) * rng.random(shape) * (rng.random(shape) < 0.8)
    return Ball(value, radius)


def points(rng: np.random.Generator, ball: Ball) -> Array:
    """A point of the ball: at the rim of most elements."""
    side = np.where(rng.random(ball.value.shape) < 0.7, rng.choice([-1, 1], ball.value.shape), 0)
    return long(ball.value) + long(ball.radii) * side


def share_outside(ball: Ball, exact: Array, *, scale: float = 1.0) -> float:
    """The share of exact values that are not in the ball with its radius times `scale`.

    `exact` has an error of its own: some units of long double, or of float64 for erf.
    """
    with np.errstate(all="ignore"):
        error = np.abs(long(ball.value) - exact)
        slack = np.abs(exact) * np.longdouble(2.0**-60)
        bad = ~(error <= long(ball.radii) * scale + slack) & ~np.isnan(exact)
    return float(np.mean(bad))


@pytest.mark.parametrize("m", ARITHMETICS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", UNARY)
@settings(max_examples=25)
@given(seed=SEEDS, size=SIZES)
def test_functions(name: str, m: Arithmetic, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    exact, spread = UNARY[name]
    ball = drawn(rng, m, (6, 40), size, spread)
    if name in ("sqrt", "rsqrt"):
        ball = Ball(np.abs(ball.value), ball.radius)
    with np.errstate(all="ignore"):
        result = p.UNARY[name](m, ball)
        for _ in range(3):
            assert share_outside(result, exact(points(rng, ball))) == 0


@pytest.mark.parametrize("m", ARITHMETICS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=25)
@given(seed=SEEDS, size=SIZES, other=SIZES, column=st.booleans())
def test_binary(
    name: str, m: Arithmetic, seed: int, size: float, other: float, column: bool
) -> None:
    rng = np.random.default_rng(seed)
    a, b = drawn(rng, m, (6, 40), size), drawn(rng, m, (6, 1) if column else (6, 40), other)
    with np.errstate(all="ignore"):
        result = p.BINARY[name](m, a, b)
        for _ in range(3):
            assert share_outside(result, BINARY[name](points(rng, a), points(rng, b))) == 0


@pytest.mark.parametrize("m", ARITHMETICS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", REDUCE)
@settings(max_examples=15)
@given(seed=SEEDS, size=SIZES)
def test_reductions(name: str, m: Arithmetic, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    ball = drawn(rng, m, (6, 300), size)
    result = p.REDUCE[name](m, ball)
    for _ in range(3):
        exact = REDUCE[name](points(rng, ball), axis=-1, keepdims=True)
        assert share_outside(result, exact) == 0


@pytest.mark.parametrize("m", ARITHMETICS, ids=lambda m: m.name)
@settings(max_examples=25)
@given(seed=SEEDS, size=SIZES, other=SIZES, depth=st.integers(1, 200), turned=st.booleans())
def test_matmul(
    m: Arithmetic, seed: int, size: float, other: float, depth: int, turned: bool
) -> None:
    rng = np.random.default_rng(seed)
    a = drawn(rng, m, (5, depth), size)
    b = drawn(rng, m, (9, depth) if turned else (depth, 9), other)
    result = p.matmul(m, a, b, transpose_right=turned)
    right = points(rng, b)
    exact = points(rng, a) @ (right.T if turned else right)
    assert share_outside(result, exact) == 0


def test_half_a_radius_is_left() -> None:
    """Where the worst case is reached, so that the checks above can fail."""
    rng = np.random.default_rng(0)
    for m in ARITHMETICS:
        a, b = drawn(rng, m, (40, 1), 0.01), drawn(rng, m, (1, 40), 0.01)
        at_rim = long(a.value) + a.radius * np.sign(a.value)
        other = long(b.value) + b.radius * np.sign(b.value)
        for name in ("mul", "div"):
            exact = BINARY[name](at_rim, other if name == "mul" else 2 * b.value - other)
            result = p.BINARY[name](m, a, b)
            assert share_outside(result, exact) == 0
            assert share_outside(result, exact, scale=0.5) > 0.3, name
        product = p.matmul(m, a, b, transpose_right=False)
        assert share_outside(product, at_rim @ other, scale=0.5) > 0.3
        for name in ("exp", "cast", "neg"):
            exact = UNARY[name][0](long(a.value) + a.radius)
            assert share_outside(p.UNARY[name](m, a), exact, scale=0.5) > 0.3, name


def test_own_error_is_there_and_small() -> None:
    """Exact operands: half the bound of f32 products is left by some, eight times by none."""
    rng = np.random.default_rng(1)
    x = drawn(rng, MACHINE, (200, 1), 0.0)
    y = drawn(rng, MACHINE, (1, 200), 0.0)
    a, b = Ball.exact(x.value), Ball.exact(y.value)
    product = p.multiply(MACHINE, a, b)
    exact = long(a.value) * long(b.value)
    assert share_outside(product, exact) == 0
    assert share_outside(product, exact, scale=0.25) > 0.1


@pytest.mark.parametrize("element", [F16, BF16, F32])
@settings(max_examples=20)
@given(seed=SEEDS)
def test_storing_rounds_once(element: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal(500) * 2.0 ** rng.integers(-30, 17, 500)
    stored = p.store(MACHINE, Ball.exact(wide), element)
    np.testing.assert_array_equal(stored.value, round_to(wide, element).astype(np.float64))
    finite = np.isfinite(stored.value)
    assert np.all(np.abs(stored.value - wide)[finite] <= stored.radii[finite])
    assert np.all(np.isinf(stored.radii[~finite]))
    assert p.store(FLOAT64, Ball.exact(wide), element).is_exact


def test_what_a_mask_hides_has_no_error() -> None:
    """-3e38 and -inf: whatever the score's own error is, its power is 0."""
    for hidden in (-3e38, -np.inf):
        for m in ARITHMETICS:
            scores = Ball(np.array([[1.0, 2.0]]), np.array([[1e-6, 1e-6]]))
            masked = p.add(m, scores, Ball.exact(np.array([[0.0, hidden]])))
            largest = p.reduce_max(m, masked)
            assert largest.radius[0, 0] < 2e-6
            powers = p.exp(m, p.subtract(m, masked, largest))
            assert powers.value[0, 1] == 0
            assert powers.radius[0, 1] <= 2 * m.tiny
            assert powers.radius[0, 0] < 4e-6


def test_overflow_and_poles_are_unknown() -> None:
    large, wide = Ball.exact(np.array([3e38])), Ball(np.array([0.5]), np.array([1.0]))
    with np.errstate(all="ignore"):
        assert np.isinf(p.multiply(MACHINE, large, large).radius)
        assert np.isinf(p.store(MACHINE, Ball.exact(np.array([1e6])), F16).radius)
        for function in (p.reciprocal, p.rsqrt):
            assert np.isinf(function(FLOAT64, wide).radius)
        assert np.isinf(p.divide(FLOAT64, large, wide).radius)


def test_a_lost_radius_is_infinite() -> None:
    ball = Ball(np.array([1.0, np.nan]), np.array([np.nan, np.nan])).settled()
    assert np.isinf(ball.radius[0])
    assert np.isnan(ball.radius[1])


@pytest.mark.parametrize("divisor", [3, 60, 688, 4096, -7])
def test_known_constants(divisor: int) -> None:
    """The f32 nearest to 1/n is 1/n in float64, and itself on the machine."""
    stored = float(np.float32(1 / divisor))
    assert float(factor(FLOAT64, stored).value) == 1 / divisor
    assert float(factor(MACHINE, stored).value) == stored
    assert float(constant(FLOAT64, stored).value) == stored


def test_known_constants_of_gelu() -> None:
    scale = math.sqrt(2 / math.pi)
    for value in (scale, 2 * scale, 2 * scale * 0.044715, math.sqrt(0.5), -math.sqrt(0.5)):
        assert float(constant(FLOAT64, float(np.float32(value))).value) == value
    assert constant(FLOAT64, 0.5).is_exact
