"""The lowering of every other `top` op: the `tpu` op of the same name, in the compute type."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Operation, SSAValue

from tilewright.dialects import top, tpu
from tilewright.passes.lowerings.conversion import Conversion
from tilewright.passes.lowerings.registry import lowering

_TPU_OPS: dict[str, type[Operation]] = {
    op.name.removeprefix("tpu."): op for op in tpu.Tpu.operations
}


@lowering(top.TopOp)
def lower_to_same_op(op: top.TopOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """top.SiLU %x -> tpu.SiLU %x; so for every op of `top` that `tpu` has too"""
    dialect, _, name = op.name.partition(".")
    if dialect != "top" or name not in _TPU_OPS:
        return None
    operands = [convert.read(value, convert.compute) for value in op.operands]
    return convert.append_same(op, _TPU_OPS[name], operands, convert.compute)
