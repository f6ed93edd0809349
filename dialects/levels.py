"""Which level of the compiler an op belongs to, whatever dialect it is of."""

from __future__ import annotations

from xdsl.ir import Operation

from tilewright.dialects.top.base import TopOp
from tilewright.dialects.tpu.base import TpuOp


def level_of(op: Operation) -> str:
    """`"top"` for a `TopOp` and `"tpu"` for a `TpuOp`, of any dialect; else the op's dialect."""
    if isinstance(op, TopOp):
        return "top"
    if isinstance(op, TpuOp):
        return "tpu"
    return op.dialect_name()
