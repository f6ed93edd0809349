"""Ops built in Python are legal, infer their results, and read back from their text."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.traits import is_side_effect_free
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects import top, tpu
from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.element_types import F16, F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.graph import shape_of
from tilewright.dialects.quantization import CodeFormat


class Values:
    """Function arguments, made as ops ask for them."""

    def __init__(self, compute: ElementType) -> None:
        self.compute = compute
        self.block = Block()

    def __call__(self, *shape: int, element: ElementType | None = None) -> SSAValue:
        kind = tensor_type(shape, element or self.compute)
        return self.block.insert_arg(kind, len(self.block.args))


def _top_and_tpu(values: Values, dialect: str) -> list[tuple[Operation, tuple[int, ...]]]:
    ops = top if dialect == "top" else tpu
    v = values
    x = v(4, 8)
    rope = ops.RopeOp(
        x, v(4, 4, element=F32), v(4, 4, element=F32), num_heads=2, rotary_dim=4, interleaved=False
    )
    attention = ops.AttentionOp(
        x, v(5, 4), v(5, 4), v(4, 5), num_heads=4, num_kv_heads=2, scale=0.125
    )
    unary = (
        *(ops.SiLUOp, ops.TanhOp, ops.SigmoidOp, ops.ExpOp, ops.SqrtOp, ops.RsqrtOp),
        *(ops.ReciprocalOp, ops.NegOp, ops.AbsOp, ops.ErfOp, ops.ReluOp),
    )
    binary = (ops.AddOp, ops.SubOp, ops.MulOp, ops.DivOp, ops.MaxOp, ops.MinOp)
    return [
        (ops.WeightOp("w", (3, 8), v.compute), (3, 8)),
        (ops.StateOp("k_cache", (16, 8), v.compute), (16, 8)),
        (ops.CallOp("layer", [x], [x.type], scopes=["layers.0."]), (4, 8)),
        (ops.GatherOp(v(9, 8), v(3, element=I32)), (3, 8)),
        (ops.CacheUpdateOp(v(16, 8), x, v(4, element=I32)), (16, 8)),
        (ops.MatMulOp(x, v(8, 3), v(3)), (4, 3)),
        (ops.MatMulOp(x, v(3, 8), right_transpose=True), (4, 3)),
        (ops.BatchMatMulOp(v(2, 4, 8), v(2, 8, 3)), (2, 4, 3)),
        (ops.BatchMatMulOp(v(2, 4, 8), v(2, 3, 8), right_transpose=True), (2, 4, 3)),
        (ops.RMSNormOp(x, eps=1e-5), (4, 8)),
        (ops.RMSNormOp(x, v(8), eps=1e-5), (4, 8)),
        (ops.LayerNormOp(x, eps=1e-5), (4, 8)),
        (ops.LayerNormOp(x, v(8), eps=1e-5), (4, 8)),
        (ops.LayerNormOp(x, None, v(8), eps=1e-5), (4, 8)),
        (ops.LayerNormOp(x, v(8), v(8), eps=1e-5), (4, 8)),
        (ops.SoftmaxOp(x), (4, 8)),
        (rope, (4, 8)),
        (attention, (4, 8)),
        (ops.GELUOp(x), (4, 8)),
        (ops.GELUOp(x, "tanh"), (4, 8)),
        (ops.SwiGLUOp(x, v(4, 8)), (4, 8)),
        *((op(x), (4, 8)) for op in unary),
        *((op(x, v(*b)), (4, 8)) for op in binary for b in [(4, 8), (8,), (1, 8), (4, 1), (1,)]),
        (ops.AddConstOp(x, 1.5), (4, 8)),
        (ops.MulConstOp(x, 0.1), (4, 8)),
        *((ops.ReduceOp(x, mode), (4, 1)) for mode in ("sum", "mean", "max", "min")),
        (ops.ReshapeOp(x, (2, 16)), (2, 16)),
        (ops.PermuteOp(v(2, 3, 4), (2, 0, 1)), (4, 2, 3)),
        (ops.SliceOp(x, (1, 2), (3, 4)), (3, 4)),
        (ops.ConcatOp([x, v(4, 3)], 1), (4, 11)),
        (ops.CastOp(v(4, element=I32), F32), (4,)),
    ]


def _only_tpu(values: Values) -> list[tuple[Operation, tuple[int, ...]]]:
    v = values
    x, codes, scale = v(4, 8), v(3, 8, element=I8), v(3, 1)
    float8 = {"format": tpu.CodeFormatAttr(CodeFormat.F8E4M3)}
    return [
        (tpu.WeightOp("w", (3, 8), I8, form="codes", transposed=True), (3, 8)),
        (tpu.WeightOp("w", (3, 1), F16, form="scale"), (3, 1)),
        (tpu.MatMulOp(x, v(8, 3), element=F32), (4, 3)),
        (tpu.W8A16MatMulOp(x, codes, scale), (4, 3)),
        (tpu.W8A16MatMulOp(x, codes, scale, v(3), element=F32), (4, 3)),
        (tpu.W8A16MatMulOp(x, codes, v(3, 2), zero=v(3, 2, element=I8)), (4, 3)),
        (tpu.W4A16MatMulOp(x, v(3, 4, element=I8), v(3, 2), zero=v(3, 2, element=I8)), (4, 3)),
        (tpu.W4A16MatMulOp(v(4, 7), v(3, 4, element=I8), scale, v(3)), (4, 3)),
        (tpu.F8A16MatMulOp(x, codes, scale, properties=float8), (4, 3)),
        (tpu.W8A16GatherOp(codes, scale, v(5, element=I32)), (5, 8)),
        (tpu.W8A16GatherOp(codes, v(3, 1, element=F32), v(5, element=I32), element=F16), (5, 8)),
        (tpu.QuantizeOp(x, v(1, 1, element=F32)), (4, 8)),
        (tpu.Int8MatMulOp(v(2, 4, 8, element=I8), codes, v(3, 3, element=I32)), (2, 4, 3)),
        (tpu.DequantizeOp(codes, v(1, 1, element=F32)), (3, 8)),
        (tpu.LaunchOp("kernel", [x], [x.type], alias=0), (4, 8)),
        (tpu.LaunchOp("kernel", [x], [x.type]), (4, 8)),
    ]


@pytest.mark.parametrize("dialect", ["top", "tpu"])
def test_constructors(dialect: str) -> None:
    values = Values(F32 if dialect == "top" else F16)
    built = _top_and_tpu(values, dialect)
    if dialect == "tpu":
        built += _only_tpu(values)
    values.block.add_ops([*(op for op, _ in built), ReturnOp()])
    inputs = [argument.type for argument in values.block.args]
    kind = FunctionType.from_lists(inputs, [])
    module = ModuleOp([FuncOp("f", kind, Region(values.block))])
    module.verify()
    for op, shape in built:
        assert shape_of(op.results[0]) == shape, op.name
    again = parse_module(print_module(module), "text")
    assert again.is_structurally_equivalent(module)

    known = (top.Top if dialect == "top" else tpu.Tpu).operations
    assert {op.name for op, _ in built} == {op.name for op in known}


def test_constructors_refuse_operands_that_do_not_meet() -> None:
    values = Values(F32)
    x = values(4, 8)
    with pytest.raises(VerifyException, match="x has depth 8, right has depth 7"):
        top.MatMulOp(x, values(7, 3))
    with pytest.raises(VerifyException, match=r"b \[4\] does not broadcast to a \[4, 8\]"):
        top.AddOp(x, values(4))
    with pytest.raises(ValueError, match="'median' is not a valid ReduceMode"):
        top.ReduceOp(x, "median")


def test_constants_are_rounded_to_f32() -> None:
    op = top.MulConstOp(Values(F32)(4), 0.1)
    assert op.value.value.data == 0.10000000149011612


def test_cache_update_is_not_dead_without_uses() -> None:
    """Writing a state is an effect: no pass may drop it or merge it with another."""
    values = Values(F16)
    update = tpu.CacheUpdateOp(values(16, 8), values(4, 8), values(4, element=I32))
    assert not is_side_effect_free(update)
    assert is_side_effect_free(tpu.SiLUOp(values(4)))
