"""The float64 reference against PyTorch and transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.irdl import irdl_op_definition

from tilewright.backends.reference import composition, float64
from tilewright.backends.reference.balls import FLOAT64, Ball
from tilewright.dialects import graph, top, tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.errors import OptionError, UnsupportedError

Array = NDArray[Any]

pytestmark = pytest.mark.filterwarnings("error")


def values(*types: tuple[tuple[int, ...], ElementType]) -> Sequence[SSAValue[Attribute]]:
    """SSA values to build ops on."""
    return Block(arg_types=[tensor_type(shape, element) for shape, element in types]).args


def f32s(*shapes: tuple[int, ...]) -> Sequence[SSAValue[Attribute]]:
    return values(*((shape, F32) for shape in shapes))


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def assert_is(op: Operation, inputs: Sequence[Array], expected: torch.Tensor | Array) -> None:
    (result,) = float64.evaluate(op, inputs)
    truth = expected.numpy() if isinstance(expected, torch.Tensor) else expected
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, truth, rtol=1e-12, atol=1e-14)


def t(array: Array) -> torch.Tensor:
    return torch.from_numpy(array)


def f32(value: float) -> float:
    return float(np.float32(value))


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_matmul(transpose: bool, biased: bool) -> None:
    # More output channels than one block.
    x, w, b = random(3, 5, 40), random(1500, 40), random(1500)
    right = w if transpose else np.ascontiguousarray(w.T)
    operands = f32s(x.shape, right.shape, b.shape)
    bias = operands[2] if biased else None
    op = top.MatMulOp(operands[0], operands[1], bias, right_transpose=transpose)
    truth = F.linear(t(x), t(w), t(b) if biased else None)
    assert_is(op, [x, right, b] if biased else [x, right], truth)


@pytest.mark.parametrize("transpose", [False, True])
def test_batch_matmul(transpose: bool) -> None:
    a, b = random(2, 3, 4, 8), random(2, 3, 8, 5)
    right = np.ascontiguousarray(np.swapaxes(b, -1, -2)) if transpose else b
    op = top.BatchMatMulOp(*f32s(a.shape, right.shape), right_transpose=transpose)
    assert_is(op, [a, right], t(a) @ t(b))


@pytest.mark.parametrize("weighted", [False, True])
def test_rms_norm(weighted: bool) -> None:
    x, w = random(6, 48), random(48)
    operands = f32s(x.shape, w.shape)
    op = top.RMSNormOp(operands[0], operands[1] if weighted else None, eps=1e-5)
    truth = F.rms_norm(t(x), [48], t(w) if weighted else None, f32(1e-5))
    assert_is(op, [x, w] if weighted else [x], truth)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_layer_norm(weighted: bool, biased: bool) -> None:
    x, w, b = random(6, 48) + 3, random(48), random(48, seed=1)
    operands = f32s(x.shape, w.shape, b.shape)
    weight, bias = operands[1] if weighted else None, operands[2] if biased else None
    op = top.LayerNormOp(operands[0], weight, bias, eps=1e-5)
    parameters = [t(w) if weighted else None, t(b) if biased else None]
    truth = F.layer_norm(t(x), [48], *parameters, eps=f32(1e-5))
    assert_is(op, [x, *[w] * weighted, *[b] * biased], truth)


def test_softmax() -> None:
    x = random(5, 33) * 30
    assert_is(top.SoftmaxOp(*f32s(x.shape)), [x], F.softmax(t(x), dim=-1))


Function = Callable[[torch.Tensor], torch.Tensor]


@pytest.mark.parametrize(
    ("op_class", "truth"),
    [
        (top.SiLUOp, F.silu),
        (top.TanhOp, torch.tanh),
        (top.SigmoidOp, torch.sigmoid),
        (top.ExpOp, torch.exp),
        (top.NegOp, torch.neg),
        (top.AbsOp, torch.abs),
        (top.ErfOp, torch.erf),
        (top.ReluOp, F.relu),
        (top.ReciprocalOp, torch.reciprocal),
    ],
)
def test_unary(op_class: Callable[[SSAValue[Attribute]], Operation], truth: Function) -> None:
    x = np.concatenate([random(40) * 10, [1e-3, -1e-3, 700.0, -700.0]])
    assert_is(op_class(*f32s(x.shape)), [x], truth(t(x)))


@pytest.mark.parametrize(
    ("op_class", "truth"), [(top.SqrtOp, torch.sqrt), (top.RsqrtOp, torch.rsqrt)]
)
def test_roots(op_class: Callable[[SSAValue[Attribute]], Operation], truth: Function) -> None:
    x = np.abs(random(40)) + 1e-6
    assert_is(op_class(*f32s(x.shape)), [x], truth(t(x)))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str) -> None:
    x = np.linspace(-12, 12, 301)
    op = top.GELUOp(f32s(x.shape)[0], approximate)
    assert_is(op, [x], F.gelu(t(x), approximate=approximate))


@pytest.mark.parametrize(
    ("op_class", "truth"),
    [
        (top.AddOp, torch.add),
        (top.SubOp, torch.sub),
        (top.MulOp, torch.mul),
        (top.DivOp, torch.div),
        (top.MaxOp, torch.maximum),
        (top.MinOp, torch.minimum),
    ],
)
@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (5,), (1, 1, 5), (3, 4, 1), (1,)])
def test_binary(
    op_class: Callable[[SSAValue[Attribute], SSAValue[Attribute]], Operation],
    truth: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    shape: tuple[int, ...],
) -> None:
    a, b = random(3, 4, 5), random(*shape, seed=1)
    assert_is(op_class(*f32s(a.shape, shape)), [a, b], truth(t(a), t(b)))


def test_constants_are_f32() -> None:
    x = random(7)
    assert_is(top.AddConstOp(f32s(x.shape)[0], 0.1), [x], x + f32(0.1))
    assert_is(top.MulConstOp(f32s(x.shape)[0], 0.1), [x], x * f32(0.1))


def test_reductions() -> None:
    x = random(3, 4, 9)
    for mode, truth in (("sum", np.sum), ("mean", np.mean), ("max", np.max), ("min", np.min)):
        op = top.ReduceOp(f32s(x.shape)[0], mode)
        assert_is(op, [x], truth(x, axis=-1, keepdims=True))


# Rotary embedding and attention.


def tables(positions: int, head_dim: int, rotary_dim: int, *, interleaved: bool) -> list[Array]:
    angles = np.arange(positions)[:, None] * 100.0 ** -(np.arange(rotary_dim // 2) / rotary_dim * 2)
    double = np.repeat(angles, 2, axis=1) if interleaved else np.tile(angles, 2)
    cos, sin = np.ones((positions, head_dim)), np.zeros((positions, head_dim))
    cos[:, :rotary_dim], sin[:, :rotary_dim] = np.cos(double), np.sin(double)
    return [cos, sin]


@pytest.mark.parametrize("rotary_dim", [16, 8])
def test_rope_in_halves_is_llamas(rotary_dim: int) -> None:
    heads, head_dim, positions = 3, 16, 5
    x = random(positions, heads * head_dim)
    cos, sin = tables(positions, head_dim, rotary_dim, interleaved=False)
    op = top.RopeOp(
        *f32s(x.shape, cos.shape, sin.shape),
        num_heads=heads,
        rotary_dim=rotary_dim,
        interleaved=False,
    )
    split = t(x).reshape(positions, heads, head_dim).transpose(0, 1)[None].clone()
    part = split[..., :rotary_dim]
    used = (t(cos)[None, :, :rotary_dim], t(sin)[None, :, :rotary_dim])
    turned, _ = modeling_llama.apply_rotary_pos_emb(part, part, *used)
    split[..., :rotary_dim] = turned
    assert_is(op, [x, cos, sin], split[0].transpose(0, 1).reshape(x.shape))


@pytest.mark.parametrize("rotary_dim", [16, 8])
def test_rope_interleaved_is_glms(rotary_dim: int) -> None:
    heads, head_dim, positions = 3, 16, 5
    x = random(positions, heads * head_dim)
    cos, sin = tables(positions, head_dim, rotary_dim, interleaved=True)
    op = top.RopeOp(
        *f32s(x.shape, cos.shape, sin.shape),
        num_heads=heads,
        rotary_dim=rotary_dim,
        interleaved=True,
    )
    split = t(x).reshape(positions, heads, head_dim).transpose(0, 1)[None]
    halves = tables(positions, rotary_dim, rotary_dim, interleaved=False)
    used = (t(halves[0])[None], t(halves[1])[None])
    turned, _ = modeling_glm.apply_rotary_pos_emb(split, split, *used)
    assert_is(op, [x, cos, sin], turned[0].transpose(0, 1).reshape(x.shape))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(groups: int, masked: bool) -> None:
    heads, head_dim, positions, length = 6, 8, 5, 9
    q, k = random(positions, heads * head_dim), random(length, groups * head_dim)
    v = random(length, groups * head_dim, seed=1)
    hidden = np.triu(np.ones((positions, length)), k=length - positions + 1)
    mask = hidden * -65504.0
    operands = f32s(q.shape, k.shape, v.shape, mask.shape)
    op = top.AttentionOp(
        operands[0],
        operands[1],
        operands[2],
        operands[3] if masked else None,
        num_heads=heads,
        num_kv_heads=groups,
        scale=0.3,
    )
    truth = F.scaled_dot_product_attention(
        t(q).reshape(1, positions, heads, head_dim).transpose(1, 2),
        t(k).reshape(1, length, groups, head_dim).transpose(1, 2),
        t(v).reshape(1, length, groups, head_dim).transpose(1, 2),
        attn_mask=t(mask) if masked else None,
        scale=f32(0.3),
        enable_gqa=True,
    )
    inputs = [q, k, v, mask] if masked else [q, k, v]
    assert_is(op, inputs, truth[0].transpose(0, 1).reshape(q.shape))


# Ops that move data.


def test_rows_picked_and_written() -> None:
    table, indices = random(10, 4), np.array([3, 3, 9], np.int32)
    op = top.GatherOp(*values((table.shape, F32), (indices.shape, I32)))
    assert_is(op, [table, indices], table[[3, 3, 9]])

    rows, positions = random(2, 4, seed=1), np.array([7, 0], np.int32)
    op = top.CacheUpdateOp(*values((table.shape, F32), (rows.shape, F32), (positions.shape, I32)))
    expected = table.copy()
    expected[7], expected[0] = rows[0], rows[1]
    before = table.copy()
    assert_is(op, [table, rows, positions], expected)
    assert np.array_equal(table, before)


@pytest.mark.parametrize("index", [-1, 10])
def test_rows_outside_are_refused(index: int) -> None:
    op = top.GatherOp(*values(((10, 4), F32), ((2,), I32)))
    with pytest.raises(OptionError, match=f"top.Gather: index {index} is outside of the 10 rows"):
        float64.evaluate(op, [random(10, 4), np.array([0, index], np.int32)])


def test_shapes_and_casts() -> None:
    x = random(4, 6)
    (value,) = f32s(x.shape)
    assert_is(top.ReshapeOp(value, (2, 2, 6)), [x], x.reshape(2, 2, 6))
    assert_is(top.PermuteOp(value, (1, 0)), [x], x.T)
    assert_is(top.SliceOp(value, offsets=(1, 2), sizes=(2, 3)), [x], x[1:3, 2:5])
    op = top.ConcatOp(f32s((4, 6), (4, 1)), axis=1)
    assert_is(op, [x, x[:, :1]], np.concatenate([x, x[:, :1]], axis=1))
    # A cast does not round: float64 is the truth about the whole chain.
    assert_is(tpu.CastOp(value, F16), [x], x)
    (whole,) = values(((3,), I32))
    assert_is(
        top.CastOp(whole, F32),
        [np.array([1, 2, 2**24 + 1], np.int32)],
        np.array([1, 2, 2**24 + 1.0]),
    )


def test_integers_stay_integers() -> None:
    (whole,) = values(((3,), I32))
    (result,) = float64.evaluate(top.ReshapeOp(whole, (3, 1)), [np.array([1, 2, 3], np.int32)])
    assert result.dtype == np.int32


@pytest.mark.parametrize("element", [F16, BF16])
def test_quantized_weights_are_the_rounded_ones(element: ElementType) -> None:
    rng = np.random.default_rng(5)
    x = random(3, 32).astype(element.dtype)
    codes = rng.integers(-127, 128, (7, 32)).astype(np.int8)
    scale = (rng.random((7, 1)) / 100).astype(element.dtype)
    weight = (codes.astype(np.float32) * scale.astype(np.float32)).astype(element.dtype)
    op = tpu.W8A16MatMulOp(*values((x.shape, element), (codes.shape, I8), (scale.shape, element)))
    truth = x.astype(np.float64) @ weight.astype(np.float64).T
    assert_is(op, [x, codes, scale], truth)
    wide = [x.astype(np.float64), codes, scale.astype(np.float64)]
    assert_is(op, wide, truth)

    indices = np.array([6, 0], np.int32)
    op = tpu.W8A16GatherOp(*values((codes.shape, I8), (scale.shape, element), (indices.shape, I32)))
    assert_is(op, [codes, scale, indices], weight.astype(np.float64)[[6, 0]])


def test_inputs_must_fit_the_op() -> None:
    op = top.AddOp(*f32s((2, 3), (3,)))
    with pytest.raises(OptionError, match=r"top.Add takes 2 inputs, not 1"):
        float64.evaluate(op, [random(2, 3)])
    with pytest.raises(OptionError, match=r"input 1 of top.Add is float64\[4\], not f32\[3\]"):
        float64.evaluate(op, [random(2, 3), random(4)])


def test_weights_are_not_evaluated() -> None:
    with pytest.raises(UnsupportedError, match=r"top\.Weight cannot be evaluated by itself"):
        float64.evaluate(top.WeightOp("w", (2, 3)), [])


@irdl_op_definition
class CubeOp(top.TopOp, graph.UnaryGraphOp):
    """An op of a plugin that does not say what it computes."""

    name = "acme.Cube"


@irdl_op_definition
class OtherExpOp(top.TopOp, graph.UnaryGraphOp):
    """One that has the name of an op of ours; that says nothing about what it computes."""

    name = "acme.Exp"


@pytest.mark.parametrize("op", [CubeOp, OtherExpOp])
def test_an_op_of_a_plugin_is_not_what_its_name_says(op: type[graph.UnaryGraphOp]) -> None:
    made = op(*f32s((2, 3)))
    x = random(2, 3)
    with pytest.raises(UnsupportedError, match=f"{op.name} cannot be evaluated by itself"):
        float64.evaluate(made, [x])
    with pytest.raises(UnsupportedError, match=f"{op.name} has no rule for errors"):
        composition.propagate(made, [Ball.exact(x)], FLOAT64)
