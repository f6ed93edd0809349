"""Error bounds of the machine's results against float64, derived, element by element.

The model (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, chapters 2 to 4):
operands are exact, each f32 operation has a relative error of at most `u = 2^-24`, a sum of n terms
in *any* order has an error of at most `gamma(n) * sum |terms|`, an f32 elementary function is
within 2 ulp (`FUNCTION = 4 u`), and the result is rounded once to its storage type. So every bound
is `internal + ulp(|y| + internal) / 2` with `internal` the first-order effect of the f32
operations, derived at each function. Effects of second order (u^2) are covered by `SECOND_ORDER`,
intermediates below the smallest normal f32 (which may be flushed) by absolute terms of `F32_TINY`.

A bound is infinite where the rounded result or an f32 intermediate may overflow; `outside` judges
those elements too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference import float64, formulas
from tilewright.backends.reference.evaluation import (
    Linear,
    channel_blocks,
    check_inputs,
    handler_of,
    norm_parameters,
    weight_block,
)
from tilewright.backends.reference.numerics import (
    F32_TINY,
    UNIT_ROUNDOFF,
    gamma,
    largest,
    overflow_threshold,
    smallest_subnormal,
    ulp,
    unit_roundoff,
)
from tilewright.dialects import graph, top, tpu
from tilewright.dialects.element_types import ELEMENT_TYPES, F32, ElementType
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.graph import storage_of
from tilewright.dialects.scopes import where_of

Array = NDArray[Any]

Handler = Callable[[Any, Sequence[Array], Array], Array | None]
"""Bounds the error of f32 arithmetic in an op of its class: see `register`."""

FUNCTION = 4 * UNIT_ROUNDOFF
"""Relative error of an f32 elementary function: 2 ulp."""

SECOND_ORDER = 1 + 2.0**-7
"""Covers products of errors: each factor is below 2^-8 of the first-order terms it multiplies."""

FLOAT64 = 2.0**-50
"""Relative error allowed to the float64 result itself."""

GELU_SLOPE = 5 * UNIT_ROUNDOFF
"""Error of GELU a unit of |x|, see `_gelu`."""


def bound(op: Operation, inputs: Sequence[Array], exact: Array) -> Array | None:
    """The largest legal `abs(result - exact)` of each element; None: results must be equal.

    `inputs` are what the op was given, in storage types or as float64 of the same values; `exact`
    is its `float64.evaluate` on them. Raises `UnsupportedError` for ops that are not computed
    (weights, states, calls).
    """
    if isinstance(op, _EXACT):
        return None
    handler = handler_of(op, _INTERNAL)
    if handler is None:
        raise UnsupportedError(
            f"{op.name} has no error bound",
            where=where_of(op),
            hint=f"decorate a function with bounds.register({type(op).__name__}), in a module that "
            "is imported before",
        )
    check_inputs(op, inputs, storage_types=False)
    widened = float64.widen_inputs(op, inputs)
    element = storage_of(op.results[0])
    if not element.is_float:
        return None
    with np.errstate(all="ignore"):
        exact = np.asarray(exact, dtype=np.float64)
        internal = handler(op, widened, exact)
        return None if internal is None else _with_rounding(op, internal, exact, element)


def register(*op_classes: type[Operation]) -> Callable[[Handler], Handler]:
    """Register the decorated function as the error bound of `op_classes` and their subclasses.

    It is called as `handler(op, inputs, exact)` on float64 arrays and returns, for each element of
    the (one) result, how far the f32 arithmetic may lead from `exact`; None if it is exact.
    `bound` adds the rounding to the storage type.
    """

    def decorate(handler: Handler) -> Handler:
        _INTERNAL.update(dict.fromkeys(op_classes, handler))
        return handler

    return decorate


def _with_rounding(op: Operation, internal: Array, exact: Array, element: ElementType) -> Array:
    """Add the one rounding to the storage type: half an ulp where the unrounded result may lie."""
    factor = 1.0 if isinstance(op, _RIGOROUS) else SECOND_ORDER
    internal = internal * factor + FLOAT64 * np.abs(exact)
    reach = np.abs(exact) + internal
    roundings = ULPS_OF_FUNCTIONS if isinstance(op, _FUNCTIONS) else 0.5
    total = internal + roundings * ulp(reach, element)
    total = np.where(np.isfinite(exact), total, 0.0)
    overflows = np.isfinite(exact) & ~(reach < overflow_threshold(element))
    return np.where(overflows, np.inf, total)


def outside(actual: Array, exact: Array, limit: Array | None) -> Array:
    """Which elements of `actual` are wrong, given the float64 result and `bound`'s limit.

    NaN must meet NaN, an infinity the same infinity. Where the limit is infinite (a possible
    overflow), an infinity of the right sign is right. A finite value is, if both it and the exact
    one are near the type's largest; one that has wrapped is not. Where the exact value fits its
    type and partial sums may have overflowed, infinities, NaN and errors up to 100 % are legal.
    """
    element = next((e for e in ELEMENT_TYPES if e.dtype == actual.dtype), F32)
    with np.errstate(all="ignore"):
        value = actual.astype(np.float64)
        same = (value == exact) | (np.isnan(value) & np.isnan(exact))
        if limit is None:
            return ~same
        within = np.abs(value - exact) <= limit
        unlimited = np.isposinf(limit) & np.isfinite(exact)
        if not bool(unlimited.any()):
            return ~(same | within)
        top_value, magnitude = largest(element), np.abs(exact)
        fits = magnitude < overflow_threshold(element)
        agrees = np.sign(value) == np.sign(exact)
        close = agrees & (np.abs(value) > top_value / 2) & (magnitude < 1.25 * top_value)
        anything = fits & (~np.isfinite(value) | (np.abs(value - exact) <= magnitude))
        legal = (np.isinf(value) & agrees) | (np.isfinite(value) & close) | anything
        return ~np.where(unlimited, legal, same | within)


# Matrix products.


def _overflow_aside(internal: Array, magnitude: Array) -> Array:
    """Infinite where an f32 sum of terms of that total magnitude may overflow on the way."""
    overflows = ~(magnitude * SECOND_ORDER < largest(F32)) & ~np.isnan(magnitude)
    return np.where(overflows, np.inf, internal)


def _product_error(magnitude: Array, roundings: int, depth: int) -> Array:
    """Error of f32 sums of products with `sum |x| |w|` = `magnitude`.

    `gamma(roundings) * magnitude` (Higham, section 3.1), and a possible underflow of each of
    `depth` products.
    """
    internal = gamma(roundings) * magnitude + depth * smallest_subnormal(F32)
    return _overflow_aside(internal, magnitude)


def _linear(op: Linear, inputs: Sequence[Array], exact: Array) -> Array:
    """`gamma(K) * sum |x| |w|`; a bias is one more term, and one more addition for all others."""
    semantics = float64.SEMANTICS
    x = np.abs(semantics.widen(inputs[0]))
    depth = x.shape[-1]
    bias = None if op.bias is None else np.abs(semantics.widen(inputs[-1]))
    magnitude = np.empty(exact.shape)
    for channels in channel_blocks(exact.shape[-1]):
        weight = np.abs(weight_block(op, inputs, channels, semantics))
        part = None if bias is None else bias[channels]
        magnitude[..., channels] = formulas.matmul(x, weight, part, right_transpose=True)
    return _product_error(magnitude, depth if bias is None else depth + 1, depth)


def _batch_matmul(op: graph.BatchMatMul, inputs: Sequence[Array], exact: Array) -> Array:
    a, b = (np.abs(array) for array in inputs)
    magnitude = formulas.matmul(a, b, None, right_transpose=op.right_transpose is not None)
    return _product_error(magnitude, a.shape[-1], a.shape[-1])


# Normalizations.


def _rms_norm(op: graph.RMSNorm, inputs: Sequence[Array], exact: Array) -> Array:
    """`y = x * (m + eps)^(-1/2) * w`, `m = mean(x^2)`.

    m: one product, a sum of C terms, a division: `gamma(C + 1)` (all terms are positive); `+ eps`:
    u. The power -1/2 halves a relative error. Then the function's own error, and two products.
    """
    x = inputs[0]
    channels = x.shape[-1]
    squares = np.sum(x * x, axis=-1, keepdims=True)
    shifted = squares / channels + op.eps.value.data
    relative = _power_error(gamma(channels + 1), shifted) + 2 * UNIT_ROUNDOFF
    slope = 1.0 if op.weight is None else np.abs(inputs[1])
    internal = relative * np.abs(exact) + F32_TINY * (1 + slope)
    return _overflow_aside(internal, np.broadcast_to(squares, x.shape))


def _power_error(mean_error: float | Array, shifted: Array) -> Array:
    """Relative error of `(m + eps)^(-1/2)`, given that of m; squares may have underflowed."""
    lost = F32_TINY / shifted
    return (mean_error + lost + UNIT_ROUNDOFF) / 2 + FUNCTION


def _layer_norm(op: graph.LayerNorm, inputs: Sequence[Array], exact: Array) -> Array:
    """`y = c * (v + eps)^(-1/2) * w + b`, `c = x - mean`, `v = mean(c^2)`, in two passes.

    The mean is off by at most `d = gamma(C) * mean |x|`, and so is each c, besides its own
    rounding. The shift d changes v by d^2 only (the sum of c is 0); the roundings of c by 2u, its
    squares and sum by `gamma(C + 1)`. Then the power and two products as in RMSNorm, and the
    addition of the bias.
    """
    x = inputs[0]
    channels = x.shape[-1]
    weight, bias = norm_parameters(op, inputs)
    centred = x - np.mean(x, axis=-1, keepdims=True)
    squares = np.sum(centred * centred, axis=-1, keepdims=True)
    variance = squares / channels
    shifted = variance + op.eps.value.data
    shift = gamma(channels) * np.mean(np.abs(x), axis=-1, keepdims=True)
    variance_error = gamma(channels + 1) + 2 * UNIT_ROUNDOFF + shift**2 / shifted
    relative = _power_error(variance_error, shifted) + 3 * UNIT_ROUNDOFF
    factor = 1.0 if weight is None else np.abs(weight)
    internal = factor / np.sqrt(shifted) * (shift + relative * np.abs(centred))
    internal = internal + F32_TINY * (1 + factor)
    if bias is not None:
        internal = internal + UNIT_ROUNDOFF * (np.abs(exact) + internal)
    total = squares + np.sum(np.abs(x), axis=-1, keepdims=True)
    return _overflow_aside(internal, np.broadcast_to(total, x.shape))


def _probability_error(scores: Array, probabilities: Array, score_error: Array | float) -> Array:
    """Absolute error of f32 softmax probabilities over the last axis, given that of the scores.

    `e = exp(s - max)`: an absolute error of the exponent is a relative one of e: that of the
    scores, `u |s - max|` of the subtraction, then the function's. (An error of the maximum is
    common to the row and cancels.) The sum has the average of these errors, weighted by p, and
    `gamma(L)`; the division 2u (as a product with the reciprocal, 3u).
    """
    distance = np.max(scores, axis=-1, keepdims=True) - scores
    exponent = np.where(probabilities > 0, score_error + UNIT_ROUNDOFF * distance, 0.0)
    average = np.sum(probabilities * exponent, axis=-1, keepdims=True)
    constant = 2 * FUNCTION + gamma(scores.shape[-1]) + 3 * UNIT_ROUNDOFF
    # expm1 and not the first order alone: the exponent's error may be large (masks of -3e38).
    return probabilities * (np.expm1(exponent + average) + constant) + F32_TINY


def _softmax(op: graph.Softmax, inputs: Sequence[Array], exact: Array) -> Array:
    return _probability_error(inputs[0], exact, 0.0)


# Rotary embedding and attention.


def _rope(op: graph.Rope, inputs: Sequence[Array], exact: Array) -> Array:
    """Two products and a sum: `2u * (|x cos| + |rotate(x) sin|)`."""
    straight, turned = formulas.rope_terms(
        *inputs,
        num_heads=op.num_heads.value.data,
        rotary_dim=op.rotary_dim.value.data,
        interleaved=bool(op.interleaved.value.data),
    )
    magnitude = np.abs(straight) + np.abs(turned)
    return _overflow_aside(2 * UNIT_ROUNDOFF * magnitude + 2 * F32_TINY, magnitude)


def _attention(op: graph.Attention, inputs: Sequence[Array], exact: Array) -> Array:
    """Scores, softmax, rounding of the probabilities, second product; head by head.

    Scores: `(gamma(D) + 2u) * |scale| * sum |q| |k| + u |s|` (products, scale, mask).
    Probabilities: `_probability_error`, then one rounding to the storage type, before or after the
    division by the sum. Result: `sum error(p) |v| + gamma(L + 2) * sum p |v|`, the 2 for a division
    behind the second product.
    """
    q, k, v = inputs[:3]
    mask = 0.0 if op.mask is None else inputs[3]
    scale = op.scale.value.data
    heads, groups = op.num_heads.value.data, op.num_kv_heads.value.data
    width, length = q.shape[1] // heads, k.shape[0]
    storage = storage_of(op.q)
    rounding = 0.0 if storage == F32 else unit_roundoff(storage)
    smallest = 0.0 if storage == F32 else smallest_subnormal(storage) / 2
    internal = np.empty(exact.shape)
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        first = head // (heads // groups) * width
        group = slice(first, first + width)
        products = np.matmul(np.abs(q[:, columns]), np.abs(k[:, group]).T)
        reach = abs(scale) * products
        scores = np.matmul(q[:, columns], k[:, group].T) * scale + mask
        score_error = (gamma(width) + 2 * UNIT_ROUNDOFF) * reach + UNIT_ROUNDOFF * np.abs(scores)
        probabilities = formulas.softmax(scores)
        error = _probability_error(scores, probabilities, score_error)
        stored = np.maximum(rounding * (probabilities + error), smallest)
        error = error + np.where(probabilities > 0, stored, 0.0)
        values = np.abs(v[:, group])
        magnitude = np.matmul(probabilities + error, values)
        summed = np.matmul(error, values) + gamma(length + 2) * magnitude
        largest_product = np.max(np.maximum(products, reach), axis=-1, keepdims=True)
        internal[:, columns] = _overflow_aside(summed, np.maximum(magnitude, largest_product))
    return internal


# Element by element, and reductions.


def _one_operation(op: Operation, inputs: Sequence[Array], exact: Array) -> Array:
    """One operation that IEEE 754 rounds correctly: half an ulp.

    f32 first and then 16 bits is the same: 24 bits are at least twice 11 and two more (Figueroa,
    When is double rounding innocuous?, SIGNUM 30 (1995)), but for subnormal f32 values.
    """
    return np.full_like(exact, smallest_subnormal(F32) / 2)


def _with_constant(op: Operation, inputs: Sequence[Array], exact: Array) -> Array:
    """One operation with an f32 constant: its 24 bits are more than the theorem above allows for,
    so the rounding to f32 counts by itself.
    """
    return UNIT_ROUNDOFF * np.abs(exact) + smallest_subnormal(F32)


def _quotient(op: Operation, inputs: Sequence[Array], exact: Array) -> Array:
    """A quotient or a root, which hardware may iterate for: 1 ulp of f32 before it is rounded."""
    return 2 * UNIT_ROUNDOFF * np.abs(exact) + smallest_subnormal(F32)


def _function(op: Operation, inputs: Sequence[Array], exact: Array) -> Array:
    """An elementary function: `_with_rounding` adds 2 ulp; underflow may be flushed."""
    return np.full_like(exact, F32_TINY)


def _silu(op: Operation, inputs: Sequence[Array], exact: Array) -> Array:
    """`x * sigmoid(x)`: `2 FUNCTION + 4u`, relative.

    An exponential (its argument is exact), a sum, a quotient (2u), a product: `FUNCTION + 4u`, and
    as much as a function again for a sigmoid of the hardware.
    """
    return (2 * FUNCTION + 4 * UNIT_ROUNDOFF) * np.abs(exact) + np.abs(inputs[0]) * F32_TINY


def _gelu(op: graph.Gelu, inputs: Sequence[Array], exact: Array) -> Array:
    """`x/2 * (1 + f(z))`, f = erf or tanh: errors relative to y, and to x since `1 + f` cancels.

    erf: `z = x / sqrt(2)` has a relative error of 2u, `|z erf'(z)| <= 0.49`, so f is off by
    `FUNCTION + u`; `1 + f` by another 2u: 7u, halved. tanh: z has a relative error of 6u, `|z
    tanh'(z)| <= 0.45`, so f is off by `FUNCTION + 2.7u`, `1 + f` by 8.7u, halved. As `x *
    sigmoid(2z)`: `|v sigmoid'(v)| <= 0.23` with 6u, and `2 FUNCTION` relative to y. `GELU_SLOPE`
    covers the three. Two products: 2u relative to y.
    """
    relative = 2 * FUNCTION + 2 * UNIT_ROUNDOFF
    return relative * np.abs(exact) + GELU_SLOPE * np.abs(inputs[0]) + F32_TINY


def _reduce(op: graph.Reduce, inputs: Sequence[Array], exact: Array) -> Array | None:
    """sum: `gamma(C - 1) * sum |x|`; mean: one rounding more for the division."""
    mode = str(op.mode.data)
    if mode in ("max", "min"):
        return None if storage_of(op.x) == storage_of(op.result) else np.zeros_like(exact)
    x = inputs[0]
    channels = x.shape[-1]
    magnitude = np.sum(np.abs(x), axis=-1, keepdims=True)
    mean = mode == "mean"
    internal = gamma(channels + 1 if mean else channels - 1) * magnitude
    internal = internal / channels + F32_TINY if mean else internal
    return _overflow_aside(internal, magnitude)


def _cast(op: graph.Cast, inputs: Sequence[Array], exact: Array) -> Array | None:
    """One rounding; none where the result's type holds every value of the operand's."""
    source, target = storage_of(op.x), storage_of(op.result)
    widens = source == target or (target == F32 and source.size_bytes < 4)
    return None if widens else np.zeros_like(exact)


ULPS_OF_FUNCTIONS = 2.0
"""exp, rsqrt, tanh, erf and sigmoid are within 2 ulp of the output type."""

_RIGOROUS = (graph.MatMul, tpu.A16MatMul, graph.BatchMatMul, graph.Reduce)
"""Ops whose bound is of no particular order: `gamma` covers all."""

_FUNCTIONS = (
    top.ExpOp,
    top.RsqrtOp,
    top.TanhOp,
    top.ErfOp,
    top.SigmoidOp,
    tpu.ExpOp,
    tpu.RsqrtOp,
    tpu.TanhOp,
    tpu.ErfOp,
    tpu.SigmoidOp,
)

_EXACT = (
    graph.Gather,
    tpu.W8A16GatherOp,
    graph.CacheUpdate,
    graph.Reshape,
    graph.Permute,
    graph.Slice,
    graph.Concat,
    top.NegOp,
    top.AbsOp,
    top.ReluOp,
    top.MaxOp,
    top.MinOp,
    tpu.NegOp,
    tpu.AbsOp,
    tpu.ReluOp,
    tpu.MaxOp,
    tpu.MinOp,
)

_INTERNAL: dict[type[Operation], Handler] = {
    graph.MatMul: _linear,
    tpu.A16MatMul: _linear,
    graph.BatchMatMul: _batch_matmul,
    graph.RMSNorm: _rms_norm,
    graph.LayerNorm: _layer_norm,
    graph.Softmax: _softmax,
    graph.Rope: _rope,
    graph.Attention: _attention,
    graph.Reduce: _reduce,
    graph.Cast: _cast,
    graph.Gelu: _gelu,
    graph.BinaryGraphOp: _one_operation,
    graph.ConstGraphOp: _with_constant,
    **dict.fromkeys(_FUNCTIONS, _function),
    **dict.fromkeys((top.SiLUOp, tpu.SiLUOp), _silu),
    **dict.fromkeys((top.DivOp, tpu.DivOp), _quotient),
    **dict.fromkeys((top.SqrtOp, tpu.SqrtOp), _quotient),
    **dict.fromkeys((top.ReciprocalOp, tpu.ReciprocalOp), _quotient),
}
