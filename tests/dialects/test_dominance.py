"""Rules across ops: definition before use, and calls that meet their functions."""

from __future__ import annotations

import pytest
from xdsl.dialects.arith import AddiOp, ConstantOp
from xdsl.dialects.builtin import FunctionType, IndexType, ModuleOp
from xdsl.dialects.cf import BranchOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_dominance, verify_module
from tilewright.dialects.element_types import F32, tensor_type
from tilewright.dialects.errors import IRError
from tilewright.dialects.top import NegOp

LOOP = """
func.func @kernel(%n : index) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %first = arith.addi %zero, %one : index
  scf.for %i = %zero to %n step %one {
    %a = arith.addi %i, %first : index
    %b = arith.addi %a, %one : index
  }
  %last = arith.addi %first, %one : index
  func.return
}
"""


CALLS = """
func.func private @layer(%x : tensor<4xf32>) -> tensor<4xf32> {
  %y = top.Neg %x : tensor<4xf32> -> tensor<4xf32> loc("neg"("model.py":3:1))
  func.return %y : tensor<4xf32>
}
func.func @main(%x : tensor<4xf32>) -> tensor<4xf32> {
  %y = top.Call @layer(%x) {scopes = ["layers.0."]} : (tensor<4xf32>) -> tensor<4xf32>
  %z = tpu.Call @layer(%y) {scopes = ["layers.1."]} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %z : tensor<4xf32>
}
"""


def _refused(text: str) -> IRError:
    with pytest.raises(IRError) as caught:
        verify_module(parse_module(text, "m.mlir"))
    return caught.value


def test_legal_modules() -> None:
    verify_module(parse_module(LOOP, "m.mlir"))
    verify_module(parse_module(CALLS, "m.mlir"))


def test_use_before_definition() -> None:
    error = _refused(
        CALLS.replace("%y = top.Neg %x", "%y = top.Neg %w").replace(
            "  func.return %y", '  %w = top.Weight "w" : tensor<4xf32>\n  func.return %y'
        )
    )
    assert error.what == "operand 0 of top.Neg is used where it is not defined"
    assert error.where == "top.Neg neg (model.py:3) in @layer"
    assert error.why == "%w is the result of top.Weight in @layer, which does not come before"


def test_use_in_a_loop_of_what_comes_after_it() -> None:
    error = _refused(LOOP.replace("arith.addi %a, %one", "arith.addi %a, %last"))
    assert error.what == "operand 1 of arith.addi is used where it is not defined"


def test_use_after_a_loop_of_what_it_defines() -> None:
    module = parse_module(LOOP, "m.mlir")
    adds = [op for op in module.walk() if op.name == "arith.addi"]
    adds[-1].operands[0] = adds[1].results[0]
    with pytest.raises(IRError, match="used where it is not defined"):
        verify_dominance(module)


def test_use_of_another_function_s_value() -> None:
    kind = tensor_type((4,), F32)
    outer = Block(arg_types=[kind])
    outer.add_op(ReturnOp())
    inner = Block(ops=[NegOp(outer.args[0]), ReturnOp()])
    module = ModuleOp(
        [
            FuncOp("f", FunctionType.from_lists([kind], []), Region(outer)),
            FuncOp("g", FunctionType.from_lists([], []), Region(inner)),
        ]
    )
    with pytest.raises(IRError) as caught:
        verify_dominance(module)
    assert (
        caught.value.why == "a value without a name is a block argument, which does not come before"
    )


def test_use_in_a_function_of_a_value_around_it() -> None:
    constant = ConstantOp.from_int_and_width(1, IndexType())
    body = Block(ops=[AddiOp(constant.result, constant.result), ReturnOp()])
    function = FuncOp("f", FunctionType.from_lists([], []), Region(body))
    with pytest.raises(IRError, match=r"operand 0 of arith.addi is used where it is not defined"):
        verify_dominance(ModuleOp([constant, function]))


def test_values_of_dominating_blocks_are_visible_and_others_are_not() -> None:
    kind = tensor_type((4,), F32)

    def module(*, reached: bool) -> ModuleOp:
        entry, after = Block(arg_types=[kind]), Block()
        define = NegOp(entry.args[0])
        use = NegOp(define.result)
        if reached:
            entry.add_ops([define, BranchOp(after)])
            after.add_ops([use, ReturnOp()])
        else:
            entry.add_ops([use, BranchOp(after)])
            after.add_ops([define, ReturnOp()])
        body = Region([entry, after])
        return ModuleOp([FuncOp("f", FunctionType.from_lists([kind], []), body)])

    verify_dominance(module(reached=True))
    with pytest.raises(IRError, match="used where it is not defined"):
        verify_dominance(module(reached=False))


def test_illegal_op_says_which() -> None:
    text = CALLS.replace("-> tensor<4xf32> loc", "-> tensor<8xf32> loc")
    error = _refused(text.replace("return %y", "return %x"))
    assert error.what == "top.Neg is illegal"
    assert error.where == "top.Neg neg (model.py:3) in @layer"
    assert error.why == "top.Neg: result is [4], not [8]"


@pytest.mark.parametrize(
    ("old", "new", "what", "why"),
    [
        ("@layer(%x)", "@lawyer(%x)", "there is no function @lawyer to call", None),
        (
            "@layer(%x)",
            "@main(%x)",
            "functions call each other in a circle",
            "@main -> @main",
        ),
        (
            "top.Neg %x : tensor<4xf32>",
            'top.Call @main(%x) {scopes = [""]} : (tensor<4xf32>)',
            "functions call each other in a circle",
            "@layer -> @main -> @layer",
        ),
        (
            "tpu.Call @layer(%y)",
            "tpu.Launch @kernel(%y)",
            "there is no kernel @kernel",
            None,
        ),
    ],
)
def test_illegal_calls(old: str, new: str, what: str, why: str | None) -> None:
    error = _refused(CALLS.replace(old, new))
    assert (error.what, error.why) == (what, why)


def test_calls_that_do_not_match() -> None:
    text = CALLS.replace("@layer(%x) {", "@layer(%x, %x) {").replace(
        '"layers.0."]} : (tensor<4xf32>)', '"layers.0."]} : (tensor<4xf32>, tensor<4xf32>)'
    )
    error = _refused(text)
    assert error.what == "the call does not match @layer"
    assert error.where == "top.Call in @main"
    assert error.why == (
        "@layer takes (tensor<4xf32>), the call has (tensor<4xf32>, tensor<4xf32>)"
    )
    text = CALLS.replace(
        '"layers.1."]} : (tensor<4xf32>) -> tensor<4xf32>',
        '"layers.1."]} : (tensor<4xf32>) -> tensor<5xf32>',
    ).replace("return %z : tensor<4xf32>", "return %y : tensor<4xf32>")
    assert _refused(text).why == "@layer returns (tensor<4xf32>), the call has (tensor<5xf32>)"
