"""`fold-weight-transpose`: a transposed weight becomes a transposed product."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FoldWeightTransposePass(RulePass):
    """Multiply by a weight as it is stored, not by its transpose.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
      %w = top.Weight "proj.weight" : tensor<3x8xf32>
      %t = top.Permute %w {order = array<i64: 1, 0>} : tensor<3x8xf32> -> tensor<8x3xf32>
      %y = top.MatMul %x, %t : tensor<4x8xf32>, tensor<8x3xf32> -> tensor<4x3xf32>
      func.return %y : tensor<4x3xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x3xf32> {
      %w = top.Weight "proj.weight" : tensor<3x8xf32>
      %y = top.MatMul %x, %w {right_transpose} :
        tensor<4x8xf32>, tensor<3x8xf32> -> tensor<4x3xf32>
      func.return %y : tensor<4x3xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that no matrix product reads a
    transposed matrix: the product itself says which axis is which. So weights can be quantized,
    which they cannot be behind another op.

    ```rules
    rule MatMulOfTransposed {
      match { y = top.MatMul(x, top.Permute(w) {order: [1, 0]}, bias = b?) {right_transpose: t} }
      replace y with top.MatMul(x, w, bias = b) {right_transpose: not t}
    }
    ```
    """

    name = "fold-weight-transpose"
