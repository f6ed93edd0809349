"""The dialect `acme`: the squared ReLU of Primer, on both levels of the compiler.

An op that derives `TopOp` may stand in models, one that derives `TpuOp` in what they are lowered
to. What both share (operands, meaning, rules on types) stands in their common base.
"""

from __future__ import annotations

from tilewright.dialects import graph
from tilewright.dialects.top.base import TopOp
from tilewright.dialects.tpu.base import TpuOp
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition


class SquaredRelu(graph.UnaryGraphOp):
    """`max(x, 0)^2` (So et al., Primer, arXiv 2109.08668). `x` and the result are of one shape."""


@irdl_op_definition
class SquaredReluOp(TopOp, SquaredRelu):
    """`result = max(x, 0)^2`.

    ```mlir
    %y = acme.SquaredRelu %x : tensor<4x64xf32> -> tensor<4x64xf32>
    ```
    """

    name = "acme.SquaredRelu"


@irdl_op_definition
class TpuSquaredReluOp(TpuOp, SquaredRelu):
    """`result = max(x, 0)^2`, in storage types.

    ```mlir
    %y = acme.tpu.SquaredRelu %x : tensor<4x64xf16> -> tensor<4x64xf16>
    ```
    """

    name = "acme.tpu.SquaredRelu"


Acme = Dialect("acme", [SquaredReluOp, TpuSquaredReluOp])
