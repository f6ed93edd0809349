"""`top` gates of feed-forward layers."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.gated import SwiGLU
from tilewright.dialects.top.base import TopOp
from tilewright.dialects.top.elementwise import MulOp, SiLUOp


@irdl_op_definition
class SwiGLUOp(TopOp, SwiGLU):
    """The gate of Llama's feed-forward layer.

    ```mlir
    %y = top.SwiGLU %gate, %up :
      tensor<512x13696xf32>, tensor<512x13696xf32> -> tensor<512x13696xf32>
    ```
    """

    name = "top.SwiGLU"

    def decompose(self, gate: Value, up: Value) -> Value:
        return MulOp(SiLUOp(gate).result, up).result
