"""`tpu` gates of feed-forward layers."""

from __future__ import annotations

from xdsl.irdl import irdl_op_definition

from tilewright.dialects.element_types import F32
from tilewright.dialects.graph.base import Value, storage_of
from tilewright.dialects.graph.gated import SwiGLU
from tilewright.dialects.tpu.base import TpuOp
from tilewright.dialects.tpu.elementwise import MulOp, SiLUOp
from tilewright.dialects.tpu.shape import CastOp


@irdl_op_definition
class SwiGLUOp(TpuOp, SwiGLU):
    """The gate of Llama's feed-forward layer.

    ```mlir
    %y = tpu.SwiGLU %gate, %up :
      tensor<512x13696xf16>, tensor<512x13696xf16> -> tensor<512x13696xf16>
    ```
    """

    name = "tpu.SwiGLU"

    def decompose(self, gate: Value, up: Value) -> Value:
        wide = [x if storage_of(x) == F32 else CastOp(x, F32).result for x in (gate, up)]
        return MulOp(SiLUOp(wide[0]).result, wide[1]).result
