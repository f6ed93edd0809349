"""`fuse-attention`: attention over several heads is recognized."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseAttentionPass(RulePass):
    """Recognize attention that is written with batched products.

    ```mlir
    func.func @f(%q: tensor<4x8xf32>, %k: tensor<6x8xf32>, %v: tensor<6x8xf32>) -> tensor<4x8xf32> {
      %q3 = top.Reshape %q : tensor<4x8xf32> -> tensor<4x2x4xf32>
      %qh = top.Permute %q3 {order = array<i64: 1, 0, 2>} : tensor<4x2x4xf32> -> tensor<2x4x4xf32>
      %k3 = top.Reshape %k : tensor<6x8xf32> -> tensor<6x2x4xf32>
      %kh = top.Permute %k3 {order = array<i64: 1, 0, 2>} : tensor<6x2x4xf32> -> tensor<2x6x4xf32>
      %v3 = top.Reshape %v : tensor<6x8xf32> -> tensor<6x2x4xf32>
      %vh = top.Permute %v3 {order = array<i64: 1, 0, 2>} : tensor<6x2x4xf32> -> tensor<2x6x4xf32>
      %s = top.BatchMatMul %qh, %kh {right_transpose} :
        tensor<2x4x4xf32>, tensor<2x6x4xf32> -> tensor<2x4x6xf32>
      %c = top.MulConst %s {value = 0.5 : f32} : tensor<2x4x6xf32> -> tensor<2x4x6xf32>
      %p = top.Softmax %c : tensor<2x4x6xf32> -> tensor<2x4x6xf32>
      %o = top.BatchMatMul %p, %vh : tensor<2x4x6xf32>, tensor<2x6x4xf32> -> tensor<2x4x4xf32>
      %oh = top.Permute %o {order = array<i64: 1, 0, 2>} : tensor<2x4x4xf32> -> tensor<4x2x4xf32>
      %y = top.Reshape %oh : tensor<4x2x4xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%q: tensor<4x8xf32>, %k: tensor<6x8xf32>, %v: tensor<6x8xf32>) -> tensor<4x8xf32> {
      %y = top.Attention %q, %k, %v
        {num_heads = 2 : i64, num_kv_heads = 2 : i64, scale = 0.5 : f32} :
        tensor<4x8xf32>, tensor<6x8xf32>, tensor<6x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops, in which `fuse-softmax` has run. Guarantees
    that attention with as many heads of keys as of queries, with or without a mask `[queries,
    keys]`, is one op, and that a factor on its queries is part of its scale.

    ```rules
    /// softmax(scale * q k^T) v, head by head
    rule AttentionOfHeads {
      match {
        qh = top.Permute(top.Reshape(q: f32[m, _])) {order: [1, 0, 2]}
        kh = top.Permute(top.Reshape(k: f32[n, _])) {order: [1, 0, 2]}
        vh = top.Permute(top.Reshape(v: f32[n, _])) {order: [1, 0, 2]}
        scores = top.MulConst(top.BatchMatMul(qh, kh) {right_transpose}) {value: c}
        mixed = top.BatchMatMul(top.Softmax(scores), vh)
        y = top.Reshape(top.Permute(mixed) {order: [1, 0, 2]})
      }
      let h = dim(qh, 0)
      where shape(y) == shape(q) and dim(qh, 1) == m and dim(kh, 1) == n and dim(vh, 1) == n
      replace y with top.Attention(q, k, v) {num_heads: h, num_kv_heads: h, scale: c}
    }

    /// softmax(scale * q k^T + mask) v, head by head
    rule AttentionOfHeadsWithMask {
      match {
        qh = top.Permute(top.Reshape(q: f32[m, _])) {order: [1, 0, 2]}
        kh = top.Permute(top.Reshape(k: f32[n, _])) {order: [1, 0, 2]}
        vh = top.Permute(top.Reshape(v: f32[n, _])) {order: [1, 0, 2]}
        scores = top.MulConst(top.BatchMatMul(qh, kh) {right_transpose}) {value: c}
        mixed = top.BatchMatMul(top.Softmax(top.Add(scores, mask: f32[m, n])), vh)
        y = top.Reshape(top.Permute(mixed) {order: [1, 0, 2]})
      }
      let h = dim(qh, 0)
      where shape(y) == shape(q) and dim(qh, 1) == m and dim(kh, 1) == n and dim(vh, 1) == n
      replace y with top.Attention(q, k, v, mask = mask) {num_heads: h, num_kv_heads: h, scale: c}
    }

    /// A factor on the queries is one on the scores.
    rule ScaleOfAttention {
      match {
        y = top.Attention(top.MulConst(q) {value: c}, k, v, mask = mask?)
          {num_heads: h, num_kv_heads: g, scale: s}
      }
      where is_f32(c * s)
      replace y {
        top.Attention(q, k, v, mask = mask) {num_heads: h, num_kv_heads: g, scale: c * s}
      }
    }
    ```
    """

    name = "fuse-attention"
