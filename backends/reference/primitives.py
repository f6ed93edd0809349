"""Operations on balls: what one operation of an arithmetic makes of values and of their radii.

Throughout, `a` and `b` are computed values, `r_a` and `r_b` their radii, `a + e_a` and `b + e_b`
(`|e| <= r`) the exact ones, `u` the unit roundoff. A radius is the operation's own rounding error
at the computed values, plus the most that its exact result changes inside the operands' balls.
Nothing is of first order only: products of radii are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.backends.reference import formulas
from tilewright.backends.reference.balls import EXACT, SAFE, Arithmetic, Ball
from tilewright.backends.reference.numerics import round_to, ulp
from tilewright.dialects.element_types import ElementType

Array = NDArray[Any]
Unary = Callable[[Arithmetic, Ball], Ball]
Binary = Callable[[Arithmetic, Ball, Ball], Ball]
Reduction = Callable[[Arithmetic, Ball], Ball]


def _rounded(m: Arithmetic, value: Array, *operands: Array) -> Array:
    """`u |result|` of a correctly rounded operation; 0 where an operand was infinite already.

    (A result that is infinite though no operand is has overflowed: its radius is infinite.)
    """
    if m.unit == 0:
        return EXACT
    own = np.abs(value.astype(np.float64, copy=False)) * m.unit
    infinite = np.isinf(own)
    if bool(infinite.any()):
        given = np.zeros(own.shape, np.bool_)
        for operand in operands:
            given |= np.isinf(operand)
        own[infinite & given] = 0.0
    return own


# Sums and products.


def add(m: Arithmetic, a: Ball, b: Ball) -> Ball:
    """`|e_a + e_b| <= r_a + r_b`, and `u |a + b|`."""
    x, y = m.widen(a.value), m.widen(b.value)
    value = x + y
    return Ball(value, (_rounded(m, value, x, y) + a.radius + b.radius) * SAFE)


def subtract(m: Arithmetic, a: Ball, b: Ball) -> Ball:
    """As `add`."""
    x, y = m.widen(a.value), m.widen(b.value)
    value = x - y
    return Ball(value, (_rounded(m, value, x, y) + a.radius + b.radius) * SAFE)


def multiply(m: Arithmetic, a: Ball, b: Ball) -> Ball:
    """`(a + e_a)(b + e_b) - a b = a e_b + e_a b + e_a e_b`; own error `u |a b|`, and underflow."""
    x, y = m.widen(a.value), m.widen(b.value)
    value = x * y
    radius = _rounded(m, value, x, y) + m.tiny
    if not b.is_exact:
        radius += (np.abs(x) + a.radius) * b.radius
    if not a.is_exact:
        radius += a.radius * np.abs(y)
    return Ball(value, radius * SAFE)


def divide(m: Arithmetic, a: Ball, b: Ball) -> Ball:
    """`a' / b' - a / b = (e_a b - a e_b) / (b b')`, so at most `(r_a + |a / b| r_b) / (|b| - r_b)`.

    Own error: 1 ulp (2u), as hardware may iterate. Infinite where b may be 0.
    """
    x, y = m.widen(a.value), m.widen(b.value)
    value = x / y
    own = 2 * _rounded(m, value, x, y) + m.tiny
    if a.is_exact and b.is_exact:
        return Ball(value, own * SAFE)
    least = np.abs(y) - b.radius
    quotient = np.abs(value.astype(np.float64)) * (1 + 4 * m.unit) + m.tiny
    effect = (a.radius + quotient * b.radius) / least
    unknown = ~(least > 0) & ~np.isnan(value)
    return Ball(value, np.where(unknown, np.inf, own + effect) * SAFE)


def matmul(m: Arithmetic, a: Ball, b: Ball, *, transpose_right: bool) -> Ball:
    """`sum_k a_k b_k`, K terms in any order.

    Own error `gamma(K) sum |a| |b|` (Higham, section 3.1), the operands' effect `sum (r_a |b| +
    (|a| + r_a) r_b)`; together `(gamma |a| + r_a) @ |b| + (|a| + r_a) @ r_b`.
    """
    x, y = m.widen(a.value), m.widen(b.value)
    right, right_radius = (y, b.radii) if not transpose_right else (_turned(y), _turned(b.radii))
    depth = x.shape[-1]
    value = np.matmul(x, right)
    if m.unit == 0:
        return Ball(value, EXACT)
    magnitude = np.abs(x.astype(np.float64, copy=False))
    weight = np.abs(right.astype(np.float64, copy=False))
    radius = np.matmul(m.gamma(depth) * magnitude + a.radius, weight)
    if not b.is_exact:
        radius += np.matmul(magnitude + a.radius, right_radius)
    radius += depth * m.tiny
    radius[np.isinf(value)] = np.inf
    return Ball(value, radius * SAFE)


def _turned(array: Array) -> Array:
    return np.swapaxes(array, -1, -2)


# Selections.


def maximum(m: Arithmetic, a: Ball, b: Ball) -> Ball:
    """The larger of two; a NaN if one is.

    With `v = max(a, b)`, the exact result is at most `max(a + r_a, b + r_b)` and at least `v` less
    the radius of the larger: both within `max(r_a - (v - a), r_b - (v - b))`. So an operand that is
    certainly smaller does not count.
    """
    x, y = m.widen(a.value), m.widen(b.value)
    value = np.maximum(x, y)
    if a.is_exact and b.is_exact:
        return Ball(value, EXACT)
    radius = np.maximum(_reach(a.radius, value, x), _reach(b.radius, value, y))
    return Ball(value, radius * SAFE)


def _reach(radius: Array, largest: Array, value: Array) -> Array:
    """How far a ball reaches past the largest value; less than that by no rounding."""
    with np.errstate(invalid="ignore"):
        below = np.where(largest == value, 0.0, np.subtract(largest, value, dtype=np.float64))
    return radius - below * (2 - SAFE)


def minimum(m: Arithmetic, a: Ball, b: Ball) -> Ball:
    """As `maximum`."""
    result = maximum(m, negate(m, a), negate(m, b))
    return negate(m, result)


def negate(m: Arithmetic, a: Ball) -> Ball:
    """Exact."""
    return Ball(-m.widen(a.value), a.radius)


def absolute(m: Arithmetic, a: Ball) -> Ball:
    """`||a + e| - |a|| <= |e|`."""
    return Ball(np.abs(m.widen(a.value)), a.radius)


def relu(m: Arithmetic, a: Ball) -> Ball:
    """`max(a, 0)`."""
    return maximum(m, a, Ball.exact(np.zeros(())))


def identity(m: Arithmetic, a: Ball) -> Ball:
    """What a cast does before it rounds."""
    return Ball(m.widen(a.value), a.radius)


# Functions of one value.


def _function(
    m: Arithmetic, a: Ball, function: Callable[[Array], Array], effect: Array, relative: float
) -> Ball:
    """A function with its operand's `effect`, and its own `relative` error.

    Underflow may be flushed. The effect was computed at values with that same relative error.
    """
    value = function(m.widen(a.value))
    own = relative * np.abs(value.astype(np.float64, copy=False)) + m.tiny
    if a.is_exact:
        return Ball(value, own * SAFE)
    return Ball(value, (own + effect * (1 + 2 * relative)) * SAFE)


def exp(m: Arithmetic, a: Ball) -> Ball:
    """The larger deviation is upwards: `e^a (e^r - 1)`, at most `e^a (r + r^2)` for `r <= 1`.

    For larger r the bound is `e^(a + r)`, which is 0 for what a mask has hidden, whatever its r.
    """
    if a.is_exact:
        return _function(m, a, formulas.exp, EXACT, m.function)
    x, r = a.value.astype(np.float64, copy=False), a.radii
    effect = np.exp(x) * r * (1 + r)
    wide = r > 1
    if bool(wide.any()):
        effect[wide] = np.exp(x[wide] + r[wide])
    return _function(m, a, formulas.exp, effect, m.function)


def rsqrt(m: Arithmetic, a: Ball) -> Ball:
    """The slope `x^(-3/2) / 2` is steepest at the lower end: `r / 2 (a - r)^(-3/2)`.

    Infinite where the ball reaches 0.
    """
    least = a.value.astype(np.float64) - a.radius
    effect = np.where(least > 0, a.radius / 2 * np.abs(least) ** -1.5, np.inf)
    return _function(m, a, formulas.rsqrt, effect, m.function)


def sqrt(m: Arithmetic, a: Ball) -> Ball:
    """`|sqrt x - sqrt y| = |x - y| / (sqrt x + sqrt y) <= sqrt |x - y|`; own error 1 ulp.

    What is not negative as an exact value is taken to be defined.
    """
    x = a.value.astype(np.float64)
    roots = np.sqrt(np.maximum(x, 0.0)) + np.sqrt(np.maximum(x - a.radius, 0.0))
    effect = np.minimum(np.sqrt(a.radius), a.radius / np.where(roots > 0, roots, 1.0))
    effect = np.where(roots > 0, effect, np.sqrt(a.radius))
    return _function(m, a, np.sqrt, effect, 2 * m.unit)


def reciprocal(m: Arithmetic, a: Ball) -> Ball:
    """`|1 / a' - 1 / a| <= r / (|a| (|a| - r))`; own error 1 ulp. Infinite where a may be 0."""
    size = np.abs(a.value.astype(np.float64))
    least = size - a.radius
    effect = np.where(least > 0, a.radius / (size * least), np.inf)
    return _function(m, a, np.reciprocal, effect, 2 * m.unit)


def sigmoid(m: Arithmetic, a: Ball) -> Ball:
    """Slope `s (1 - s) <= min(1/4, e^-|x|)`, largest where the ball is nearest to 0; at most 1."""
    effect = a.radius * np.minimum(0.25, np.exp(-_nearest(a)))
    return _function(m, a, formulas.sigmoid, np.minimum(effect, 1.0), m.function)


def tanh(m: Arithmetic, a: Ball) -> Ball:
    """Slope `1 / cosh(x)^2 <= min(1, 4 e^-2|x|)`; at most 2."""
    effect = a.radius * np.minimum(1.0, 4 * np.exp(-2 * _nearest(a)))
    return _function(m, a, formulas.tanh, np.minimum(effect, 2.0), m.function)


def erf(m: Arithmetic, a: Ball) -> Ball:
    """Slope `2 / sqrt(pi) e^(-x^2)`; at most 2."""
    effect = a.radius * (2 / np.sqrt(np.pi)) * np.exp(-(_nearest(a) ** 2))
    return _function(m, a, formulas.erf, np.minimum(effect, 2.0), m.function)


def _nearest(a: Ball) -> Array:
    """The smallest magnitude in each ball."""
    return np.maximum(np.abs(a.value.astype(np.float64, copy=False)) - a.radius, 0.0)


# Reductions of the last axis.


def reduce_sum(m: Arithmetic, a: Ball) -> Ball:
    """`gamma(n - 1) sum |a|`, in any order, and the sum of the radii."""
    x = m.widen(a.value)
    value = np.sum(x, axis=-1, keepdims=True)
    if m.unit == 0:
        return Ball(value, EXACT)
    own = m.gamma(max(x.shape[-1] - 1, 0)) * np.abs(x.astype(np.float64, copy=False))
    radius = np.sum(own + a.radius, axis=-1, keepdims=True)
    radius[np.isinf(value)] = np.inf
    return Ball(value, radius * SAFE)


def reduce_max(m: Arithmetic, a: Ball) -> Ball:
    """`maximum` of many."""
    x = m.widen(a.value)
    value = np.max(x, axis=-1, keepdims=True)
    if a.is_exact:
        return Ball(value, EXACT)
    return Ball(value, np.max(_reach(a.radius, value, x), axis=-1, keepdims=True) * SAFE)


def reduce_min(m: Arithmetic, a: Ball) -> Ball:
    """`minimum` of many."""
    return negate(m, reduce_max(m, negate(m, a)))


# Rounding to a storage type.


def store(m: Arithmetic, a: Ball, element: ElementType) -> Ball:
    """The one rounding of a result: half an ulp of where the value lies, if the arithmetic rounds.

    What overflows becomes infinite, its radius too.
    """
    if not element.is_float:
        return a
    if m.unit == 0:
        return Ball(a.value.astype(np.float64, copy=False), EXACT)
    if not m.rounds:
        return Ball(a.value.astype(np.float64, copy=False), a.radius)
    if a.value.dtype == element.dtype:
        return Ball(a.value.astype(np.float64), a.radius)
    stored = round_to(a.value, element).astype(np.float64)
    wide = a.value.astype(np.float64, copy=False)
    changed = stored != wide
    if not bool(changed.any()) or bool(np.array_equal(stored, wide, equal_nan=True)):
        return Ball(stored, a.radius)
    half = np.where(changed, ulp(wide, element) / 2, 0.0)
    overflown = np.isinf(stored)
    if bool(overflown.any()):
        half = np.where(overflown & np.isfinite(wide), np.inf, half)
    return Ball(stored, (a.radius + half) * SAFE)


UNARY: Mapping[str, Unary] = {
    "cast": identity,
    "neg": negate,
    "abs": absolute,
    "relu": relu,
    "sqrt": sqrt,
    "rsqrt": rsqrt,
    "reciprocal": reciprocal,
    "exp": exp,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "erf": erf,
}

BINARY: Mapping[str, Binary] = {
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "div": divide,
    "max": maximum,
    "min": minimum,
}

REDUCE: Mapping[str, Reduction] = {"sum": reduce_sum, "max": reduce_max, "min": reduce_min}
