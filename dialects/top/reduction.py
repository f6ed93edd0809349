"""`top` reductions over the last axis."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects import graph
from tilewright.dialects.top.base import TopOp


@irdl_op_definition
class ReduceOp(TopOp, graph.Reduce):
    """Reduce the last axis to one element: `sum`, `mean`, `max` or `min`.

    ```mlir
    %y = top.Reduce mean %x : tensor<512x4096xf32> -> tensor<512x1xf32>
    ```
    """

    name = "top.Reduce"
