"""What tests of passes need: right passes and rules pass, wrong ones are named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tilewright.compiler.workbench.testing import check_passes, check_rules
from tilewright.dialects.context import parse_module
from tilewright.dialects.errors import MiscompileError
from tilewright.passes.fuse_bias import FuseBiasPass
from tilewright.passes.rules.rule_pass import RulePass

MODEL = """
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
  %w = top.Weight "w" : tensor<8x3xf32>
  %b = top.Weight "b" : tensor<3xf32>
  %m = top.MatMul %x, %w : tensor<4x8xf32>, tensor<8x3xf32> -> tensor<4x3xf32>
  %y = top.Add %m, %b : tensor<4x3xf32>, tensor<3xf32> -> tensor<4x3xf32>
  func.return %y : tensor<4x3xf32>
}
"""


@dataclass(frozen=True)
class DropBiasPass(RulePass):
    """Leave out what is added.

    ```rules
    rule DropBias {
      match { y = top.Add(m, b: weight) }
      replace y with m
    }
    ```
    """

    name = "drop-bias"


def test_right_passes_give_what_they_make(tmp_path: Path) -> None:
    path = tmp_path / "model.mlir"
    path.write_text(MODEL)
    made = check_passes(path, "fuse-bias")
    assert "top.Add" not in str(made)
    module = parse_module(MODEL, "model")
    assert str(check_passes(module, [FuseBiasPass()])) == str(made)
    assert "top.Add" in str(module)


def test_a_wrong_pass_is_named() -> None:
    with pytest.raises(MiscompileError, match="drop-bias changes what @main computes"):
        check_passes(parse_module(MODEL, "model"), [DropBiasPass()])


def test_rules_are_checked_one_by_one() -> None:
    check_rules("fuse-bias")
    with pytest.raises(MiscompileError, match="DropBias"):
        check_rules(DropBiasPass)
