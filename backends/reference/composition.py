"""Error bounds carried through a graph: an op on balls gives balls.

`bounds` says how far one op's result may lie from the exact one *on its own inputs*. Here inputs
have an error already, and a result's radius is the op's own rounding error plus the effect of its
operands' radii: a running error analysis (Higham, Accuracy and Stability of Numerical Algorithms,
2nd edition, section 3.3). Two programs that mean the same and were both run this way differ by no
more than the sum of their radii.

Each rule writes an op as operations on balls (`primitives`), so derivations stand there, once. In
`FLOAT64` a rule gives values and radii. In `MACHINE` the value is `typed.evaluate`'s and the op's
own error `bounds.bound`'s; the rule gives the effect of the operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference import bounds, evaluation, float64, formulas, typed
from tilewright.backends.reference import primitives as p
from tilewright.backends.reference.balls import EXACT, FLOAT64, MACHINE, Arithmetic, Ball
from tilewright.backends.reference.constants import constant, factor
from tilewright.backends.reference.numerics import dequantize, plain_codes, ulp
from tilewright.dialects import graph, tpu
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.graph import storage_of
from tilewright.dialects.quantization import CodeFormat
from tilewright.dialects.scopes import where_of

__all__ = ["FLOAT64", "MACHINE", "Arithmetic", "Ball", "computed", "propagate", "register"]

Array = NDArray[Any]
Handler = Callable[[Any, Sequence[Ball], Arithmetic], Ball | list[Ball]]
"""The results of an op on balls, in an arithmetic: see `register`."""
Rule = Callable[[Any, Sequence[Ball], Arithmetic], Ball]
"""The result of an op written as operations on balls, none of them rounded to a storage type."""


def propagate(op: Operation, balls: Sequence[Ball], arithmetic: Arithmetic) -> list[Ball]:
    """The results of an op of the graph on balls of its operands.

    Raises `OptionError` for balls that do not fit the op, `UnsupportedError` for an op without a
    rule.
    """
    handler = evaluation.handler_of(op, _HANDLERS)
    if handler is None:
        raise UnsupportedError(
            f"{op.name} has no rule for errors that come in with its operands",
            where=where_of(op),
            hint=f"decorate a function with composition.register({type(op).__name__}), in a module "
            "that is imported before",
        )
    evaluation.check_inputs(op, [ball.value for ball in balls], storage_types=False)
    with np.errstate(all="ignore"):
        results = handler(op, balls, arithmetic)
        balls = results if isinstance(results, list) else [results]
        return [ball.settled() for ball in balls]


def register(*op_classes: type[Operation]) -> Callable[[Handler], Handler]:
    """Register the decorated function as the rule of `op_classes` and their subclasses.

    It is called as `handler(op, balls, arithmetic)` and returns a ball for each result (a single
    one, or a list), rounded to its storage type where `arithmetic.rounds`. An op that is made of
    others calls `propagate` for each; `computed` makes a handler from a rule of primitives.
    """

    def decorate(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(op_classes, handler))
        return handler

    return decorate


def computed(rule: Rule) -> Handler:
    """A handler for an op with evaluation and bound of its own: `rule` gives operands' effects."""

    def handler(op: Operation, balls: Sequence[Ball], arithmetic: Arithmetic) -> Ball:
        if not arithmetic.rounds:
            return rule(op, balls, arithmetic)
        stored = [_stored(b, storage_of(v)) for b, v in zip(balls, op.operands, strict=True)]
        value = float64.SEMANTICS.widen(typed.evaluate(op, stored)[0])
        limit = bounds.bound(op, stored, float64.evaluate(op, stored)[0])
        radius = EXACT if limit is None else limit
        if not all(ball.is_exact for ball in balls):
            radius = radius + rule(op, balls, FLOAT64).radius
        return Ball(value, radius)

    return handler


def _stored(ball: Ball, element: ElementType) -> Array:
    """Values in the storage type that they are exact in."""
    return ball.value.astype(element.dtype, copy=False)


def dequantized(
    codes: Array,
    scale: Ball,
    element: ElementType,
    zero: Array | None = None,
    code_format: CodeFormat = CodeFormat.I8,
) -> Ball:
    """`round((code - zero) * scale)` in `element`, in every arithmetic: those are the weights.

    `codes` are one a byte (`plain_codes`).

    Exact for exact scales; else a scale's error times the code, and a rounding that may go either
    way: an ulp.
    """
    value = dequantize(codes, scale.value, element, zero, code_format).astype(np.float64)
    if scale.is_exact:
        return Ball(value, EXACT)
    steps = dequantize(codes, np.ones_like(scale.radii), F32, zero, code_format)
    group = codes.shape[1] // scale.radii.shape[1]
    effect = np.abs(steps.astype(np.float64)) * np.repeat(scale.radii, group, axis=1)
    return Ball(value, effect + ulp(np.abs(value) + effect, element))


# Ops that move data.


def _moved(op: Operation, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """Radii move as values do."""
    del m
    value = float64.evaluate(op, [ball.value for ball in balls])[0]
    if all(ball.is_exact for ball in balls):
        return Ball(value, EXACT)
    sources = [b.value if b.is_exact and b.value.dtype.kind in "iub" else b.radii for b in balls]
    return Ball(value, float64.evaluate(op, sources)[0])


def _w8a16_gather(op: tpu.W8A16GatherOp, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """The rows' codes and scales, dequantized."""
    codes, scale, indices = balls
    rows = evaluation.checked_rows(op, indices.value, codes.value.shape[0])
    picked = scale if scale.is_exact else Ball(scale.value, scale.radii)
    radius = EXACT if picked.is_exact else picked.radius[rows]
    return dequantized(codes.value[rows], Ball(scale.value[rows], radius), storage_of(op.result))


# Matrix products.


def _linear(op: evaluation.Linear, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """A product, and a sum with the bias."""
    if isinstance(op, tpu.A16MatMul):
        codes = plain_codes(balls[1].value, op.code_format, balls[0].value.shape[-1])
        zero = None if op.zero is None else balls[3].value
        right = dequantized(codes, balls[2], storage_of(op.x), zero, op.code_format)
        turned = True
    else:
        right, turned = balls[1], op.right_transpose is not None
    product = p.matmul(m, balls[0], right, transpose_right=turned)
    return product if op.bias is None else p.add(m, product, balls[-1])


def _batch_matmul(op: graph.BatchMatMul, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    return p.matmul(m, balls[0], balls[1], transpose_right=op.right_transpose is not None)


# Normalization, rotary embedding, attention.


def _mean(m: Arithmetic, x: Ball) -> Ball:
    return p.multiply(m, p.reduce_sum(m, x), factor(m, 1 / x.value.shape[-1]))


def _normed(m: Arithmetic, x: Ball, eps: float) -> Ball:
    """`x / sqrt(mean(x^2) + eps)`."""
    shifted = p.add(m, _mean(m, p.multiply(m, x, x)), Ball.exact(np.asarray(eps)))
    return p.multiply(m, x, p.rsqrt(m, shifted))


def _rms_norm(op: graph.RMSNorm, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    normed = _normed(m, balls[0], op.eps.value.data)
    return normed if op.weight is None else p.multiply(m, normed, balls[1])


def _layer_norm(op: graph.LayerNorm, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """Centred, then as RMSNorm, then weight and bias."""
    centred = p.subtract(m, balls[0], _mean(m, balls[0]))
    result = _normed(m, centred, op.eps.value.data)
    if op.weight is not None:
        result = p.multiply(m, result, balls[1])
    return result if op.bias is None else p.add(m, result, balls[-1])


def _softmax(m: Arithmetic, x: Ball) -> Ball:
    """Any number may be subtracted: the computed maximum counts as exact."""
    largest = Ball.exact(np.max(x.value, axis=-1, keepdims=True))
    powers = p.exp(m, p.subtract(m, x, largest))
    return p.divide(m, powers, p.reduce_sum(m, powers))


def _rope(op: graph.Rope, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """`x cos + rotate(x) sin`; a rotation moves radii as it moves values, whose signs it turns."""
    heads = op.num_heads.value.data
    shape = balls[0].value.shape
    x = reshaped(balls[0], (shape[0], heads, -1))
    cos, sin = (reshaped(table, (shape[0], 1, -1)) for table in balls[1:])
    turned = rotated(
        x,
        rotary_dim=op.rotary_dim.value.data,
        interleaved=bool(op.interleaved.value.data),
    )
    total = p.add(m, p.multiply(m, x, cos), p.multiply(m, turned, sin))
    return reshaped(total, shape)


def rotated(x: Ball, *, rotary_dim: int, interleaved: bool) -> Ball:
    """`formulas.rotate` of a ball."""
    value = formulas.rotate(x.value, rotary_dim=rotary_dim, interleaved=interleaved)
    if x.is_exact:
        return Ball(value, EXACT)
    radius = formulas.rotate(x.radii, rotary_dim=rotary_dim, interleaved=interleaved)
    return Ball(value, np.abs(radius))


def reshaped(x: Ball, shape: Sequence[int]) -> Ball:
    """The same elements in another shape."""
    radius = x.radius if x.is_exact else x.radii.reshape(shape)
    return Ball(x.value.reshape(shape), radius)


def columns(x: Ball, part: slice) -> Ball:
    """A range of columns."""
    return Ball(x.value[..., part], x.radius if x.is_exact else x.radii[..., part])


def _attention(op: graph.Attention, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """Scores, scale, mask, softmax, second product; head by head."""
    q, k, v = balls[:3]
    scale = factor(m, op.scale.value.data)
    heads, groups = op.num_heads.value.data, op.num_kv_heads.value.data
    width = q.value.shape[1] // heads
    value, radius = np.empty(q.value.shape), np.empty(q.value.shape)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        first = head // (heads // groups) * width
        group = slice(first, first + width)
        scores = p.matmul(m, columns(q, own), columns(k, group), transpose_right=True)
        scores = p.multiply(m, scores, scale)
        scores = scores if op.mask is None else p.add(m, scores, balls[3])
        result = p.matmul(m, _softmax(m, scores), columns(v, group), transpose_right=False)
        value[:, own], radius[:, own] = result.value, result.radius
    return Ball(value, radius)


# Element by element, and reductions.


def _unary(op: graph.UnaryGraphOp, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    name = op.name.partition(".")[2].lower()
    if name == "silu":
        return p.multiply(m, balls[0], p.sigmoid(m, balls[0]))
    return p.UNARY[name](m, balls[0])


def _gelu(op: graph.Gelu, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """`x/2 (1 + erf(x / sqrt 2))`, or `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`."""
    x = balls[0]
    if str(op.approximate.data) == "tanh":
        square = p.multiply(m, x, x)
        cubic = p.multiply(m, p.multiply(m, square, x), factor(m, formulas.GELU_TANH_CUBIC))
        inner = p.multiply(m, p.add(m, x, cubic), factor(m, formulas.GELU_TANH_SCALE))
        outer = p.tanh(m, inner)
    else:
        outer = p.erf(m, p.multiply(m, x, factor(m, 0.5**0.5)))
    half = p.multiply(m, x, Ball.exact(np.asarray(0.5)))
    return p.multiply(m, half, p.add(m, outer, Ball.exact(np.asarray(1.0))))


def _binary(op: graph.BinaryGraphOp, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    return p.BINARY[op.name.partition(".")[2].lower()](m, balls[0], balls[1])


def _constant(op: graph.ConstGraphOp, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    name = op.name.partition(".")[2].lower().removesuffix("const")
    value = op.value.value.data
    return p.BINARY[name](m, balls[0], factor(m, value) if name == "mul" else constant(m, value))


def _reduce(op: graph.Reduce, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    mode = str(op.mode.data)
    return _mean(m, balls[0]) if mode == "mean" else p.REDUCE[mode](m, balls[0])


def _cast(op: graph.Cast, balls: Sequence[Ball], m: Arithmetic) -> Ball:
    """Nothing but a rounding; integers become floats, or stay."""
    value = float64.evaluate(op, [balls[0].value])[0]
    return Ball(value, balls[0].radius)


_HANDLERS: dict[type[Operation], Handler] = {
    graph.Gather: _moved,
    graph.CacheUpdate: _moved,
    graph.Reshape: _moved,
    graph.Permute: _moved,
    graph.Slice: _moved,
    graph.Concat: _moved,
    tpu.W8A16GatherOp: _w8a16_gather,
}

_RULES: Mapping[type[Operation], Rule] = {
    graph.MatMul: _linear,
    tpu.A16MatMul: _linear,
    graph.BatchMatMul: _batch_matmul,
    graph.RMSNorm: _rms_norm,
    graph.LayerNorm: _layer_norm,
    graph.Softmax: lambda op, balls, m: _softmax(m, balls[0]),
    graph.Rope: _rope,
    graph.Attention: _attention,
    graph.UnaryGraphOp: _unary,
    graph.Gelu: _gelu,
    graph.BinaryGraphOp: _binary,
    graph.ConstGraphOp: _constant,
    graph.Reduce: _reduce,
    graph.Cast: _cast,
}

_HANDLERS.update({op_class: computed(rule) for op_class, rule in _RULES.items()})
