"""Ops of the graph on balls: what they make of every point of the operands' balls is inside.

Each op is run on points of its operands' balls by the reference. For the machine's arithmetic the
ball's value is the typed reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xdsl.dialects import test
from xdsl.ir import Attribute, Block, Operation, SSAValue

from tilewright.backends.reference import bounds, composition, evaluation, float64, typed
from tilewright.backends.reference.composition import FLOAT64, MACHINE, Arithmetic, Ball, propagate
from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import F16, F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.errors import OptionError, UnsupportedError

Array = NDArray[Any]
Shape = tuple[int, ...]
Make = Callable[..., Operation]

SEEDS = st.integers(0, 2**32 - 1)
X, ROW, COLUMN = (6, 48), (48,), (6, 1)


def attention(q: Any, k: Any, v: Any, mask: Any) -> Operation:
    return tpu.AttentionOp(q, k, v, mask, num_heads=4, num_kv_heads=2, scale=0.25)


def rope(x: Any, cos: Any, sin: Any) -> Operation:
    return tpu.RopeOp(x, cos, sin, num_heads=4, rotary_dim=8, interleaved=False)


def pair(make: Any, *shapes: Shape) -> tuple[Make, Sequence[Shape]]:
    return make, shapes


UNARY: tuple[Any, ...] = (
    *(tpu.SiLUOp, tpu.GELUOp, tpu.TanhOp, tpu.SigmoidOp, tpu.ExpOp, tpu.NegOp, tpu.AbsOp),
    *(tpu.ErfOp, tpu.ReluOp, tpu.SoftmaxOp, tpu.SqrtOp, tpu.RsqrtOp, tpu.ReciprocalOp),
)
BINARY: tuple[Any, ...] = (tpu.AddOp, tpu.SubOp, tpu.MulOp, tpu.DivOp, tpu.MaxOp, tpu.MinOp)
OPS: dict[str, tuple[Make, Sequence[Shape]]] = {
    **{op.name: pair(op, X) for op in UNARY},
    **{op.name: pair(op, X, ROW) for op in BINARY},
    "GELU tanh": pair(lambda x: tpu.GELUOp(x, "tanh"), X),
    "column": pair(tpu.MulOp, X, COLUMN),
    "AddConst": pair(lambda x: tpu.AddConstOp(x, 0.3), X),
    "MulConst": pair(lambda x: tpu.MulConstOp(x, 0.5), X),
    "RMSNorm": pair(lambda x, w: tpu.RMSNormOp(x, w, eps=1e-5), X, ROW),
    "LayerNorm": pair(lambda x, w, b: tpu.LayerNormOp(x, w, b, eps=1e-5), X, ROW, ROW),
    **{mode: pair(lambda x, m=mode: tpu.ReduceOp(x, m), X) for mode in ("sum", "mean", "max")},
    "min": pair(lambda x: tpu.ReduceOp(x, "min"), X),
    "Rope": pair(rope, X, (6, 12), (6, 12)),
    "Attention": pair(attention, X, (9, 24), (9, 24), (6, 9)),
    "MatMul": pair(lambda x, w: tpu.MatMulOp(x, w, right_transpose=True), X, (10, 48)),
    "MatMul bias": pair(lambda x, w, b: tpu.MatMulOp(x, w, b), X, (48, 10), (10,)),
    "BatchMatMul": pair(tpu.BatchMatMulOp, (3, 4, 8), (3, 8, 5)),
    "Reshape": pair(lambda x: tpu.ReshapeOp(x, (12, 24)), X),
    "Permute": pair(lambda x: tpu.PermuteOp(x, (1, 0)), X),
    "Slice": pair(lambda x: tpu.SliceOp(x, (1, 2), (3, 7)), X),
    "Concat": pair(lambda *xs: tpu.ConcatOp(xs, 1), X, X),
    "Cast": pair(lambda x: tpu.CastOp(x, F32), X),
}
POSITIVE = ("tpu.Sqrt", "tpu.Rsqrt", "tpu.Reciprocal", "tpu.Div")
LINEAR = ("MatMul", "tpu.Add", "tpu.Neg", "sum", "Slice", "Cast", "MulConst")


def arguments(*types: tuple[Shape, ElementType]) -> Sequence[SSAValue[Attribute]]:
    return Block(arg_types=[tensor_type(shape, element) for shape, element in types]).args


def case(name: str, seed: int, size: float) -> tuple[Operation, list[Ball], np.random.Generator]:
    """An op in f16 on balls of relative radius `size`."""
    rng = np.random.default_rng(seed)
    make, shapes = OPS[name]
    op = make(*arguments(*((shape, F16) for shape in shapes)))
    balls: list[Ball] = []
    for shape in shapes:
        value = rng.standard_normal(shape).astype(F16.dtype).astype(np.float64)
        value = np.abs(value) + 0.125 if name in POSITIVE else value
        value = value.astype(F16.dtype).astype(np.float64)
        balls.append(Ball(value, size * np.abs(value) * rng.random(shape)))
    return op, balls, rng


def point(rng: np.random.Generator, ball: Ball) -> Array:
    return ball.value + ball.radii * rng.choice([-1, -1, 0, 1, 1], ball.value.shape)


def outside(ball: Ball, exact: Array, *, scale: float = 1.0) -> float:
    """The share of exact results outside; `exact` is float64's, with an error of its own."""
    error = np.abs(ball.value - exact)
    return float(np.mean(~(error <= ball.radii * scale + 1e-13 * np.abs(exact) + 1e-300)))


@pytest.mark.parametrize("m", [FLOAT64, MACHINE], ids=lambda m: m.name)
@pytest.mark.parametrize("name", OPS)
@settings(max_examples=12)
@given(seed=SEEDS, size=st.sampled_from([0.0, 1e-9, 1e-4, 0.02]))
def test_points_are_inside(name: str, m: Arithmetic, seed: int, size: float) -> None:
    op, balls, rng = case(name, seed, size)
    (ball,) = propagate(op, balls, m)
    if m is MACHINE:
        stored = [b.value.astype(F16.dtype) for b in balls]
        np.testing.assert_array_equal(ball.value, typed.evaluate(op, stored)[0].astype(np.float64))
    for _ in range(3):
        assert outside(ball, float64.evaluate(op, [point(rng, b) for b in balls])[0]) == 0


@pytest.mark.parametrize("name", LINEAR)
def test_half_a_radius_is_left(name: str) -> None:
    """At the corner that the bound is made for: so the check above can fail."""
    op, balls, _ = case(name, 3, 0.01)
    first = Ball(np.abs(balls[0].value), balls[0].radius)
    others = [Ball(np.abs(b.value), np.zeros(())) for b in balls[1:]]
    (ball,) = propagate(op, [first, *others], FLOAT64)
    corner = float64.evaluate(op, [first.value + first.radii, *(b.value for b in others)])[0]
    assert outside(ball, corner) == 0
    assert outside(ball, corner, scale=0.5) > 0.9


@pytest.mark.parametrize("m", [FLOAT64, MACHINE], ids=lambda m: m.name)
@settings(max_examples=15)
@given(seed=SEEDS, size=st.sampled_from([0.0, 1e-9, 1e-3]))
def test_quantized_weights(m: Arithmetic, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (10, 48)).astype(np.int8)
    scale = np.exp2(rng.integers(-9, -5, (10, 1))).astype(np.float64)
    ids = rng.integers(0, 10, 7).astype(np.int32)
    x = rng.standard_normal((6, 48)).astype(np.float16).astype(np.float64)
    balls = [Ball(x, size * np.abs(x)), Ball.exact(codes), Ball(scale, np.full((10, 1), 0.0))]
    types = ((6, 48), F16), ((10, 48), I8), ((10, 1), F16)
    for op, given_balls in (
        (tpu.W8A16MatMulOp(*arguments(*types)), balls),
        (
            tpu.W8A16GatherOp(*arguments(*types[1:], ((7,), I32))),
            [*balls[1:], Ball.exact(ids)],
        ),
    ):
        (ball,) = propagate(op, given_balls, m)
        for _ in range(3):
            picked = [b.value if b.is_exact else point(rng, b) for b in given_balls]
            assert outside(ball, float64.evaluate(op, picked)[0]) == 0


def test_indices_pick_radii() -> None:
    table = Ball(np.arange(12.0).reshape(4, 3), np.arange(12.0).reshape(4, 3) / 100)
    op = tpu.GatherOp(*arguments(((4, 3), F32), ((2,), I32)))
    (rows,) = propagate(op, [table, Ball.exact(np.array([3, 0], np.int32))], FLOAT64)
    np.testing.assert_array_equal(rows.radius, table.radius[[3, 0]])
    op = tpu.CacheUpdateOp(*arguments(((4, 3), F32), ((1, 3), F32), ((1,), I32)))
    new = Ball(np.ones((1, 3)), np.full((1, 3), 0.5))
    (cache,) = propagate(op, [table, new, Ball.exact(np.array([2], np.int32))], FLOAT64)
    assert cache.radius[2, 0] == 0.5
    assert cache.radius[1, 2] == table.radius[1, 2]


# Graphs of many ops.


def graph_op(kind: int, width: int) -> Operation:
    x, square = ((8, width), F32), ((width, width), F32)
    if kind == 0:
        return top.MatMulOp(*arguments(x, square), right_transpose=True)
    if kind == 1:
        return top.RMSNormOp(*arguments(x), eps=1e-5)
    if kind == 2:
        return top.SiLUOp(*arguments(x))
    if kind == 3:
        return top.AddOp(*arguments(x, x))
    return top.TanhOp(*arguments(x))


def exact_step(kind: int, x: Array, first: Array, w: Array) -> Array:
    """The same op in long double."""
    if kind == 0:
        return x @ w.T
    if kind == 1:
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.longdouble(np.float32(1e-5)))
    if kind == 2:
        return x / (1 + np.exp(-x))
    return x + first if kind == 3 else np.tanh(x)


@settings(max_examples=8)
@given(seed=SEEDS)
def test_a_graph_of_thirty_ops(seed: int) -> None:
    """Never too small, and not silly: at most 10^6 times the error that float64 really makes.

    (Each further product of 64 terms adds a factor of about 6, and a factor of 2 a normalization.)
    """
    rng = np.random.default_rng(seed)
    width = 64
    first = rng.standard_normal((8, width))
    ball, exact = Ball.exact(first), first.astype(np.longdouble)
    products = 0
    for _ in range(30):
        kind = int(rng.integers(0, 5)) if products < 3 else int(rng.integers(1, 5))
        products += kind == 0
        w = rng.standard_normal((width, width)) / np.sqrt(width)
        extra = {0: [Ball.exact(w)], 3: [Ball.exact(first)]}.get(kind, [])
        (ball,) = propagate(graph_op(kind, width), [ball, *extra], FLOAT64)
        exact = exact_step(kind, exact, first.astype(np.longdouble), w.astype(np.longdouble))
    error = np.abs(ball.value.astype(np.longdouble) - exact)
    assert np.all(error <= ball.radii)
    assert np.max(ball.radii) <= 1e6 * np.max(error)


# What packages outside register.


class Twice(test.TestOp):
    """An op that no table knows."""


def test_ops_from_outside() -> None:
    (x,) = arguments(((2, 3), F32))
    op = Twice([x], [x.type])
    value = np.ones((2, 3))
    for call, hint in (
        (lambda: float64.evaluate(op, [value]), "evaluation.register"),
        (lambda: bounds.bound(op, [value], value), "bounds.register"),
        (lambda: propagate(op, [Ball.exact(value)], FLOAT64), "composition.register"),
    ):
        with pytest.raises(UnsupportedError) as info:
            call()
        assert hint in str(info.value.hint)

    @evaluation.register(Twice)
    def _evaluate(op: Twice, inputs: Sequence[Array], how: evaluation.Semantics) -> list[Array]:
        return [how.finish(how.widen(inputs[0]) * 2, F32)]

    @bounds.register(Twice)
    def _bound(op: Twice, inputs: Sequence[Array], exact: Array) -> Array:
        return np.zeros_like(exact)

    composition.register(Twice)(
        composition.computed(lambda op, balls, m: Ball(balls[0].value * 2, balls[0].radius * 2))
    )
    ball = Ball(value, np.full((2, 3), 0.25))
    for m in (FLOAT64, MACHINE):
        (result,) = propagate(op, [ball], m)
        np.testing.assert_array_equal(result.value, 2 * value)
        assert np.all((result.radius >= 0.5) & (result.radius < 0.501))


def test_balls_must_fit() -> None:
    op = tpu.NegOp(*arguments(((2, 3), F32)))
    with pytest.raises(OptionError, match="takes 1 inputs"):
        propagate(op, [], FLOAT64)
    with pytest.raises(OptionError, match="input 0"):
        propagate(op, [Ball.exact(np.ones((3, 2)))], FLOAT64)
