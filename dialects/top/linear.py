"""`top` matrix products."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.top.base import TopOp


@irdl_op_definition
class MatMulOp(TopOp, graph.MatMul):
    """Linear layer.

    ```mlir
    %y = top.MatMul %x, %w bias %b {right_transpose} :
      tensor<512x4096xf32>, tensor<4608x4096xf32>, tensor<4608xf32> -> tensor<512x4608xf32>
    ```
    """

    name = "top.MatMul"


@irdl_op_definition
class BatchMatMulOp(TopOp, graph.BatchMatMul):
    """Batched matrix product.

    ```mlir
    %y = top.BatchMatMul %a, %b {right_transpose} :
      tensor<32x512x128xf32>, tensor<32x512x128xf32> -> tensor<32x512x512xf32>
    ```
    """

    name = "top.BatchMatMul"
