"""`fuse-rms-norm`: root-mean-square norms are recognized."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseRMSNormPass(RulePass):
    """Recognize RMSNorm where it is spelled out.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %w = top.Weight "norm.weight" : tensor<8xf32>
      %q = top.Mul %x, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      %m = top.Reduce mean %q : tensor<4x8xf32> -> tensor<4x1xf32>
      %a = top.AddConst %m {value = 1.0e-05 : f32} : tensor<4x1xf32> -> tensor<4x1xf32>
      %r = top.Rsqrt %a : tensor<4x1xf32> -> tensor<4x1xf32>
      %n = top.Mul %x, %r : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
      %y = top.Mul %n, %w : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %w = top.Weight "norm.weight" : tensor<8xf32>
      %y = top.RMSNorm %x weight %w {eps = 1.0e-05 : f32} :
        tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that no row divided by the root
    of the mean of its squares is left in its small ops; a factor for each column that follows
    becomes the norm's weight.

    ```rules
    /// x * rsqrt(mean(x^2) + eps)
    rule RMSNormOfRsqrt {
      match {
        mean = top.Reduce(top.Mul(x, x)) {mode: mean}
        y = top.Mul(x, top.Rsqrt(top.AddConst(mean) {value: e}))
      }
      where e >= 0
      replace y with top.RMSNorm(x) {eps: e}
    }

    /// x / sqrt(mean(x^2) + eps)
    rule RMSNormOfSqrt {
      match {
        mean = top.Reduce(top.Mul(x, x)) {mode: mean}
        y = top.Div(x, top.Sqrt(top.AddConst(mean) {value: e}))
      }
      where e >= 0
      replace y with top.RMSNorm(x) {eps: e}
    }

    /// A factor for each column is the norm's weight.
    rule WeightOfRMSNorm {
      match {
        n = top.RMSNorm(x, weight = none) {eps: e} [uses = 1]
        y = top.Mul(n, w: f32[c])
      }
      where c == dim(x, -1)
      replace y with top.RMSNorm(x, weight = w) {eps: e}
    }
    ```
    """

    name = "fuse-rms-norm"
