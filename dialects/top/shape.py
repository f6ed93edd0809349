"""`top` ops that move or convert elements without computing."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.top.base import TopOp


@irdl_op_definition
class ReshapeOp(TopOp, graph.Reshape):
    """Another shape for the same elements.

    ```mlir
    %y = top.Reshape %x : tensor<512x4096xf32> -> tensor<512x32x128xf32>
    ```
    """

    name = "top.Reshape"


@irdl_op_definition
class PermuteOp(TopOp, graph.Permute):
    """Reorder the axes.

    ```mlir
    %y = top.Permute %x {order = array<i64: 1, 0, 2>} :
      tensor<512x32x128xf32> -> tensor<32x512x128xf32>
    ```
    """

    name = "top.Permute"


@irdl_op_definition
class SliceOp(TopOp, graph.Slice):
    """Cut a box out of a tensor.

    ```mlir
    %q = top.Slice %qkv {offsets = array<i64: 0, 4096>} :
      tensor<512x4608xf32> -> tensor<512x256xf32>
    ```
    """

    name = "top.Slice"


@irdl_op_definition
class ConcatOp(TopOp, graph.Concat):
    """Join tensors along an axis.

    ```mlir
    %y = top.Concat %a, %b {axis = 1 : i64} :
      tensor<512x4096xf32>, tensor<512x256xf32> -> tensor<512x4352xf32>
    ```
    """

    name = "top.Concat"


@irdl_op_definition
class CastOp(TopOp, graph.Cast):
    """Convert the element type.

    ```mlir
    %y = top.Cast %x : tensor<512xi32> -> tensor<512xf32>
    ```
    """

    name = "top.Cast"
