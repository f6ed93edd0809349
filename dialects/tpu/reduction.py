"""`tpu` reductions over the last axis."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.tpu.base import TpuOp


@irdl_op_definition
class ReduceOp(TpuOp, graph.Reduce):
    """Reduce the last axis to one element: `sum`, `mean`, `max` or `min`.

    ```mlir
    %y = tpu.Reduce mean %x : tensor<512x4096xf16> -> tensor<512x1xf16>
    ```
    """

    name = "tpu.Reduce"
