"""The registry of passes, and the ops that may remain after each."""

from __future__ import annotations

import pytest
from tests.passes.lowering import PASSES as LOWERING
from tests.passes.lowering import elementwise, lower
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType
from xdsl.passes import ModulePass

from tilewright.dialects import bdc
from tilewright.dialects.context import parse_module
from tilewright.dialects.errors import IRError
from tilewright.passes.kernels.commands import COMMAND_OPS, kernels_of
from tilewright.passes.registry import PASSES, STAGES, check_stage


@pytest.mark.parametrize("name", PASSES)
def test_factories_give_the_pass_of_that_name(name: str):
    found = PASSES[name]()
    assert issubclass(found, ModulePass)
    assert found.name == name
    assert found.__doc__


def test_every_stage_is_a_pass():
    assert set(STAGES) <= set(PASSES)


def test_all_commands_are_legal_in_kernels():
    legal = set(STAGES["double-buffer"].legal)
    for op in COMMAND_OPS:
        assert op.name in legal or f"{op.name.split('.')[0]}.*" in legal


def test_an_op_of_a_level_above_may_not_remain():
    text = """
    func.func @f(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
      %y = top.Relu %x : tensor<2x4xf32> -> tensor<2x4xf32> loc("act"("model.py":3:1))
      func.return %y : tensor<2x4xf32>
    }
    """
    with pytest.raises(IRError) as caught:
        check_stage(parse_module(text, "test"), "convert-top-to-tpu")
    assert caught.value.what == "top.Relu may not remain after convert-top-to-tpu"
    assert caught.value.where is not None
    assert "act" in caught.value.where
    assert "model.py:3" in caught.value.where
    assert caught.value.why == "left over: 1 top.Relu"


@pytest.mark.parametrize("name", ["offsets", "waits"])
def test_attributes_of_earlier_passes_are_required(name: str):
    module = lower(elementwise(), LOWERING[:-1])
    op = next(op for op in module.walk() if isinstance(op, bdc.UnaryOp))
    del op.properties[name]
    check_stage(module, "double-buffer")
    with pytest.raises(IRError, match=rf"bdc\.unary has no {name} after insert-waits"):
        check_stage(module, "insert-waits")


def test_no_kernel_may_remain_after_emit_commands():
    with pytest.raises(IRError, match="may not remain after emit-commands"):
        check_stage(lower(elementwise(), LOWERING[:-1]), "emit-commands")


def test_an_unknown_op_in_a_kernel():
    module = lower(elementwise(), [])
    block = kernels_of(module)[0].body.block
    constant = next(op for op in block.ops if isinstance(op, arith.ConstantOp))
    block.insert_op_after(arith.MaxUIOp(constant.result, constant.result, IndexType()), constant)
    with pytest.raises(IRError, match=r"arith\.maxui may not remain"):
        check_stage(module, "double-buffer")


def test_other_passes_keep_the_stage():
    check_stage(lower(elementwise(), []), "canonicalize")
