"""Rows of `score` are what `prefill` gives for each last position."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.errors import IRError
from tilewright.passes.add_score_function import AddScoreFunctionPass

PREFILL = """
func.func @prefill(%ids: tensor<4xi32>, %last_position: tensor<1xi32>) -> tensor<1x8xf32> {{
  %h = top.Weight "states" : tensor<4x8xf32>
  %last = top.Gather %h, %last_position : tensor<4x8xf32>, tensor<1xi32> -> tensor<1x8xf32>
  {more}
  func.return %{result} : tensor<1x8xf32>
}}
"""


def apply(text: str) -> ModuleOp:
    module = parse_module(text, "model.mlir")
    AddScoreFunctionPass().apply(make_context(), module)
    module.verify()
    return module


def test_a_module_that_is_no_language_model_is_refused() -> None:
    text = "func.func @f(%x: tensor<1xf32>) -> tensor<1xf32> { func.return %x : tensor<1xf32> }"
    with pytest.raises(IRError, match="no function @prefill") as raised:
        apply(text)
    assert "@f" in str(raised.value.why)


def test_rows_must_not_meet_behind_the_last_position() -> None:
    concat = (
        "%y = top.Permute %last {order = array<i64: 0, 1>} : tensor<1x8xf32> -> tensor<1x8xf32>"
    )
    with pytest.raises(IRError, match=r"top\.Permute .* may mix rows"):
        apply(PREFILL.format(more=concat, result="y"))


def test_two_readers_of_the_last_position_are_refused() -> None:
    twice = "%y = top.Gather %h, %last_position : tensor<4x8xf32>, tensor<1xi32> -> tensor<1x8xf32>"
    with pytest.raises(IRError, match="does not pick last_position"):
        apply(PREFILL.format(more=twice, result="y"))


def test_it_is_added_once() -> None:
    text = PREFILL.format(
        more="%y = top.Exp %last : tensor<1x8xf32> -> tensor<1x8xf32>", result="y"
    )
    module = apply(text)
    with pytest.raises(IRError, match="@score already"):
        AddScoreFunctionPass().apply(make_context(), module)
