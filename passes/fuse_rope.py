"""`fuse-rope`: rotary position embeddings are recognized."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseRopePass(RulePass):
    """Recognize Rope where halves are turned by slices, as transformers writes it.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>, %c: tensor<4x8xf32>, %s: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %low = top.Slice %x {offsets = array<i64: 0, 0>} : tensor<4x8xf32> -> tensor<4x4xf32>
      %high = top.Slice %x {offsets = array<i64: 0, 4>} : tensor<4x8xf32> -> tensor<4x4xf32>
      %n = top.Neg %high : tensor<4x4xf32> -> tensor<4x4xf32>
      %t = top.Concat %n, %low {axis = 1 : i64} :
        tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x8xf32>
      %a = top.Mul %x, %c : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      %b = top.Mul %t, %s : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.Add %a, %b : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>, %c: tensor<4x8xf32>, %s: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.Rope %x cos %c sin %s
        {num_heads = 1 : i64, rotary_dim = 8 : i64, interleaved = false} :
        tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that `x * cos + rotate_half(x) *
    sin` on one head, `[positions, head]`, is one op.

    ```rules
    /// x * cos + concat(-high half, low half) * sin
    rule RopeOfHalves {
      match {
        low = top.Slice(x) {offsets: lows}
        high = top.Slice(x) {offsets: highs}
        turned = top.Concat(top.Neg(high), low) {axis: 1}
        y = top.Add(top.Mul(x: f32[p, d], c: f32[p, d]), top.Mul(turned, s: f32[p, d]))
      }
      let half = d / 2
      where shape(low) == [p, half] and shape(high) == [p, half]
      where lows == [0, 0] and highs == [0, half]
      replace y with top.Rope(x, cos = c, sin = s) {num_heads: 1, rotary_dim: d, interleaved: false}
    }
    ```
    """

    name = "fuse-rope"
