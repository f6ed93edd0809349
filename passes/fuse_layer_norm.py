"""`fuse-layer-norm`: layer norms are recognized."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseLayerNormPass(RulePass):
    """Recognize LayerNorm where it is spelled out.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %w = top.Weight "norm.weight" : tensor<8xf32>
      %b = top.Weight "norm.bias" : tensor<8xf32>
      %m = top.Reduce mean %x : tensor<4x8xf32> -> tensor<4x1xf32>
      %c = top.Sub %x, %m : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
      %q = top.Mul %c, %c : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      %v = top.Reduce mean %q : tensor<4x8xf32> -> tensor<4x1xf32>
      %a = top.AddConst %v {value = 1.0e-05 : f32} : tensor<4x1xf32> -> tensor<4x1xf32>
      %r = top.Rsqrt %a : tensor<4x1xf32> -> tensor<4x1xf32>
      %n = top.Mul %c, %r : tensor<4x8xf32>, tensor<4x1xf32> -> tensor<4x8xf32>
      %s = top.Mul %n, %w : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      %y = top.Add %s, %b : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %w = top.Weight "norm.weight" : tensor<8xf32>
      %b = top.Weight "norm.bias" : tensor<8xf32>
      %y = top.LayerNorm %x weight %w : tensor<8xf32> bias %b : tensor<8xf32>
        {eps = 1.0e-05 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that no centred row divided by
    its standard deviation is left in its small ops; a factor and a summand for each column that
    follow become the norm's weight and bias.

    ```rules
    /// (x - mean) * rsqrt(variance + eps)
    rule LayerNormOfRsqrt {
      match {
        c = top.Sub(x, top.Reduce(x) {mode: mean})
        variance = top.Reduce(top.Mul(c, c)) {mode: mean}
        y = top.Mul(c, top.Rsqrt(top.AddConst(variance) {value: e}))
      }
      where e >= 0
      replace y with top.LayerNorm(x) {eps: e}
    }

    /// (x - mean) / sqrt(variance + eps)
    rule LayerNormOfSqrt {
      match {
        c = top.Sub(x, top.Reduce(x) {mode: mean})
        variance = top.Reduce(top.Mul(c, c)) {mode: mean}
        y = top.Div(c, top.Sqrt(top.AddConst(variance) {value: e}))
      }
      where e >= 0
      replace y with top.LayerNorm(x) {eps: e}
    }

    /// A factor for each column is the norm's weight.
    rule WeightOfLayerNorm {
      match {
        n = top.LayerNorm(x, weight = none, bias = none) {eps: e} [uses = 1]
        y = top.Mul(n, w: f32[c])
      }
      where c == dim(x, -1)
      replace y with top.LayerNorm(x, weight = w) {eps: e}
    }

    /// A summand for each column is the norm's bias.
    rule BiasOfLayerNorm {
      match {
        n = top.LayerNorm(x, weight = w?, bias = none) {eps: e} [uses = 1]
        y = top.Add(n, b: f32[c])
      }
      where c == dim(x, -1)
      replace y with top.LayerNorm(x, weight = w, bias = b) {eps: e}
    }
    ```
    """

    name = "fuse-layer-norm"
