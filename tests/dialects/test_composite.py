"""Composite ops: what follows from a decomposition."""

from __future__ import annotations

from typing import Any

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, FloatAttr, IntegerAttr, ModuleOp, StringAttr, TensorType
from xdsl.dialects.func import Func, FuncOp, ReturnOp
from xdsl.ir import Block, Dialect, Operation, Region
from xdsl.irdl import irdl_op_definition, operand_def, result_def
from xdsl.parser import Parser
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects import top, tpu
from tilewright.dialects.context import TILEWRIGHT_DIALECTS, print_module
from tilewright.dialects.element_types import BF16, F16, F32, I32, ElementType, tensor_type
from tilewright.dialects.errors import OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import CompositeOp, composite


@composite("acme.Affine", tpu.TpuOp)
def affine(
    x: Value,
    weight: Value,
    bias: Value | None = None,
    extra: Value | None = None,
    *,
    approximate: str = "tanh",
    factor: float = 2.0,
    times: int = 1,
    negate: bool = False,
) -> Value:
    """A linear layer with a GELU, scaled."""
    y = tpu.MatMulOp(x, weight, bias, element=F32).result
    if extra is not None:
        y = tpu.AddOp(y, tpu.CastOp(extra, F32).result).result
    for _ in range(times):
        y = tpu.MulConstOp(tpu.GELUOp(y, approximate).result, factor).result
    return tpu.NegOp(y).result if negate else y


def values(*kinds: tuple[tuple[int, ...], ElementType]) -> tuple[Any, ...]:
    return Block(arg_types=[tensor_type(shape, element) for shape, element in kinds]).args


X, WEIGHT, BIAS = ((4, 8), F16), ((8, 3), F16), ((3,), F16)


def names(op: CompositeOp) -> list[str]:
    return [part.name for part in op.decomposition().block.ops]


def test_shape_type_and_properties_follow() -> None:
    x, weight, bias = values(X, WEIGHT, BIAS)
    op = affine(x, weight)
    assert (shape_of(op.results[0]), storage_of(op.results[0])) == ((4, 3), F16)
    assert storage_of(affine(x, weight, bias, element=F32).results[0]) == F32
    assert op.properties == {
        **op.properties,
        "approximate": StringAttr("tanh"),
        "factor": FloatAttr(2.0, 32),
        "times": IntegerAttr(1, 64),
    }
    assert (op.parameter("approximate"), op.number("factor"), op.count("times")) == ("tanh", 2, 1)
    assert op.parameter("negate") is False
    assert op.__doc__ == "A linear layer with a GELU, scaled."


def test_the_decomposition_ends_in_the_one_rounding() -> None:
    x, weight, bias, extra = values(X, WEIGHT, BIAS, ((4, 3), F16))
    assert names(affine(x, weight)) == ["tpu.MatMul", "tpu.GELU", "tpu.MulConst", "tpu.Cast"]
    assert names(affine(x, weight, element=F32)) == ["tpu.MatMul", "tpu.GELU", "tpu.MulConst"]
    full = affine(x, weight, bias, extra, times=0, negate=True)
    assert names(full) == ["tpu.MatMul", "tpu.Cast", "tpu.Add", "tpu.Neg", "tpu.Cast"]
    made = full.decomposition()
    assert [each.type for each in made.block.args] == [each.type for each in full.operands]
    assert made.result.type == full.results[0].type


def test_an_operand_may_be_left_out_in_the_middle() -> None:
    x, weight, extra = values(X, WEIGHT, ((4, 3), F16))
    op = affine(x, weight, None, extra)
    op.verify()
    assert "tpu.Add" in names(op)


def test_text_round_trip() -> None:
    block = Block(arg_types=[tensor_type(*kind) for kind in (X, WEIGHT, BIAS, ((4, 3), F16))])
    x, weight, bias, extra = block.args
    ops = [
        affine(x, weight),
        affine(x, weight, bias, factor=0.5, approximate="none"),
        affine(x, weight, None, extra, negate=True),
    ]
    block.add_ops([*ops, ReturnOp()])
    types = [each.type for each in block.args]
    module = ModuleOp([FuncOp("f", (types, []), Region(block))])
    module.verify()
    context = Context()
    for dialect in (Builtin, Func, *TILEWRIGHT_DIALECTS, Dialect("acme", [affine], [])):
        context.load_dialect(dialect)
    again = Parser(context, print_module(module), "text").parse_module()
    again.verify()
    assert again.is_structurally_equivalent(module)


def test_the_verifier_follows() -> None:
    x, weight = values(X, WEIGHT)
    with pytest.raises(VerifyException, match="x has depth 8, right has depth 4"):
        affine(x, values(((4, 3), F16))[0])

    def remade(result: TensorType[Any]) -> Operation:
        op = affine(x, weight)
        return affine.create(operands=op.operands, result_types=[result], properties=op.properties)

    for result, message in (
        (tensor_type((4, 4), F16), r"acme.Affine: result is \[4, 3\], not \[4, 4\]"),
        (tensor_type((4, 3), BF16), "acme.Affine: result holds f32 or f16, not bf16"),
        (tensor_type((4, 3), I32), "acme.Affine: result holds f32 or f16, not i32"),
    ):
        with pytest.raises(VerifyException, match=message):
            remade(result).verify()
    mixed = affine.create(
        operands=values(X, ((8, 3), BF16)),
        result_types=[tensor_type((4, 3), F16)],
        properties=affine(x, weight).properties,
    )
    with pytest.raises(VerifyException, match="one floating-point type is needed"):
        mixed.verify()


def test_classes_are_written_out_too() -> None:
    @irdl_op_definition
    class NegatedOp(top.TopOp, CompositeOp):
        name = "acme.Negated"

        x = operand_def(TensorType)
        result = result_def(TensorType)

        def decompose(self, x: Value) -> Value:
            return top.NegOp(top.NegOp(x).result).result

    (x,) = values(((4,), F32))
    op = NegatedOp(x)
    op.verify()
    assert names(op) == ["top.Neg", "top.Neg"]


def test_parts_use_the_given_values() -> None:
    """What computes the operands is no part."""
    (x,) = values(((4, 8), F16))
    y = tpu.NegOp(x).result
    op = tpu.SwiGLUOp(y, y)
    parts, result = op.parts([y, y])
    assert [part.name for part in parts] == ["tpu.Cast", "tpu.SiLU", "tpu.Cast", "tpu.Mul"]
    assert result is parts[-1].results[0]


def no_default(x: Value, *, eps: float) -> Value:
    return x


def starred(*xs: Value) -> Value:
    return xs[0]


def taken(x: Value, attributes: Value) -> Value:
    return x


def fine(x: Value) -> Value:
    return x


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("acme.X", no_default, "keyword 'eps' of no_default has no default"),
        ("acme.X", starred, r"starred takes \*xs"),
        ("acme.X", taken, "taken has a parameter 'attributes'"),
        ("X", fine, "'X' does not name an op"),
    ],
)
def test_functions_that_say_no_op(name: str, function: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        composite(name, tpu.TpuOp)(function)
