"""The lowerings of composite `top` ops: to the `tpu` op that is declared for them, or else to what
their parts become."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Operation, SSAValue

from tilewright.dialects import top
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.dialects.levels import level_of
from tilewright.passes.lowerings.conversion import Conversion
from tilewright.passes.lowerings.registry import lowering, lowerings_of


@lowering(CompositeOp, benefit=3, quant="w8a16")
def lower_composite_to_w8a16(op: CompositeOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """acme.MatMulGELU %x, %w -> acme.tpu.W8A16MatMulGELU %x, %codes, %scale, where there is one"""
    if op.QUANTIZED_TWIN is None:
        return None
    operands: list[SSAValue | None] = []
    for name, _ in op.get_irdl_definition().operands:
        value: SSAValue | None = getattr(op, name)
        if name in op.QUANTIZED:
            if value is None or not isinstance(value.owner, top.WeightOp):
                return None
            operands += convert.codes_and_scale(value.owner)
        else:
            operands.append(None if value is None else convert.read(value, convert.compute))
    made = op.QUANTIZED_TWIN(*operands, element=convert.compute, **op.properties)
    return convert.append(made, op)


@lowering(CompositeOp, benefit=2)
def lower_composite_to_twin(op: CompositeOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """acme.GatedRMSNorm %x, ... -> acme.tpu.GatedRMSNorm %x, ..., where the class names its TWIN"""
    if op.TWIN is None or level_of(op) != "top":
        return None
    operands = [convert.read(value, convert.compute) for value in op.operands]
    return convert.append_same(op, op.TWIN, operands, convert.compute)


@lowering(CompositeOp)
def lower_composite_by_parts(op: CompositeOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """acme.GatedRMSNorm %x, ... -> what the ops of its decomposition become, one after the other"""
    if level_of(op) != "top":
        return None
    parts, result = op.parts(op.operands)
    try:
        for part in parts:
            part.location = op.location
            lowered = _lower(part, convert)
            if lowered is None:
                return None
            convert.values.update(zip(part.results, lowered, strict=True))
        return [convert.read(result)]
    finally:
        for part in reversed(parts):
            part.erase()


def _lower(op: Operation, convert: Conversion) -> Sequence[SSAValue] | None:
    """What the first lowering that applies makes of `op`."""
    mark = convert.mark()
    for each in lowerings_of(type(op), convert.options):
        results = each.lower(op, convert)
        if results is not None:
            return results
        convert.take_back(mark)
    return None
