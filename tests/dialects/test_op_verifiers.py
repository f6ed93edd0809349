"""One illegal op for each sentence that a verifier says.

Rules at the common bases of `top` and `tpu` are shown on one of the two.
"""

from __future__ import annotations

import re

import pytest
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.documentation import OpDoc, op_reference, parse_example

ROPE = "num_heads = 2 : i64, rotary_dim = 4 : i64, interleaved = true"
HEADS = "num_heads = 4 : i64, num_kv_heads = 2 : i64, scale = 1.0 : f32"

TOP_CASES = [
    # Every op
    ("%y = top.SiLU %x : tensor<4xf16> -> tensor<4xf16>",
     "top.SiLU: tensor<4xf16> does not hold one of top's types: f32, i32"),
    ("%y = tpu.Reshape %x : tensor<4xf64> -> tensor<4xf64>",
     "tpu.Reshape: element type f64 is not supported by the machine"),
    ("%y = top.SiLU %x : tensor<?xf32> -> tensor<?xf32>",
     "top.SiLU: tensor<?xf32> is not static and non-empty"),
    ("%y = top.SiLU %x : tensor<0xf32> -> tensor<0xf32>",
     "top.SiLU: tensor<0xf32> is not static and non-empty"),
    # Structure
    ('%y = top.Weight "" : tensor<4xf32>', "top.Weight: the key is empty"),
    ('%y = top.State "" : tensor<4x4xf32>', "top.State: the key is empty"),
    ('%y = top.State "k" : tensor<4xf32>', "top.State: the state has rank 2, not 1"),
    ('%y = top.Call @f(%x) {scopes = ["layer"]} : (f32) -> f32',
     'top.Call: scope "layer" does not end in a dot'),
    ("%y = top.Call @f(%x) {scopes = []} : (f32) -> f32", "top.Call: there is no scope"),
    ('%y = top.Call @f(%x) {scopes = ["a.", "b."]} : (tensor<4xf32>) -> tensor<5xf32>',
     "top.Call: the results are not the first operands of the next call"),
    ("%y = top.Gather %t, %i : tensor<4xf32>, tensor<2xi32> -> tensor<2x4xf32>",
     "top.Gather: table has rank 2, not 1"),
    ("%y = top.Gather %t, %i : tensor<4x4xf32>, tensor<2x1xi32> -> tensor<2x4xf32>",
     "top.Gather: indices has rank 1, not 2"),
    ("%y = top.Gather %t, %i : tensor<4x4xf32>, tensor<2xi32> -> tensor<3x4xf32>",
     "top.Gather: result is [2, 4], not [3, 4]"),
    ("%y = top.Gather %t, %i : tensor<4x4xf32>, tensor<2xf32> -> tensor<2x4xf32>",
     "top.Gather: indices holds i32, not f32"),
    ("%y = top.Gather %t, %i : tensor<4x4xf32>, tensor<2xi32> -> tensor<2x4xi32>",
     "top.Gather: result holds f32, not i32"),
    ("%y = top.CacheUpdate %c, %r at %p :"
     " tensor<4xf32>, tensor<1x8xf32>, tensor<1xi32> -> tensor<4xf32>",
     "top.CacheUpdate: cache has rank 2, not 1"),
    ("%y = top.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf32>, tensor<8xf32>, tensor<1xi32> -> tensor<4x8xf32>",
     "top.CacheUpdate: rows has rank 2, not 1"),
    ("%y = top.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf32>, tensor<1x4xf32>, tensor<1xi32> -> tensor<4x8xf32>",
     "top.CacheUpdate: rows is [1, 8], not [1, 4]"),
    ("%y = top.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf32>, tensor<1x8xf32>, tensor<2xi32> -> tensor<4x8xf32>",
     "top.CacheUpdate: positions is [1], not [2]"),
    ("%y = top.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf32>, tensor<5x8xf32>, tensor<5xi32> -> tensor<4x8xf32>",
     "top.CacheUpdate: 5 rows do not fit a cache of 4"),
    ("%y = top.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf32>, tensor<1x8xf32>, tensor<1xi32> -> tensor<8x4xf32>",
     "top.CacheUpdate: result is [4, 8], not [8, 4]"),
    ("%y = top.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf32>, tensor<1x8xf32>, tensor<1xf32> -> tensor<4x8xf32>",
     "top.CacheUpdate: positions holds i32, not f32"),
    ("%y = tpu.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf16>, tensor<1x8xf32>, tensor<1xi32> -> tensor<4x8xf16>",
     "tpu.CacheUpdate: rows holds f16, not f32"),
    ("%y = tpu.CacheUpdate %c, %r at %p :"
     " tensor<4x8xf16>, tensor<1x8xf16>, tensor<1xi32> -> tensor<4x8xf32>",
     "tpu.CacheUpdate: result holds f16, not f32"),
    # Linear
    ("%y = top.MatMul %x, %w : tensor<f32>, tensor<8x2xf32> -> tensor<2xf32>",
     "top.MatMul: x has at least one dimension"),
    ("%y = top.MatMul %x, %w : tensor<4x8xf32>, tensor<4x2xf32> -> tensor<4x2xf32>",
     "top.MatMul: x has depth 8, right has depth 4"),
    ("%y = top.MatMul %x, %w {right_transpose} :"
     " tensor<4x8xf32>, tensor<8x2xf32> -> tensor<4x2xf32>",
     "top.MatMul: x has depth 8, right has depth 2"),
    ("%y = top.MatMul %x, %w : tensor<4x8xf32>, tensor<1x8x2xf32> -> tensor<4x2xf32>",
     "top.MatMul: right has rank 2, not 3"),
    ("%y = top.MatMul %x, %w bias %b :"
     " tensor<4x8xf32>, tensor<8x2xf32>, tensor<8xf32> -> tensor<4x2xf32>",
     "top.MatMul: bias is [2], not [8]"),
    ("%y = top.MatMul %x, %w : tensor<4x8xf32>, tensor<8x2xf32> -> tensor<4x8xf32>",
     "top.MatMul: result is [4, 2], not [4, 8]"),
    ("%y = tpu.MatMul %x, %w : tensor<4x8xf16>, tensor<8x2xbf16> -> tensor<4x2xf16>",
     "tpu.MatMul: one floating-point type is needed, not x f16, right bf16"),
    ("%y = tpu.MatMul %x, %w : tensor<4x8xi8>, tensor<8x2xi8> -> tensor<4x2xi8>",
     "tpu.MatMul: one floating-point type is needed, not x i8, right i8"),
    ("%y = tpu.MatMul %x, %w : tensor<4x8xf16>, tensor<8x2xf16> -> tensor<4x2xbf16>",
     "tpu.MatMul: result holds f16 or f32, not bf16"),
    ("%y = tpu.MatMul %x, %w : tensor<4x8xf32>, tensor<8x2xf32> -> tensor<4x2xf16>",
     "tpu.MatMul: result holds f32, not f16"),
    ("%y = top.BatchMatMul %a, %b : tensor<4x8xf32>, tensor<8x2xf32> -> tensor<4x2xf32>",
     "top.BatchMatMul: a has rank 3 or more, not 2"),
    ("%y = top.BatchMatMul %a, %b : tensor<3x4x8xf32>, tensor<8x2xf32> -> tensor<3x4x2xf32>",
     "top.BatchMatMul: a has rank 3, b has rank 2"),
    ("%y = top.BatchMatMul %a, %b : tensor<3x4x8xf32>, tensor<2x8x2xf32> -> tensor<3x4x2xf32>",
     "top.BatchMatMul: a has batch [3], b has batch [2]"),
    ("%y = top.BatchMatMul %a, %b : tensor<3x4x8xf32>, tensor<3x4x2xf32> -> tensor<3x4x2xf32>",
     "top.BatchMatMul: a has depth 8, b has depth 4"),
    ("%y = top.BatchMatMul %a, %b : tensor<3x4x8xf32>, tensor<3x8x2xf32> -> tensor<3x2x4xf32>",
     "top.BatchMatMul: result is [3, 4, 2], not [3, 2, 4]"),
    ("%y = tpu.BatchMatMul %a, %b : tensor<3x4x8xf16>, tensor<3x8x2xf16> -> tensor<3x4x2xf32>",
     "tpu.BatchMatMul: one floating-point type is needed, not a f16, b f16, result f32"),
    # Normalization
    ("%y = top.RMSNorm %x weight %w {eps = 0.0 : f32} :"
     " tensor<4x8xf32>, tensor<4xf32> -> tensor<4x8xf32>",
     "top.RMSNorm: weight is [8], not [4]"),
    ("%y = top.RMSNorm %x {eps = 0.0 : f32} : tensor<4x8xf32> -> tensor<4x4xf32>",
     "top.RMSNorm: result is [4, 8], not [4, 4]"),
    ("%y = top.RMSNorm %x {eps = -1.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>",
     "top.RMSNorm: eps is -1.0, not a finite number of at least 0"),
    ("%y = top.RMSNorm %x {eps = 0x7FC00000 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>",
     "top.RMSNorm: eps is nan, not a finite number of at least 0"),
    ("%y = tpu.RMSNorm %x weight %w {eps = 0.0 : f32} :"
     " tensor<4x8xf16>, tensor<8xf32> -> tensor<4x8xf16>",
     "tpu.RMSNorm: one floating-point type is needed, not x f16, weight f32, result f16"),
    ("%y = top.LayerNorm %x weight %w : tensor<4xf32> {eps = 0.0 : f32} :"
     " tensor<4x8xf32> -> tensor<4x8xf32>",
     "top.LayerNorm: weight is [8], not [4]"),
    ("%y = top.LayerNorm %x bias %w : tensor<4xf32> {eps = 0.0 : f32} :"
     " tensor<4x8xf32> -> tensor<4x8xf32>",
     "top.LayerNorm: bias is [8], not [4]"),
    ("%y = top.LayerNorm %x {eps = 0.0 : f32} : tensor<4x8xf32> -> tensor<4x4xf32>",
     "top.LayerNorm: result is [4, 8], not [4, 4]"),
    ("%y = top.LayerNorm %x {eps = -1.0 : f32} : tensor<4x8xf32> -> tensor<4x8xf32>",
     "top.LayerNorm: eps is -1.0, not a finite number of at least 0"),
    ("%y = tpu.LayerNorm %x bias %b : tensor<8xf32> {eps = 0.0 : f32} :"
     " tensor<4x8xf16> -> tensor<4x8xf16>",
     "tpu.LayerNorm: one floating-point type is needed, not x f16, bias f32, result f16"),
    ("%y = top.Softmax %x : tensor<f32> -> tensor<f32>",
     "top.Softmax: x has at least one dimension"),
    ("%y = top.Softmax %x : tensor<4xf32> -> tensor<8xf32>",
     "top.Softmax: result is [4], not [8]"),
    ("%y = top.Softmax %x : tensor<4xi32> -> tensor<4xi32>",
     "top.Softmax: one floating-point type is needed, not x i32, result i32"),
    # Attention
    (f"%y = top.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<8xf32>, tensor<3x4xf32>, tensor<3x4xf32> -> tensor<8xf32>",
     "top.Rope: x has rank 2, not 1"),
    (f"%y = top.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<3x9xf32>, tensor<3x4xf32>, tensor<3x4xf32> -> tensor<3x9xf32>",
     "top.Rope: 9 columns of x do not split into 2 heads"),
    ("%y = top.Rope %x cos %c sin %s"
     " {num_heads = 0 : i64, rotary_dim = 4 : i64, interleaved = true} :"
     " tensor<3x8xf32>, tensor<3x4xf32>, tensor<3x4xf32> -> tensor<3x8xf32>",
     "top.Rope: x has 0 heads"),
    (f"%y = top.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<3x8xf32>, tensor<3x8xf32>, tensor<3x4xf32> -> tensor<3x8xf32>",
     "top.Rope: cos is [3, 4], not [3, 8]"),
    (f"%y = top.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<3x8xf32>, tensor<3x4xf32>, tensor<1x4xf32> -> tensor<3x8xf32>",
     "top.Rope: sin is [3, 4], not [1, 4]"),
    (f"%y = top.Rope %x cos %c sin %s {{{ROPE.replace('= 4', '= 6')}}} :"
     " tensor<3x8xf32>, tensor<3x4xf32>, tensor<3x4xf32> -> tensor<3x8xf32>",
     "top.Rope: rotary_dim 6 is not an even number from 2 to 4"),
    (f"%y = top.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<3x8xf32>, tensor<3x4xf32>, tensor<3x4xf32> -> tensor<3x4xf32>",
     "top.Rope: result is [3, 8], not [3, 4]"),
    (f"%y = tpu.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<3x8xf16>, tensor<3x4xf32>, tensor<3x4xf32> -> tensor<3x8xf32>",
     "tpu.Rope: one floating-point type is needed, not x f16, result f32"),
    (f"%y = tpu.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<3x8xf16>, tensor<3x4xf16>, tensor<3x4xf32> -> tensor<3x8xf16>",
     "tpu.Rope: cos holds f32, not f16"),
    (f"%y = tpu.Rope %x cos %c sin %s {{{ROPE}}} :"
     " tensor<3x8xf16>, tensor<3x4xf32>, tensor<3x4xf16> -> tensor<3x8xf16>",
     "tpu.Rope: sin holds f32, not f16"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS}}} :"
     " tensor<8xf32>, tensor<5x4xf32>, tensor<5x4xf32> -> tensor<8xf32>",
     "top.Attention: q has rank 2, not 1"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS}}} :"
     " tensor<3x8xf32>, tensor<4xf32>, tensor<5x4xf32> -> tensor<3x8xf32>",
     "top.Attention: k has rank 2, not 1"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS}}} :"
     " tensor<3x6xf32>, tensor<5x4xf32>, tensor<5x4xf32> -> tensor<3x6xf32>",
     "top.Attention: 6 columns of q do not split into 4 heads"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS.replace('num_heads = 4', 'num_heads = 0')}}} :"
     " tensor<3x8xf32>, tensor<5x4xf32>, tensor<5x4xf32> -> tensor<3x8xf32>",
     "top.Attention: q has 0 heads"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS.replace('num_kv_heads = 2', 'num_kv_heads = 0')}}} :"
     " tensor<3x8xf32>, tensor<5x4xf32>, tensor<5x4xf32> -> tensor<3x8xf32>",
     "top.Attention: k has 0 heads"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS.replace('num_kv_heads = 2', 'num_kv_heads = 3')}}} :"
     " tensor<3x8xf32>, tensor<5x4xf32>, tensor<5x4xf32> -> tensor<3x8xf32>",
     "top.Attention: 4 heads do not share 3 key heads evenly"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS}}} :"
     " tensor<3x8xf32>, tensor<5x8xf32>, tensor<5x4xf32> -> tensor<3x8xf32>",
     "top.Attention: k is [5, 4], not [5, 8]"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS}}} :"
     " tensor<3x8xf32>, tensor<5x4xf32>, tensor<6x4xf32> -> tensor<3x8xf32>",
     "top.Attention: v is [5, 4], not [6, 4]"),
    (f"%y = top.Attention %q, %k, %v mask %m {{{HEADS}}} : tensor<3x8xf32>,"
     " tensor<5x4xf32>, tensor<5x4xf32>, tensor<5x3xf32> -> tensor<3x8xf32>",
     "top.Attention: mask is [3, 5], not [5, 3]"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS.replace('1.0', '0x7F800000')}}} :"
     " tensor<3x8xf32>, tensor<5x4xf32>, tensor<5x4xf32> -> tensor<3x8xf32>",
     "top.Attention: scale is inf, not a finite number"),
    (f"%y = top.Attention %q, %k, %v {{{HEADS}}} :"
     " tensor<3x8xf32>, tensor<5x4xf32>, tensor<5x4xf32> -> tensor<3x4xf32>",
     "top.Attention: result is [3, 8], not [3, 4]"),
    (f"%y = tpu.Attention %q, %k, %v mask %m {{{HEADS}}} : tensor<3x8xf16>,"
     " tensor<5x4xf16>, tensor<5x4xf16>, tensor<3x5xf32> -> tensor<3x8xf16>",
     "tpu.Attention: one floating-point type is needed,"
     " not q f16, k f16, v f16, mask f32, result f16"),
    # Elementwise
    ("%y = top.SiLU %x : tensor<4xf32> -> tensor<8xf32>", "top.SiLU: result is [4], not [8]"),
    ("%y = tpu.SiLU %x : tensor<4xf16> -> tensor<4xf32>",
     "tpu.SiLU: one floating-point type is needed, not x f16, result f32"),
    ("%y = top.GELU %x approximate tanh : tensor<4xf32> -> tensor<8xf32>",
     "top.GELU: result is [4], not [8]"),
    ("%y = top.SwiGLU %a, %b : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>",
     "top.SwiGLU: up is [4, 8], not [8]"),
    ("%y = top.SwiGLU %a, %b : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<8xf32>",
     "top.SwiGLU: result is [4, 8], not [8]"),
    ("%y = tpu.SwiGLU %a, %b : tensor<4x8xf16>, tensor<4x8xf32> -> tensor<4x8xf16>",
     "tpu.SwiGLU: one floating-point type is needed, not gate f16, up f32, result f16"),
    ("%y = top.Add %a, %b : tensor<4x8xf32>, tensor<4xf32> -> tensor<4x8xf32>",
     "top.Add: b [4] does not broadcast to a [4, 8]"),
    ("%y = top.Add %a, %b : tensor<4x8xf32>, tensor<8xf32> -> tensor<8xf32>",
     "top.Add: result is [4, 8], not [8]"),
    ("%y = tpu.Add %a, %b : tensor<4x8xf16>, tensor<8xf32> -> tensor<4x8xf16>",
     "tpu.Add: one floating-point type is needed, not a f16, b f32, result f16"),
    ("%y = top.AddConst %x {value = 0x7F800000 : f32} : tensor<4xf32> -> tensor<4xf32>",
     "top.AddConst: value is inf, not a finite number"),
    ("%y = top.AddConst %x {value = 1.0 : f32} : tensor<4xf32> -> tensor<8xf32>",
     "top.AddConst: result is [4], not [8]"),
    ("%y = tpu.AddConst %x {value = 1.0 : f32} : tensor<4xf16> -> tensor<4xf32>",
     "tpu.AddConst: one floating-point type is needed, not x f16, result f32"),
    # Reduction
    ("%y = top.Reduce sum %x : tensor<f32> -> tensor<f32>",
     "top.Reduce: x has at least one dimension"),
    ("%y = top.Reduce sum %x : tensor<4x8xf32> -> tensor<4xf32>",
     "top.Reduce: result is [4, 1], not [4]"),
    ("%y = tpu.Reduce sum %x : tensor<4x8xf16> -> tensor<4x1xf32>",
     "tpu.Reduce: one floating-point type is needed, not x f16, result f32"),
    # Shape
    ("%y = top.Reshape %x : tensor<4x8xf32> -> tensor<4x4xf32>",
     "top.Reshape: x [4, 8] has 32 elements, the result [4, 4] has 16"),
    ("%y = top.Reshape %x : tensor<4x8xf32> -> tensor<32xi32>",
     "top.Reshape: result holds f32, not i32"),
    ("%y = top.Permute %x {order = array<i64: 0, 2>} : tensor<4x8xf32> -> tensor<8x4xf32>",
     "top.Permute: order [0, 2] is not a permutation of 2 axes"),
    ("%y = top.Permute %x {order = array<i64: 1, 0>} : tensor<4x8xf32> -> tensor<4x8xf32>",
     "top.Permute: result is [8, 4], not [4, 8]"),
    ("%y = top.Permute %x {order = array<i64: 1, 0>} : tensor<4x8xf32> -> tensor<8x4xi32>",
     "top.Permute: result holds f32, not i32"),
    ("%y = top.Slice %x {offsets = array<i64: 0>} : tensor<4x8xf32> -> tensor<4x4xf32>",
     "top.Slice: 1 offsets for 2 axes"),
    ("%y = top.Slice %x {offsets = array<i64: 0, 0>} : tensor<4x8xf32> -> tensor<4xf32>",
     "top.Slice: the result has 1 axes, x has 2"),
    ("%y = top.Slice %x {offsets = array<i64: 0, 5>} : tensor<4x8xf32> -> tensor<4x4xf32>",
     "top.Slice: 4 elements from 5 do not lie within the 8 of axis 1"),
    ("%y = top.Slice %x {offsets = array<i64: -1, 0>} : tensor<4x8xf32> -> tensor<4x4xf32>",
     "top.Slice: 4 elements from -1 do not lie within the 4 of axis 0"),
    ("%y = top.Slice %x {offsets = array<i64: 0, 0>} : tensor<4x8xf32> -> tensor<4x4xi32>",
     "top.Slice: result holds f32, not i32"),
    ('%y = "top.Concat"() <{axis = 0 : i64}> : () -> tensor<4x8xf32>',
     "top.Concat: at least one operand is needed"),
    ("%y = top.Concat %a, %b {axis = 2 : i64} :"
     " tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x16xf32>",
     "top.Concat: axis 2 is not one of 2 axes"),
    ("%y = top.Concat %a, %b {axis = 1 : i64} :"
     " tensor<4x8xf32>, tensor<3x8xf32> -> tensor<4x16xf32>",
     "top.Concat: [3, 8] does not join [4, 8] along axis 1"),
    ("%y = top.Concat %a, %b {axis = 1 : i64} :"
     " tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>",
     "top.Concat: result is [4, 16], not [4, 8]"),
    ("%y = top.Concat %a, %b {axis = 1 : i64} :"
     " tensor<4x8xf32>, tensor<4x8xi32> -> tensor<4x16xf32>",
     "top.Concat: operand holds f32, not i32"),
    ("%y = top.Concat %a, %b {axis = 1 : i64} :"
     " tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x16xi32>",
     "top.Concat: result holds f32, not i32"),
    ("%y = top.Cast %x : tensor<4xf32> -> tensor<8xi32>", "top.Cast: result is [4], not [8]"),
]  # fmt: skip

TPU_CASES = [
    ('%y = tpu.Weight dense "" : tensor<4xf32>', "tpu.Weight: the key is empty"),
    ('%y = tpu.Weight codes "w" : tensor<4x4xf16>',
     "tpu.Weight: codes are i8 of rank 2, not tensor<4x4xf16>"),
    ('%y = tpu.Weight scale "w" : tensor<4xf16>',
     "tpu.Weight: scale is floating-point of rank 2, not tensor<4xf16>"),
    ('%y = tpu.Weight zero "w" : tensor<4x1xf16>',
     "tpu.Weight: zero is i8 of rank 2, not tensor<4x1xf16>"),
    ('%y = tpu.Weight requant "w" {scheme = "int8"} : tensor<4x2xi32>',
     "tpu.Weight: requant is i32 of shape [N, 3], not tensor<4x2xi32>"),
    ('%y = tpu.Weight input_scale "w" {scheme = "int8"} : tensor<1xf32>',
     "tpu.Weight: input_scale is f32 of shape [1, 1], not tensor<1xf32>"),
    ('%y = tpu.Weight output_scale "w" {scheme = "int8"} : tensor<1x1xf16>',
     "tpu.Weight: output_scale is f32 of shape [1, 1], not tensor<1x1xf16>"),
    ('%y = tpu.Weight dense "w" {scheme = "w4a16"} : tensor<4x4xf16>',
     "tpu.Weight: dense has no scheme"),
    ('%y = tpu.Weight codes "w" {scheme = "w5a16"} : tensor<4x4xi8>',
     "tpu.Weight: unknown quantization 'w5a16'"),
    ('%y = tpu.Weight dense "w" : tensor<4xi8>',
     "tpu.Weight: dense does not hold codes: tensor<4xi8>"),
    ('%y = tpu.Weight dense "w" {transposed} : tensor<4xf16>',
     "tpu.Weight: only a matrix is transposed, not tensor<4xf16>"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<2x4xi8>, tensor<2x1xf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: x has depth 8, codes have depth 4"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<8xi8>, tensor<2x1xf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: codes has rank 2, not 1"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2xf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: scale is [2, 1] or a column for each of equal groups of 8, not [2]"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x3xf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: scale is [2, 1] or a column for each of equal groups of 8, not [2, 3]"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s zero %z :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x2xf16> zero tensor<2x1xi8> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: zero is [2, 2], not [2, 1]"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s zero %z :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x2xf16> zero tensor<2x2xf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: zero holds i8, not f16"),
    ("%y = tpu.W4A16MatMul %x, %c scale %s :"
     " tensor<4x7xf16>, tensor<2x5xi8>, tensor<2x1xf16> -> tensor<4x2xf16>",
     "tpu.W4A16MatMul: x has depth 7, codes have depth 10"),
    ("%y = tpu.F8A16MatMul %x, %c scale %s {format = #tpu.code_format i8} :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x1xf16> -> tensor<4x2xf16>",
     "tpu.F8A16MatMul: format is f8e4m3 or f8e5m2, not i8"),
    ("%y = tpu.F8A16MatMul %x, %c scale %s zero %z {format = #tpu.code_format f8e4m3} :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x1xf16> zero tensor<2x1xi8> -> tensor<4x2xf16>",
     "tpu.F8A16MatMul: 8-bit floats have no zero points"),
    ("%y = tpu.Quantize %x scale %s : tensor<4x8xf16>, tensor<1xf32> -> tensor<4x8xi8>",
     "tpu.Quantize: scale is [1, 1], not [1]"),
    ("%y = tpu.Quantize %x scale %s : tensor<4x8xf16>, tensor<1x1xf32> -> tensor<8x4xi8>",
     "tpu.Quantize: result is [4, 8], not [8, 4]"),
    ("%y = tpu.Quantize %x scale %s : tensor<4x8xi8>, tensor<1x1xf32> -> tensor<4x8xi8>",
     "tpu.Quantize: one floating-point type is needed, not x i8"),
    ("%y = tpu.Quantize %x scale %s : tensor<4x8xf16>, tensor<1x1xf16> -> tensor<4x8xi8>",
     "tpu.Quantize: scale holds f32, not f16"),
    ("%y = tpu.Quantize %x scale %s : tensor<4x8xf16>, tensor<1x1xf32> -> tensor<4x8xf16>",
     "tpu.Quantize: result holds i8, not f16"),
    ("%y = tpu.Dequantize %x scale %s : tensor<4x8xi8>, tensor<1xf32> -> tensor<4x8xf16>",
     "tpu.Dequantize: scale is [1, 1], not [1]"),
    ("%y = tpu.Dequantize %x scale %s : tensor<4x8xi8>, tensor<1x1xf32> -> tensor<8x4xf16>",
     "tpu.Dequantize: result is [4, 8], not [8, 4]"),
    ("%y = tpu.Dequantize %x scale %s : tensor<4x8xi8>, tensor<1x1xf32> -> tensor<4x8xi32>",
     "tpu.Dequantize: one floating-point type is needed, not result i32"),
    ("%y = tpu.Dequantize %x scale %s : tensor<4x8xf16>, tensor<1x1xf32> -> tensor<4x8xf16>",
     "tpu.Dequantize: x holds i8, not f16"),
    ("%y = tpu.Dequantize %x scale %s : tensor<4x8xi8>, tensor<1x1xi32> -> tensor<4x8xf16>",
     "tpu.Dequantize: scale holds f32, not i32"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xi8>, tensor<3x7xi8>, tensor<3x3xi32> -> tensor<4x3xi8>",
     "tpu.Int8MatMul: x has depth 8, codes have depth 7"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xi8>, tensor<8xi8>, tensor<3x3xi32> -> tensor<4x3xi8>",
     "tpu.Int8MatMul: codes has rank 2, not 1"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xi8>, tensor<3x8xi8>, tensor<3x1xi32> -> tensor<4x3xi8>",
     "tpu.Int8MatMul: requant is [3, 3], not [3, 1]"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xi8>, tensor<3x8xi8>, tensor<3x3xi32> -> tensor<4x8xi8>",
     "tpu.Int8MatMul: result is [4, 3], not [4, 8]"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xf16>, tensor<3x8xi8>, tensor<3x3xi32> -> tensor<4x3xi8>",
     "tpu.Int8MatMul: x holds i8, not f16"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xi8>, tensor<3x8xf16>, tensor<3x3xi32> -> tensor<4x3xi8>",
     "tpu.Int8MatMul: codes holds i8, not f16"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xi8>, tensor<3x8xi8>, tensor<3x3xf32> -> tensor<4x3xi8>",
     "tpu.Int8MatMul: requant holds i32, not f32"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x8xi8>, tensor<3x8xi8>, tensor<3x3xi32> -> tensor<4x3xf16>",
     "tpu.Int8MatMul: result holds i8, not f16"),
    ("%y = tpu.Int8MatMul %x, %c requant %r :"
     " tensor<4x131072xi8>, tensor<3x131072xi8>, tensor<3x3xi32> -> tensor<4x3xi8>",
     "tpu.Int8MatMul: sums of 131072 products may not fit 32 bits; at most 131071 do"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s bias %b : tensor<4x8xf16>, tensor<2x8xi8>,"
     " tensor<2x1xf16>, tensor<8xf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: bias is [2], not [8]"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x1xf16> -> tensor<4x8xf16>",
     "tpu.W8A16MatMul: result is [4, 2], not [4, 8]"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s bias %b : tensor<4x8xf16>, tensor<2x8xi8>,"
     " tensor<2x1xf16>, tensor<2xf32> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: one floating-point type is needed, not x f16, bias f32"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<2x8xf16>, tensor<2x1xf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: codes holds i8, not f16"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x1xbf16> -> tensor<4x2xf16>",
     "tpu.W8A16MatMul: scale holds f16 or f32, not bf16"),
    ("%y = tpu.W8A16MatMul %x, %c scale %s :"
     " tensor<4x8xf16>, tensor<2x8xi8>, tensor<2x1xf16> -> tensor<4x2xbf16>",
     "tpu.W8A16MatMul: result holds f16 or f32, not bf16"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8xi8>, tensor<8x1xf16>, tensor<2xi32> -> tensor<2x4xf16>",
     "tpu.W8A16Gather: codes has rank 2, not 1"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8x4xi8>, tensor<8xf16>, tensor<2xi32> -> tensor<2x4xf16>",
     "tpu.W8A16Gather: scale is [8, 1], not [8]"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8x4xi8>, tensor<8x1xf16>, tensor<1x2xi32> -> tensor<2x4xf16>",
     "tpu.W8A16Gather: indices has rank 1, not 2"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8x4xi8>, tensor<8x1xf16>, tensor<2xi32> -> tensor<2x8xf16>",
     "tpu.W8A16Gather: result is [2, 4], not [2, 8]"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8x4xf16>, tensor<8x1xf16>, tensor<2xi32> -> tensor<2x4xf16>",
     "tpu.W8A16Gather: codes holds i8, not f16"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8x4xi8>, tensor<8x1xf16>, tensor<2xi8> -> tensor<2x4xf16>",
     "tpu.W8A16Gather: indices holds i32, not i8"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8x4xi8>, tensor<8x1xf16>, tensor<2xi32> -> tensor<2x4xi8>",
     "tpu.W8A16Gather: one floating-point type is needed, not result i8"),
    ("%y = tpu.W8A16Gather %c scale %s, %i :"
     " tensor<8x4xi8>, tensor<8x1xbf16>, tensor<2xi32> -> tensor<2x4xf16>",
     "tpu.W8A16Gather: scale holds f16 or f32, not bf16"),
    ("%y = tpu.Launch @k(%x) {alias = 1 : i64} : (tensor<4xf16>) -> tensor<4xf16>",
     "tpu.Launch: alias 1 is not one of 1 operands"),
    ("tpu.Launch @k(%x) {alias = 0 : i64} : (tensor<4xf16>) -> ()",
     "tpu.Launch: alias needs a result"),
    ("%y = tpu.Launch @k(%x) {alias = 0 : i64} : (tensor<4xf16>) -> tensor<8xf16>",
     "tpu.Launch: alias names an operand of type tensor<4xf16>, the result is tensor<8xf16>"),
]  # fmt: skip

PROGRAM = (
    'bdc.program @k {{op = "tpu.Add", arguments = [#bdc.argument<{access}, !gdma.global<4x4xf16>>],'
    ' gdma = #bdc.records<"">, bdc = #bdc.records<"">, local_bytes = {local_bytes} : i64}}'
)
LOCAL = "!bdc.local"
GLOBAL = "!gdma.global"

ONE = f"{LOCAL}<1x1xf32, replicated>"

MACHINE_CASES = [
    (PROGRAM.format(access="write", local_bytes=-1),
     "bdc.program: local_bytes is -1, not 0 or more"),
    (PROGRAM.format(access="read", local_bytes=0), "bdc.program: writes none of its arguments"),
    (f"%t = gdma.load %x[%i, %i] : {GLOBAL}<8x8xf16> -> {LOCAL}<4x8xf32>",
     "gdma.load does not convert: the view holds f16, the tile f32"),
    (f"%t = gdma.load %x[%i, %i] : {GLOBAL}<8x8xf16> -> {LOCAL}<4x9xf16>",
     "gdma.load: a tile of 9 columns is wider than its view of 8"),
    (f"gdma.store %t, %x[%i, %i] : {LOCAL}<1x8xf16, replicated>, {GLOBAL}<8x8xf16>",
     "gdma.store takes a tile over the lanes, not a replicated row"),
    (f"%t = gdma.gather %x[%i], %n[%i] :"
     f" {GLOBAL}<8x8xf16>, {GLOBAL}<2x8xi32> -> {LOCAL}<4x8xf16>",
     "gdma.gather: row indices are one row of i32, not !gdma.global<2x8xi32>"),
    (f"gdma.scatter %t, %x[%i], %n[%i] :"
     f" {LOCAL}<4x8xf16>, {GLOBAL}<8x8xf16>, {GLOBAL}<1x8xf32>",
     "gdma.scatter: row indices are one row of i32, not !gdma.global<1x8xf32>"),
    (f"%v = bdc.view %t[%i] : {LOCAL}<4x8xf16> -> {LOCAL}<4x4xf32>",
     "bdc.view keeps the element type"),
    (f"%v = bdc.view %t[%i] : {LOCAL}<4x8xf16> -> {LOCAL}<2x4xf16>",
     "bdc.view keeps rows and layout"),
    (f"%v = bdc.view %t[%i] : {LOCAL}<4x8xf16> -> {LOCAL}<4x16xf16>",
     "bdc.view is not wider than its tile"),
    (f"%y = bdc.mm_accumulate %s[%i], %x, %w :"
     f" {LOCAL}<4x8xf32>, {LOCAL}<4x2xf16>, {LOCAL}<2x8xf16> -> {LOCAL}<4x9xf32>",
     "bdc.mm_accumulate works in place"),
    (f"%y = bdc.mm_accumulate %s[%i], %x, %w :"
     f" {LOCAL}<4x8xf16>, {LOCAL}<4x2xf16>, {LOCAL}<2x8xf16> -> {LOCAL}<4x8xf16>",
     "bdc.mm_accumulate adds to f32"),
    (f"%y = bdc.mm %x, %w : {LOCAL}<4x2xf16>, {LOCAL}<2x8xf32> -> {LOCAL}<4x8xf16>",
     "bdc.mm: operands are of one type"),
    (f"%y = bdc.mm %x, %w : {LOCAL}<4x2xi8>, {LOCAL}<2x8xi8> -> {LOCAL}<4x8xf16>",
     "bdc.mm: the result is i32"),
    (f"%y = bdc.mm %x, %w : {LOCAL}<4x2xi32>, {LOCAL}<2x8xi32> -> {LOCAL}<4x8xi32>",
     "bdc.mm: operands are floating point, or i8"),
    (f"%y = bdc.mm_accumulate %s[%i], %x, %w :"
     f" {LOCAL}<4x8xf32>, {LOCAL}<4x2xi8>, {LOCAL}<2x8xi8> -> {LOCAL}<4x8xf32>",
     "bdc.mm_accumulate adds to i32"),
    (f"%y = bdc.mm %x, %w : {LOCAL}<4x2xf16>, {LOCAL}<2x8xf16> -> {LOCAL}<4x8xi32>",
     "bdc.mm: the result is floating point"),
    (f"%y = bdc.mm %x, %w : {LOCAL}<1x2xf16, replicated>, {LOCAL}<2x8xf16> -> {LOCAL}<1x8xf16>",
     "bdc.mm: operands lie over the lanes"),
    (f"%y = bdc.mm %x, %w : {LOCAL}<4x2xf16>, {LOCAL}<3x8xf16> -> {LOCAL}<4x8xf16>",
     "bdc.mm: reduction lengths differ: 2 and 3"),
    (f"%y = bdc.mm %x, %w : {LOCAL}<4x2xf16>, {LOCAL}<2x8xf16> -> {LOCAL}<5x8xf16>",
     "bdc.mm: 4x8 does not match the result"),
    (f"%y = bdc.dequant i8 %c, %s : {LOCAL}<4x8xf16>, {LOCAL}<4x1xf16> -> {LOCAL}<4x8xf16>",
     "bdc.dequant takes int8 codes"),
    (f"%y = bdc.dequant i8 %c, %s : {LOCAL}<4x8xi8>, {LOCAL}<4x1xi8> -> {LOCAL}<4x8xf16>",
     "bdc.dequant takes a floating-point scale"),
    (f"%y = bdc.dequant i8 %c, %s : {LOCAL}<4x8xi8>, {LOCAL}<1x4xf16> -> {LOCAL}<4x8xf16>",
     "bdc.dequant takes a scale a row, or one for each of equal groups of its columns"),
    (f"%y = bdc.dequant i8 %c, %s : {LOCAL}<4x8xi8>, {LOCAL}<4x3xf16> -> {LOCAL}<4x8xf16>",
     "bdc.dequant takes a scale a row, or one for each of equal groups of its columns"),
    (f"%y = bdc.dequant u4 %c, %s zero %z : {LOCAL}<4x4xi8>, {LOCAL}<4x2xf16>"
     f" zero {LOCAL}<4x1xi8> -> {LOCAL}<4x8xf16>",
     "bdc.dequant takes an int8 zero point for each scale"),
    (f"%y = bdc.dequant f8e5m2 %c, %s zero %z : {LOCAL}<4x8xi8>, {LOCAL}<4x2xf16>"
     f" zero {LOCAL}<4x2xi8> -> {LOCAL}<4x8xf16>",
     "bdc.dequant: 8-bit floats have no zero points"),
    (f"%y = bdc.dequant i8 %c, %s : {LOCAL}<4x8xi8>, {LOCAL}<4x1xf16> -> {LOCAL}<4x9xf16>",
     "bdc.dequant keeps the shape"),
    (f"%y = bdc.dequant i4 %c, %s : {LOCAL}<4x8xi8>, {LOCAL}<4x1xf16> -> {LOCAL}<4x8xf16>",
     "bdc.dequant keeps the shape"),
    (f"%y = bdc.dequant i8 %c, %s : {LOCAL}<4x8xi8>, {LOCAL}<4x1xf16> -> {LOCAL}<4x8xi8>",
     "bdc.dequant makes floating point"),
    (f"%y = bdc.quantize %x, %s : {LOCAL}<4x8xi8>, {ONE} -> {LOCAL}<4x8xi8>",
     "bdc.quantize takes floating point"),
    (f"%y = bdc.quantize %x, %s : {LOCAL}<4x8xf16>, {ONE} -> {LOCAL}<4x8xf16>",
     "bdc.quantize makes i8"),
    (f"%y = bdc.quantize %x, %s : {LOCAL}<4x8xf16>, {LOCAL}<1x1xf32> -> {LOCAL}<4x8xi8>",
     "bdc.quantize takes one replicated f32 scale"),
    (f"%y = bdc.quantize %x, %s : {LOCAL}<4x8xf16>, {ONE} -> {LOCAL}<4x9xi8>",
     "bdc.quantize keeps the shape"),
    (f"%y = bdc.quantize %x, %s : {LOCAL}<1x8xf16>, {ONE} -> {LOCAL}<1x8xi8, replicated>",
     "bdc.quantize works on tiles over the lanes"),
    (f"%y = bdc.dequantize %x, %s : {LOCAL}<4x8xf16>, {ONE} -> {LOCAL}<4x8xf16>",
     "bdc.dequantize takes i8"),
    (f"%y = bdc.dequantize %x, %s : {LOCAL}<4x8xi8>, {ONE} -> {LOCAL}<4x8xi8>",
     "bdc.dequantize makes floating point"),
    (f"%y = bdc.dequantize %x, %s : {LOCAL}<4x8xi8>, {LOCAL}<1x1xf16, replicated>"
     f" -> {LOCAL}<4x8xf16>",
     "bdc.dequantize takes one replicated f32 scale"),
    (f"%y = bdc.dequantize %x, %s : {LOCAL}<4x8xi8>, {ONE} -> {LOCAL}<5x8xf16>",
     "bdc.dequantize keeps the shape"),
    (f"%y = bdc.dequantize %x, %s : {LOCAL}<1x8xi8, replicated>, {ONE} -> {LOCAL}<1x8xf16>",
     "bdc.dequantize works on tiles over the lanes"),
    (f"%y = bdc.requant %x, %t : {LOCAL}<4x8xf32>, {LOCAL}<4x3xi32> -> {LOCAL}<4x8xi8>",
     "bdc.requant takes i32"),
    (f"%y = bdc.requant %x, %t : {LOCAL}<4x8xi32>, {LOCAL}<4x3xi32> -> {LOCAL}<4x8xi32>",
     "bdc.requant makes i8"),
    (f"%y = bdc.requant %x, %t : {LOCAL}<4x8xi32>, {LOCAL}<4x2xi32> -> {LOCAL}<4x8xi8>",
     "bdc.requant takes three columns of i32 a row"),
    (f"%y = bdc.requant %x, %t : {LOCAL}<1x8xi32>, {LOCAL}<1x3xi32, replicated>"
     f" -> {LOCAL}<1x8xi8>",
     "bdc.requant takes a table over the lanes"),
    (f"%y = bdc.requant %x, %t : {LOCAL}<4x8xi32>, {LOCAL}<4x3xi32> -> {LOCAL}<4x9xi8>",
     "bdc.requant keeps the shape"),
    (f"%y = bdc.requant %x, %t : {LOCAL}<1x8xi32, replicated>, {LOCAL}<1x3xi32>"
     f" -> {LOCAL}<1x8xi8>",
     "bdc.requant works on tiles over the lanes"),
    (f"%y = bdc.unary exp %x : {LOCAL}<4x8xi8> -> {LOCAL}<4x8xf16>",
     "bdc.unary works on floating point"),
    (f"%y = bdc.binary add %x, %y0 : {LOCAL}<4x8xf16>, {LOCAL}<4x8xi32> -> {LOCAL}<4x8xf16>",
     "bdc.binary works on floating point"),
    (f"%y = bdc.scalar add %x {{value = 1.0 : f32}} : {LOCAL}<4x8xf16> -> {LOCAL}<4x8xi32>",
     "bdc.scalar works on floating point"),
    (f"%y = bdc.reduce sum %x : {LOCAL}<4x8xi8> -> {LOCAL}<4x1xf32>",
     "bdc.reduce works on floating point"),
    (f"%y = bdc.rotate %x {{rotary_dim = 4 : i64, interleaved = true}} :"
     f" {LOCAL}<4x8xi8> -> {LOCAL}<4x8xf32>",
     "bdc.rotate works on floating point"),
    (f"%y = bdc.unary exp %x : {LOCAL}<4x8xf16> -> {LOCAL}<4x4xf16>",
     "bdc.unary keeps the shape"),
    (f"%y = bdc.unary exp %x : {LOCAL}<1x8xf16> -> {LOCAL}<1x8xf16, replicated>",
     "bdc.unary keeps the layout"),
    (f"%y = bdc.binary add %x, %y0 : {LOCAL}<4x8xf16>, {LOCAL}<4x8xf16> -> {LOCAL}<4x4xf16>",
     "bdc.binary: the result has the left operand's shape"),
    (f"%y = bdc.binary add %x, %y0 :"
     f" {LOCAL}<1x8xf16>, {LOCAL}<1x8xf16> -> {LOCAL}<1x8xf16, replicated>",
     "bdc.binary: the result has the left layout"),
    (f"%y = bdc.binary add %x, %y0 : {LOCAL}<4x8xf16>, {LOCAL}<1x8xf16> -> {LOCAL}<4x8xf16>",
     "bdc.binary: the right operand meets neither rows nor columns"),
    (f"%y = bdc.scalar mul %x {{value = 1.0 : f32}} : {LOCAL}<4x8xf16> -> {LOCAL}<4x4xf16>",
     "bdc.scalar keeps the shape"),
    (f"%y = bdc.scalar mul %x {{value = 1.0 : f32}} :"
     f" {LOCAL}<1x8xf16> -> {LOCAL}<1x8xf16, replicated>",
     "bdc.scalar keeps the layout"),
    (f"%y = bdc.reduce sum %x : {LOCAL}<4x8xf16> -> {LOCAL}<4x2xf16>",
     "bdc.reduce leaves one column"),
    (f"%y = bdc.reduce sum %x : {LOCAL}<1x8xf16, replicated> -> {LOCAL}<1x1xf16>",
     "bdc.reduce works over the lanes"),
    (f"%y = bdc.transpose %x : {LOCAL}<4x8xf16> -> {LOCAL}<4x8xf16>",
     "bdc.transpose swaps the dimensions"),
    (f"%y = bdc.transpose %x : {LOCAL}<4x8xf16> -> {LOCAL}<8x4xf32>",
     "bdc.transpose keeps the element type"),
    (f"%y = bdc.transpose %x : {LOCAL}<1x8xf16, replicated> -> {LOCAL}<8x1xf16>",
     "bdc.transpose works over the lanes"),
    (f"%y = bdc.rotate %x {{rotary_dim = 4 : i64, interleaved = true}} :"
     f" {LOCAL}<4x8xf16> -> {LOCAL}<4x4xf16>",
     "bdc.rotate keeps the shape"),
    (f"%y = bdc.rotate %x {{rotary_dim = 3 : i64, interleaved = true}} :"
     f" {LOCAL}<4x8xf16> -> {LOCAL}<4x8xf16>",
     "bdc.rotate: rotary_dim 3 is not an even number up to 8"),
]  # fmt: skip

# The other moves have the rules of a load, on their own text.
_MOVES = [
    ("gdma.store", "gdma.store %t, %x[%i, %i] : {tile}, {view}"),
    ("gdma.gather", f"%t = gdma.gather %x[%i], %n[%i] : {{view}}, {GLOBAL}<1x8xi32> -> {{tile}}"),
    ("gdma.scatter", f"gdma.scatter %t, %x[%i], %n[%i] : {{tile}}, {{view}}, {GLOBAL}<1x8xi32>"),
]
for name, text in _MOVES:
    MACHINE_CASES.extend(
        [
            (
                text.format(tile=f"{LOCAL}<4x8xf32>", view=f"{GLOBAL}<8x8xf16>"),
                f"{name} does not convert: the view holds f16, the tile f32",
            ),
            (
                text.format(tile=f"{LOCAL}<4x9xf16>", view=f"{GLOBAL}<8x8xf16>"),
                f"{name}: a tile of 9 columns is wider than its view of 8",
            ),
        ]
    )

# `bdc.mm_accumulate` has the rules of `bdc.mm`.
_ACCUMULATE = [
    ("4x8xf32", "4x2xf16", "2x8xbf16", "operands are of one type"),
    ("4x8xf32", "4x2xi32", "2x8xi32", "operands are floating point, or i8"),
    ("1x8xf32", "1x2xf16, replicated", "2x8xf16", "operands lie over the lanes"),
    ("4x8xf32", "4x2xf16", "3x8xf16", "reduction lengths differ: 2 and 3"),
    ("5x8xf32", "4x2xf16", "2x8xf16", "4x8 does not match the result"),
]
MACHINE_CASES.extend(
    [
        (
            f"%y = bdc.mm_accumulate %s[%i], %x, %w :"
            f" {LOCAL}<{sums}>, {LOCAL}<{left}>, {LOCAL}<{right}> -> {LOCAL}<{sums}>",
            f"bdc.mm_accumulate: {message}",
        )
        for sums, left, right, message in _ACCUMULATE
    ]
)

TYPE_CASES = [
    ("!gdma.global<4x8xf16, pitch = 8>",
     "gdma.global: a pitch of 8 bytes is shorter than a row of 16 bytes"),
    ("!bdc.local<4x8xf16, replicated>", "bdc.local: a replicated tile has one row, not 4"),
    ("!bdc.local<0x8xf16>", "bdc.local: needs at least one row and one column, has 0x8"),
]  # fmt: skip


CASES = [*TOP_CASES, *TPU_CASES, *MACHINE_CASES]


@pytest.mark.parametrize(("text", "message"), CASES)
def test_illegal_op_is_refused(text: str, message: str) -> None:
    module = parse_example(text)
    with pytest.raises(VerifyException) as refused:
        module.verify()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(("text", "message"), TYPE_CASES)
def test_illegal_type_is_refused(text: str, message: str) -> None:
    with pytest.raises(VerifyException) as refused:
        parse_example(f'"bdc.view"(%x, %i) : ({text}, index) -> {text}')
    assert message in str(refused.value)


def _pattern(sentence: str) -> re.Pattern[str]:
    """A documented message as a pattern: `...` and words in capitals stand for anything."""
    escaped = re.escape(sentence).replace(re.escape("..."), ".*")
    return re.compile(r"(\w+\.\w+: )?" + re.sub(r"\b[A-Z]+(\\\*[A-Z]+)?\b'?", ".+", escaped))


@pytest.mark.parametrize("doc", op_reference(), ids=lambda doc: doc.name)
def test_every_documented_sentence_has_a_case(doc: OpDoc) -> None:
    messages = [message for _, message in CASES]
    for invariant in doc.invariants:
        for sentence in re.findall(r"`([^`]*)`", invariant):
            pattern = _pattern(sentence)
            assert any(pattern.fullmatch(message) for message in messages), sentence
