"""`tpu` ops that move or convert elements without computing."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.tpu.base import TpuOp


@irdl_op_definition
class ReshapeOp(TpuOp, graph.Reshape):
    """Another shape for the same elements.

    ```mlir
    %y = tpu.Reshape %x : tensor<512x4096xf16> -> tensor<512x32x128xf16>
    ```
    """

    name = "tpu.Reshape"


@irdl_op_definition
class PermuteOp(TpuOp, graph.Permute):
    """Reorder the axes.

    ```mlir
    %y = tpu.Permute %x {order = array<i64: 1, 0, 2>} :
      tensor<512x32x128xf16> -> tensor<32x512x128xf16>
    ```
    """

    name = "tpu.Permute"


@irdl_op_definition
class SliceOp(TpuOp, graph.Slice):
    """Cut a box out of a tensor.

    ```mlir
    %q = tpu.Slice %qkv {offsets = array<i64: 0, 4096>} :
      tensor<512x4608xf16> -> tensor<512x256xf16>
    ```
    """

    name = "tpu.Slice"


@irdl_op_definition
class ConcatOp(TpuOp, graph.Concat):
    """Join tensors along an axis.

    ```mlir
    %y = tpu.Concat %a, %b {axis = 1 : i64} :
      tensor<512x4096xf16>, tensor<512x256xf16> -> tensor<512x4352xf16>
    ```
    """

    name = "tpu.Concat"


@irdl_op_definition
class CastOp(TpuOp, graph.Cast):
    """Convert the element type.

    ```mlir
    %y = tpu.Cast %x : tensor<512x4096xf32> -> tensor<512x4096xf16>
    ```
    """

    name = "tpu.Cast"
