"""Key scopes through calls, and names of ops."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ArrayAttr, FusedLoc, NoneAttr
from xdsl.ir import Attribute

from tilewright.dialects.context import parse_module
from tilewright.dialects.errors import IRError
from tilewright.dialects.scopes import functions_of, op_name, source_of, walk_calls, where_of
from tilewright.dialects.top import WeightOp

MODULE = """
func.func private @mlp(%x : tensor<4xf32>) -> tensor<4xf32> {
  %w = top.Weight "weight" : tensor<4xf32> loc("weight"("model.py":3:1))
  %y = top.Mul %x, %w : tensor<4xf32>, tensor<4xf32> -> tensor<4xf32> loc("model.py":4:1)
  func.return %y : tensor<4xf32>
}
func.func private @layer(%x : tensor<4xf32>) -> tensor<4xf32> {
  %y = top.Call @mlp(%x) {scopes = ["mlp."]} : (tensor<4xf32>) -> tensor<4xf32>
  %w = top.Weight "norm" : tensor<4xf32>
  func.return %y : tensor<4xf32>
}
func.func @main(%x : tensor<4xf32>) -> tensor<4xf32> {
  %y = top.Call @layer(%x) {scopes = ["layers.0."]} : (tensor<4xf32>) -> tensor<4xf32>
  %z = top.Call @layer(%y) {scopes = ["layers.1."]} : (tensor<4xf32>) -> tensor<4xf32>
  func.return %z : tensor<4xf32>
}
"""


def test_walk_calls_resolves_keys_in_order() -> None:
    module = parse_module(MODULE, "m.mlir")
    for function in ("main", functions_of(module)["main"]):
        keys = [
            scope + op.key.data
            for op, scope in walk_calls(module, function, "transformer.")
            if isinstance(op, WeightOp)
        ]
        assert keys == [
            "transformer.layers.0.mlp.weight",
            "transformer.layers.0.norm",
            "transformer.layers.1.mlp.weight",
            "transformer.layers.1.norm",
        ]


def test_walk_calls_leaves_out_calls_and_returns() -> None:
    module = parse_module(MODULE, "m.mlir")
    layer = ["top.Weight", "top.Mul", "top.Weight"]
    assert [op.name for op, _ in walk_calls(module, "main")] == layer * 2


def test_names_and_sources() -> None:
    module = parse_module(MODULE, "m.mlir")
    weight, mul, norm = (op for op, _ in walk_calls(module, "layer"))
    assert [op_name(op) for op in (weight, mul, norm)] == ["weight", "top.Mul", "top.Weight"]
    assert [source_of(op) for op in (weight, mul, norm)] == ["model.py:3", "model.py:4", ""]
    assert where_of(weight) == "top.Weight weight (model.py:3) in @mlp"
    assert where_of(norm) == "top.Weight in @layer"
    assert where_of(module) == "builtin.module"


def test_a_fused_location_has_the_name_and_source_of_its_first_part_with_one() -> None:
    module = parse_module(MODULE, "m.mlir")
    weight, mul, norm = (op for op, _ in walk_calls(module, "layer"))
    parts = ArrayAttr[Attribute]([norm.location, mul.location, weight.location])
    norm.location = FusedLoc(parts, NoneAttr())
    assert (op_name(norm), source_of(norm)) == ("weight", "model.py:4")


def test_walk_calls_refuses_what_is_not_there() -> None:
    module = parse_module(MODULE.replace("@mlp(%x) {", "@moe(%x) {"), "m.mlir")
    with pytest.raises(IRError, match="there is no function @decode"):
        list(walk_calls(module, "decode"))
    with pytest.raises(IRError, match="there is no function @moe to call"):
        list(walk_calls(module, "main"))


def test_walk_calls_refuses_recursion() -> None:
    module = parse_module(MODULE.replace("@mlp(%x) {", "@main(%x) {"), "m.mlir")
    with pytest.raises(IRError) as caught:
        list(walk_calls(module, "main"))
    assert caught.value.why == "main -> layer -> main"
