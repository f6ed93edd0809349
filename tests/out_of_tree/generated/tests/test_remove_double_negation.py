"""The pass `remove-double-negation` does what it is for, and changes no value."""

from __future__ import annotations

from tilewright.compiler.workbench.equivalence import EquivalenceCheck
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects import top
from tilewright.dialects.context import parse_module
from tilewright.passes.registry import find_pass

MODULE = """
func.func @main(%x: tensor<4x64xf32>) -> (tensor<4x64xf32>, tensor<4x64xf32>) {
  %n = top.Neg %x : tensor<4x64xf32> -> tensor<4x64xf32>
  %m = top.Neg %n : tensor<4x64xf32> -> tensor<4x64xf32>
  %o = top.Neg %m : tensor<4x64xf32> -> tensor<4x64xf32>
  %y = top.Exp %m : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %y, %o : tensor<4x64xf32>, tensor<4x64xf32>
}
"""


def test_one_negation_is_left_and_values_stay() -> None:
    """The check runs the module before and after the pass in the reference, on made-up inputs."""
    module = parse_module(MODULE, "test")
    run_pipeline(module, [find_pass("remove-double-negation")()], [EquivalenceCheck()])
    assert [op.name for op in module.walk() if isinstance(op, top.NegOp)] == ["top.Neg"]
