"""The lowering of rotary position embedding."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import F32
from tilewright.passes.lowerings.conversion import Conversion
from tilewright.passes.lowerings.registry import lowering


@lowering(top.RopeOp)
def lower_rope(op: top.RopeOp, convert: Conversion) -> Sequence[SSAValue]:
    """The tables stay f32 in every mode.

    top.Rope %x cos %cos sin %sin -> tpu.Rope %x cos %cos sin %sin
    """
    operands = [
        convert.read(op.x, convert.compute),
        convert.read(op.cos, F32),
        convert.read(op.sin, F32),
    ]
    return convert.append_same(op, tpu.RopeOp, operands, convert.compute)
