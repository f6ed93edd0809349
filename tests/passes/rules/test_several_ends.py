"""Patterns of ops that do not lead to the root: they are found through the uses of a value."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.rules.support import function, names, ops, rewrite
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.dialects.context import parse_module, print_module

X = "tensor<4x8xf32>"

JOIN = """
/// Two products of one value by two weights are one product, and two slices of it.
rule JoinProducts {
  match {
    a = top.MatMul(x: _[_, _], v: weight)
    root b = top.MatMul(x, w: weight)
  }
  where dim(a, -1) <= dim(b, -1)
  replace a, b {
    both = top.MatMul(x, top.Concat(v, w) {axis: 1})
    first = top.Slice(both) {offsets: [0, 0]} -> like a
    second = top.Slice(both) {offsets: [0, dim(a, -1)]} -> like b
    first, second
  }
}
"""

PRODUCTS = """
%v = top.Weight "v" : tensor<8x3xf32>
{first}
%a = top.MatMul %x, %v : tensor<4x8xf32>, tensor<8x3xf32> -> tensor<4x3xf32>
{between}
%w = top.Weight "w" : tensor<8x5xf32>
%b = top.MatMul %x, %w : tensor<4x8xf32>, tensor<8x5xf32> -> tensor<4x5xf32>
{behind}
"""
SUM_OF_A = "%c = top.Reduce sum %a : tensor<4x3xf32> -> tensor<4x1xf32>"
ADD = "%y = top.Add %b, %c : tensor<4x5xf32>, tensor<4x1xf32> -> tensor<4x5xf32>"


def values(module: ModuleOp) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    random = np.random.default_rng(0)
    x, v, w = (random.standard_normal(shape) for shape in ((4, 8), (8, 3), (8, 5)))
    stored = {"v": v, "w": w}

    def weights(key: str, op: Operation) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        del op
        return stored[key].astype(np.float32)

    inputs = [x.astype(np.float32)]
    return run_function(module, "f", inputs, weights=weights, states={}, semantics="float64")[0]


def test_two_ops_are_replaced_by_one():
    before = function(PRODUCTS.format(first="", between="", behind=SUM_OF_A + "\n" + ADD))
    after = parse_module(print_module(before), "again")
    assert rewrite(JOIN, after) == 1
    assert names(after) == [
        *("Weight", "Weight", "Concat", "MatMul", "Slice", "Slice", "Reduce", "Add"),
    ]
    np.testing.assert_allclose(values(after), values(before), rtol=1e-12, atol=1e-12)


def test_nothing_that_is_used_may_come_behind_its_use():
    """The first product is used before the second weight is there: the new one fits nowhere."""
    module = function(PRODUCTS.format(first="", between=SUM_OF_A, behind=ADD))
    assert rewrite(JOIN, module) == 0
    assert names(module).count("MatMul") == 2


def test_the_root_may_stand_before_the_other():
    swapped = JOIN.replace("root b", "b").replace("    a = top", "    root a = top")
    before = function(PRODUCTS.format(first="", between="", behind=SUM_OF_A + "\n" + ADD))
    after = parse_module(print_module(before), "again")
    assert rewrite(swapped, after) == 1
    np.testing.assert_allclose(values(after), values(before), rtol=1e-12, atol=1e-12)


def test_one_op_is_not_two():
    one = function("""%v = top.Weight "v" : tensor<8x3xf32>
    %a = top.MatMul %x, %v : tensor<4x8xf32>, tensor<8x3xf32> -> tensor<4x3xf32>""")
    assert rewrite(JOIN, one) == 0


def test_only_the_root_is_replaced_if_only_it_is_named():
    """A common subexpression: the same op on the same value elsewhere."""
    rules = """rule Same {
      match { a = top.Exp(x) root b = top.Exp(x) }
      replace b with a
    }"""
    module = function(
        f"""%a = top.Exp %x : {X} -> {X}
        %c = top.Neg %a : {X} -> {X}
        %b = top.Exp %x : {X} -> {X}
        %y = top.Add %b, %c : {X}, {X} -> {X}"""
    )
    assert rewrite(rules, module) == 1
    exp, neg, add = ops(module)
    assert add.operands[0] is exp.results[0]
    assert neg.operands[0] is exp.results[0]


@pytest.mark.parametrize(("condition", "applied"), [("c == 2", 1), ("c == 3", 1), ("c == 4", 0)])
def test_the_search_goes_on_until_the_conditions_hold(condition: str, applied: int):
    rules = f"""rule R {{
      match {{ a = top.MulConst(x) {{value: c}}  root y = top.Neg(x) }}
      where {condition}
      replace y with top.Abs(x)
    }}"""
    module = function(
        f"""%a = top.MulConst %x {{value = 2.0 : f32}} : {X} -> {X}
        %b = top.MulConst %x {{value = 3.0 : f32}} : {X} -> {X}
        %c = top.Add %a, %b : {X}, {X} -> {X}
        %n = top.Neg %x : {X} -> {X}
        %y = top.Add %c, %n : {X}, {X} -> {X}"""
    )
    assert rewrite(rules, module) == applied


def test_further_ends_may_have_operands_of_their_own():
    rules = """rule R {
      match {
        d = top.Sub(x, top.Abs(z))
        root y = top.Neg(x)
      }
      replace y with top.Relu(z)
    }"""
    arguments = f"%x: {X}, %z: {X}"
    for inner, applied in (("Abs", 1), ("Exp", 0)):
        module = function(
            f"""%a = top.{inner} %z : {X} -> {X}
            %d = top.Sub %x, %a : {X}, {X} -> {X}
            %n = top.Neg %x : {X} -> {X}
            %y = top.Add %d, %n : {X}, {X} -> {X}""",
            arguments,
        )
        assert rewrite(rules, module) == applied
