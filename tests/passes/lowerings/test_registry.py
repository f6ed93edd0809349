"""Which lowering is asked first, and what becomes of what it does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.dialects import graph, top, tpu
from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.scopes import functions_of
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.lowerings import (
    Conversion,
    ConversionOptions,
    Lowering,
    lowering,
    lowerings_of,
    register,
    registered_lowerings,
    temporarily,
)
from tilewright.passes.lowerings.conversion import ACTIVATIONS, QUANT_MODES
from tilewright.passes.lowerings.registry import OPTIONS

TEXT = """
func.func @main(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  %w = top.Weight "w" : tensor<8x8xf32>
  %y = top.MatMul %x, %w : tensor<2x8xf32>, tensor<8x8xf32> -> tensor<2x8xf32>
  %z = top.SiLU %y : tensor<2x8xf32> -> tensor<2x8xf32> loc("act"("m.py":3:4))
  func.return %z : tensor<2x8xf32>
}
"""
W8A16 = ConversionOptions()


def never(op: Operation, convert: Conversion) -> None:
    del op, convert


def converted(text: str = TEXT, quant: str = "w8a16") -> ModuleOp:
    module = parse_module(text, "test.mlir")
    ConvertTopToTpuPass(quant=quant).apply(make_context(), module)
    verify_module(module)
    return module


def op_names(module: ModuleOp) -> list[str]:
    return [op.name for op in functions_of(module)["main"].body.block.ops]


def order(op_class: type[Operation], options: ConversionOptions = W8A16) -> list[str]:
    return [each.name for each in lowerings_of(op_class, options)]


def test_every_top_op_has_a_lowering_in_every_mode() -> None:
    structure = {top.WeightOp, top.StateOp, top.CallOp}
    for op_class, quant, act in product(top.Top.operations, QUANT_MODES, ACTIVATIONS):
        if op_class not in structure:
            assert lowerings_of(op_class, ConversionOptions(quant, act)), op_class.name


def test_lowerings_say_what_they_do() -> None:
    for each in registered_lowerings():
        assert each.documentation, each.name
        assert each.origin, each.name


def test_the_options_are_those_of_the_pass() -> None:
    fields = set(ConvertTopToTpuPass.__dataclass_fields__) - {"name"}
    assert set(OPTIONS) == fields


SCHEMES = [f"LowerMatMulTo{name}" for name in ("Int8", "F8A16", "W4A16", "W8A16")]
"""Asked whatever the options are: a weight may be marked with a scheme of its own."""


def test_the_options_decide() -> None:
    assert "LowerCompositeToW8a16" in order(top.SwiGLUOp)
    assert "LowerCompositeToW8a16" not in order(top.SwiGLUOp, ConversionOptions("f16"))
    assert order(top.MatMulOp) == [*SCHEMES, "LowerMatMul", "LowerToSameOp"]
    assert order(top.MatMulOp, ConversionOptions("f16")) == order(top.MatMulOp)


def test_a_class_comes_before_its_bases_then_benefit_then_options_then_the_later() -> None:
    def candidate(
        name: str, op_class: type[Operation], benefit: int = 1, quant: str | None = None
    ) -> Lowering:
        options = {} if quant is None else {"quant": (quant,)}
        return Lowering(name, op_class, never, options, benefit, origin=__name__)

    candidates = (
        candidate("Base", graph.MatMul, benefit=9),
        candidate("First", top.MatMulOp),
        candidate("Second", top.MatMulOp),
        candidate("Quantized", top.MatMulOp, quant="w8a16"),
        candidate("Other", top.MatMulOp, quant="bf16"),
        candidate("Best", top.MatMulOp, benefit=2),
    )
    with temporarily(*candidates):
        assert order(top.MatMulOp) == [
            *("Best", *SCHEMES, "Quantized", "Second", "First", "LowerMatMul"),
            *("LowerToSameOp", "Base"),
        ]
        assert "Base" not in order(top.SiLUOp)
    assert "Best" not in order(top.MatMulOp)


def test_a_decorated_function_is_called_by_its_name_and_says_what_it_does() -> None:
    with temporarily():

        @lowering(top.SiLUOp, quant=("f16", "bf16"), benefit=3)
        def lower_silu_to_sigmoid(op: top.SiLUOp, convert: Conversion) -> Sequence[SSAValue]:
            """x * sigmoid(x)"""
            x = convert.read(op.x, convert.compute)
            (gate,) = convert.append(tpu.SigmoidOp(x), op)
            return convert.append(tpu.MulOp(x, gate), op)

        assert lower_silu_to_sigmoid.__name__ == "lower_silu_to_sigmoid"
        (found, *_) = lowerings_of(top.SiLUOp, ConversionOptions("bf16"))
        assert (found.name, found.benefit) == ("LowerSiluToSigmoid", 3)
        assert (found.documentation, found.origin) == ("x * sigmoid(x)", __name__)
        assert op_names(converted(quant="f16")) == [
            *("tpu.Weight", "tpu.MatMul", "tpu.Sigmoid", "tpu.Mul", "func.return")
        ]
        assert op_names(converted())[-2:] == ["tpu.SiLU", "func.return"]
    assert op_names(converted(quant="f16"))[-2:] == ["tpu.SiLU", "func.return"]


def test_names_and_locations_are_kept_for_every_op_of_a_lowering() -> None:
    def lower(op: Operation, convert: Conversion) -> Sequence[SSAValue]:
        x = convert.read(op.operands[0], convert.compute)
        (gate,) = convert.append(tpu.SigmoidOp(x), op)
        return convert.append(tpu.MulOp(x, gate), op)

    with temporarily(Lowering("Two", top.SiLUOp, lower)):
        ops = list(functions_of(converted())["main"].body.block.ops)
    gate, product_, _ = ops[-3:]
    assert str(gate.location) == str(product_.location) != str(ops[0].location)
    assert (gate.results[0].name_hint, product_.results[0].name_hint) == (None, "z")


def test_an_operand_may_stand_for_the_result() -> None:
    def drop(op: Operation, convert: Conversion) -> Sequence[SSAValue]:
        return [convert.read(op.operands[0])]

    with temporarily(Lowering("Drop", top.SiLUOp, drop)):
        module = converted()
    assert op_names(module)[-2:] == ["tpu.W8A16MatMul", "func.return"]
    *_, back = functions_of(module)["main"].body.block.ops
    assert back.operands[0].name_hint == "y"


def test_what_a_lowering_no_longer_reads_is_dropped_but_not_what_the_model_never_read() -> None:
    """A lowering that takes in the op before its own leaves nothing of that op behind."""

    def take_in(op: Operation, convert: Conversion) -> Sequence[SSAValue] | None:
        product = op.operands[0].owner
        if not isinstance(product, top.MatMulOp):
            return None
        x = convert.read(product.x, convert.compute)
        return convert.append(tpu.SiLUOp(x), op)

    text = TEXT.replace("%z = ", "%u = top.Exp %x : tensor<2x8xf32> -> tensor<2x8xf32>\n  %z = ")
    with temporarily(Lowering("TakeIn", top.SiLUOp, take_in)):
        assert op_names(converted(text)) == ["tpu.Exp", "tpu.SiLU", "func.return"]


def test_what_a_lowering_appends_before_it_declines_is_taken_back() -> None:
    def read_all(op: Operation, convert: Conversion) -> Sequence[SSAValue]:
        assert isinstance(op, top.MatMulOp)
        assert isinstance(op.right.owner, top.WeightOp)
        codes, scale = convert.codes_and_scale(op.right.owner, transposed=True)
        wide = convert.read(op.x, F32)  # a cast
        x = convert.append(tpu.CastOp(wide, convert.compute), op)[0]
        return convert.append(tpu.W8A16MatMulOp(x, codes, scale), op)

    def decline(op: Operation, convert: Conversion) -> None:
        read_all(op, convert)

    use = Lowering("Use", top.MatMulOp, read_all, benefit=8)
    with temporarily(use):
        before = str(converted())
    assert op_names(converted())[2] == "tpu.W8A16MatMul"
    with temporarily(use, Lowering("Decline", top.MatMulOp, decline, benefit=9)):
        assert str(converted()) == before


@pytest.mark.parametrize("count", [0, 2])
def test_the_results_must_be_as_many_and_of_the_shapes_of_the_op(count: int) -> None:
    def lower(op: Operation, convert: Conversion) -> Sequence[SSAValue]:
        return [convert.read(op.operands[0])] * count

    with (
        temporarily(Lowering("Wrong", top.SiLUOp, lower)),
        pytest.raises(IRError, match="lowering Wrong gives") as caught,
    ):
        converted()
    assert "m.py:3" in str(caught.value)


def returns_an_op(op: Operation, convert: Conversion) -> Any:
    return tpu.SiLUOp(convert.read(op.operands[0]))


def returns_a_value(op: Operation, convert: Conversion) -> Any:
    return convert.read(op.operands[0])


def appends_nothing(op: Operation, convert: Conversion) -> Any:
    return [tpu.SiLUOp(convert.read(op.operands[0])).result]


def reads_nothing(op: Operation, convert: Conversion) -> Any:
    return convert.append(tpu.SiLUOp(op.operands[0]), op)


@pytest.mark.parametrize(
    ("lower", "said"),
    [
        (returns_an_op, r"lowering Wrong returns the op tpu\.SiLU, not values"),
        (returns_a_value, r"lowering Wrong returns <OpResult.*, not values"),
        (appends_nothing, "lowering Wrong gives a value from elsewhere"),
        (reads_nothing, r"lowering Wrong appends a tpu\.SiLU that reads a value from elsewhere"),
    ],
)
def test_usual_mistakes_are_named(lower: Any, said: str) -> None:
    with temporarily(Lowering("Wrong", top.SiLUOp, lower)), pytest.raises(IRError, match=said):
        converted()


def test_an_op_that_nothing_lowers_is_named() -> None:
    with (
        temporarily(Lowering("LowerToSameOp", top.TopOp, never)),
        pytest.raises(IRError, match=r"top\.SiLU cannot be converted"),
    ):
        converted()


def test_an_option_that_the_pass_lacks_is_refused() -> None:
    with pytest.raises(OptionError, match="'quantum', which is no option"):
        lowering(top.SiLUOp, quantum="f16")(never)


def test_a_name_that_another_module_has_taken_is_refused() -> None:
    with pytest.raises(OptionError, match="two lowerings called LowerMatMul"):
        register(Lowering("LowerMatMul", top.SiLUOp, never, origin=__name__))


def test_a_module_that_is_loaded_again_replaces_its_own() -> None:
    with temporarily(Lowering("Mine", top.SiLUOp, never, origin=__name__)):
        register(Lowering("Mine", top.AddOp, never, origin=__name__))
        assert "Mine" in order(top.AddOp)
        assert "Mine" not in order(top.SiLUOp)
