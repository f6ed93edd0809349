"""`fuse-bias`: the bias of a linear layer becomes part of its matrix product."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseBiasPass(RulePass):
    """Add the bias of a linear layer inside its matrix product.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
      %w = top.Weight "proj.weight" : tensor<8x3xf32>
      %b = top.Weight "proj.bias" : tensor<3xf32>
      %m = top.MatMul %x, %w : tensor<4x8xf32>, tensor<8x3xf32> -> tensor<4x3xf32>
      %y = top.Add %m, %b : tensor<4x3xf32>, tensor<3xf32> -> tensor<4x3xf32>
      func.return %y : tensor<4x3xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
      %w = top.Weight "proj.weight" : tensor<8x3xf32>
      %b = top.Weight "proj.bias" : tensor<3xf32>
      %y = top.MatMul %x, %w bias %b :
        tensor<4x8xf32>, tensor<8x3xf32>, tensor<3xf32> -> tensor<4x3xf32>
      func.return %y : tensor<4x3xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that no sum of a matrix product
    without a bias and a vector is left, unless the product is used elsewhere too.

    ```rules
    /// Add a vector inside the matrix product that it is added to.
    rule AddBiasAfterMatMul {
      match {
        m = top.MatMul(x, w) {right_transpose: t} [uses = 1]
        y = top.Add(m, b: f32[n])
      }
      where n == dim(m, -1)
      replace y {
        top.MatMul(x, w, bias = b) {right_transpose: t}
      }
    }
    ```
    """

    name = "fuse-bias"
