"""`fuse-softmax`: softmax is recognized."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseSoftmaxPass(RulePass):
    """Recognize Softmax where it is spelled out.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %m = top.Reduce max %x : tensor<4x8xf32> -> tensor<4x1xf32>
      %d = top.Sub %x, %m : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
      %e = top.Exp %d : tensor<4x8xf32> -> tensor<4x8xf32>
      %s = top.Reduce sum %e : tensor<4x8xf32> -> tensor<4x1xf32>
      %y = top.Div %e, %s : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.Softmax %x : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that no quotient of powers and
    their sum over the last axis is left where the row's largest element was taken off before.
    Without that the powers may overflow where Softmax does not: such a quotient stays as it is.

    ```rules
    /// e / sum(e), e = exp(x - max(x))
    rule SoftmaxOfQuotient {
      match {
        e = top.Exp(top.Sub(x, top.Reduce(x) {mode: max}))
        y = top.Div(e, top.Reduce(e) {mode: sum})
      }
      replace y with top.Softmax(x)
    }

    /// e * (1 / sum(e)), e = exp(x - max(x))
    rule SoftmaxOfProduct {
      match {
        e = top.Exp(top.Sub(x, top.Reduce(x) {mode: max}))
        y = top.Mul(e, top.Reciprocal(top.Reduce(e) {mode: sum}))
      }
      replace y with top.Softmax(x)
    }
    ```
    """

    name = "fuse-softmax"
