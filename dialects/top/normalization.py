"""`top` normalizations over the last axis."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.top.base import TopOp


@irdl_op_definition
class RMSNormOp(TopOp, graph.RMSNorm):
    """Root mean square normalization.

    ```mlir
    %y = top.RMSNorm %x weight %w {eps = 9.99999974E-6 : f32} :
      tensor<512x4096xf32>, tensor<4096xf32> -> tensor<512x4096xf32>
    ```
    """

    name = "top.RMSNorm"


@irdl_op_definition
class LayerNormOp(TopOp, graph.LayerNorm):
    """Layer normalization.

    ```mlir
    %y = top.LayerNorm %x weight %w : tensor<768xf32> bias %b : tensor<768xf32>
      {eps = 9.99999974E-6 : f32} : tensor<512x768xf32> -> tensor<512x768xf32>
    ```
    """

    name = "top.LayerNorm"


@irdl_op_definition
class SoftmaxOp(TopOp, graph.Softmax):
    """Softmax over the last axis.

    ```mlir
    %y = top.Softmax %x : tensor<32x512xf32> -> tensor<32x512xf32>
    ```
    """

    name = "top.Softmax"
