"""The pass `remove-double-negation-by-rules`: a number negated twice is the number."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class RemoveDoubleNegationByRulesPass(RulePass):
    """Remove negations of negations.

    ```rules
    /// A number negated twice is the number.
    rule RemoveDoubleNegation {
      match { y = top.Neg(top.Neg(x)) }
      replace y with x
    }
    ```

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
      %n = top.Neg %x : tensor<4x64xf32> -> tensor<4x64xf32>
      %m = top.Neg %n : tensor<4x64xf32> -> tensor<4x64xf32>
      %y = top.Exp %m : tensor<4x64xf32> -> tensor<4x64xf32>
      func.return %y : tensor<4x64xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
      %y = top.Exp %x : tensor<4x64xf32> -> tensor<4x64xf32>
      func.return %y : tensor<4x64xf32>
    }
    ```

    Requires `top` ops. Guarantees that values stay what they are, to the bit, and that no
    `top.Neg` takes the result of another.
    """

    name = "remove-double-negation-by-rules"
