"""`fuse-silu`: products with a sigmoid become SiLU."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseSiLUPass(RulePass):
    """Recognize SiLU where it is spelled out.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %s = top.Sigmoid %x : tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.Mul %x, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.SiLU %x : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that no product `x * sigmoid(x)`
    is left, in either order, nor a sigmoid written with an exponential.

    ```rules
    /// 1 / (1 + exp(-x)), with a reciprocal
    rule SigmoidOfReciprocal {
      match { y = top.Reciprocal(top.AddConst(top.Exp(top.Neg(x))) {value: 1.0}) }
      replace y with top.Sigmoid(x)
    }

    /// x / (1 + exp(-x))
    rule SiLUOfQuotient {
      match { y = top.Div(x, top.AddConst(top.Exp(top.Neg(x))) {value: 1.0}) }
      replace y with top.SiLU(x)
    }

    /// x * sigmoid(x)
    rule SiLUOfProduct {
      match { y = top.Mul(x, top.Sigmoid(x)) }
      replace y with top.SiLU(x)
    }
    ```
    """

    name = "fuse-silu"
