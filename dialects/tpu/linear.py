"""`tpu` matrix products."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.tpu.base import TpuOp


@irdl_op_definition
class MatMulOp(TpuOp, graph.MatMul):
    """Linear layer. With 16-bit operands the result may be f32.

    ```mlir
    %y = tpu.MatMul %x, %w bias %b {right_transpose} :
      tensor<512x4096xf16>, tensor<4608x4096xf16>, tensor<4608xf16> -> tensor<512x4608xf16>
    ```
    """

    name = "tpu.MatMul"


@irdl_op_definition
class BatchMatMulOp(TpuOp, graph.BatchMatMul):
    """Batched matrix product.

    ```mlir
    %y = tpu.BatchMatMul %a, %b {right_transpose} :
      tensor<32x512x128xf16>, tensor<32x512x128xf16> -> tensor<32x512x512xf16>
    ```
    """

    name = "tpu.BatchMatMul"
