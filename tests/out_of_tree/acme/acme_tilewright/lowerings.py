"""How the squared ReLU of a model becomes one in storage types."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.passes.lowerings import Conversion, lowering
from xdsl.ir import SSAValue

from acme_tilewright.dialect import SquaredReluOp, TpuSquaredReluOp


@lowering(SquaredReluOp)
def lower_squared_relu(op: SquaredReluOp, convert: Conversion) -> Sequence[SSAValue]:
    """acme.SquaredRelu %x -> acme.tpu.SquaredRelu %x, in the compute type"""
    return convert.append(TpuSquaredReluOp(convert.read(op.x, convert.compute)), op)
