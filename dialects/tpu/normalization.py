"""`tpu` normalizations over the last axis."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.tpu.base import TpuOp


@irdl_op_definition
class RMSNormOp(TpuOp, graph.RMSNorm):
    """Root mean square normalization.

    ```mlir
    %y = tpu.RMSNorm %x weight %w {eps = 9.99999974E-6 : f32} :
      tensor<512x4096xf16>, tensor<4096xf16> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.RMSNorm"


@irdl_op_definition
class LayerNormOp(TpuOp, graph.LayerNorm):
    """Layer normalization.

    ```mlir
    %y = tpu.LayerNorm %x weight %w : tensor<768xf16> bias %b : tensor<768xf16>
      {eps = 9.99999974E-6 : f32} : tensor<512x768xf16> -> tensor<512x768xf16>
    ```
    """

    name = "tpu.LayerNorm"


@irdl_op_definition
class SoftmaxOp(TpuOp, graph.Softmax):
    """Softmax over the last axis.

    ```mlir
    %y = tpu.Softmax %x : tensor<32x512xf16> -> tensor<32x512xf16>
    ```
    """

    name = "tpu.Softmax"
