"""`top` attention and rotary position embedding."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.top.base import TopOp


@irdl_op_definition
class RopeOp(TopOp, graph.Rope):
    """Rotary position embedding.

    ```mlir
    %y = top.Rope %x cos %cos sin %sin
      {num_heads = 32 : i64, rotary_dim = 64 : i64, interleaved = true} :
      tensor<512x4096xf32>, tensor<512x128xf32>, tensor<512x128xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.Rope"


@irdl_op_definition
class AttentionOp(TopOp, graph.Attention):
    """Scaled dot-product attention over grouped heads.

    ```mlir
    %y = top.Attention %q, %k, %v mask %mask
      {num_heads = 32 : i64, num_kv_heads = 2 : i64, scale = 1.250000e-01 : f32} :
      tensor<512x4096xf32>, tensor<512x256xf32>, tensor<512x256xf32>, tensor<512x512xf32>
      -> tensor<512x4096xf32>
    ```
    """

    name = "top.Attention"
