"""Lowerings of lookups: of a table as it is, or of int8 codes with a scale a row."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.quantization import DEFAULT_SCHEME, DENSE
from tilewright.passes.lowerings.conversion import Conversion, role_of
from tilewright.passes.lowerings.registry import lowering
from tilewright.passes.specialize_weights import QUANT_ATTRIBUTE


@lowering(top.GatherOp, name="LowerGatherToW8A16", benefit=2)
def lower_gather_to_w8a16(op: top.GatherOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """The embedding picks rows of int8 codes, whatever the scheme of the linear layers is: if
    `quant_embedding`, or if its weight is marked as `w8a16`.

    top.Gather %table, %ids -> tpu.W8A16Gather %codes scale %scale, %ids
    """
    table = op.table.owner
    if role_of(op) != "embedding" or not isinstance(table, top.WeightOp):
        return None
    is_marked = QUANT_ATTRIBUTE in table.attributes
    wanted = convert.options.quant_embedding and convert.options.quant not in DENSE
    if convert.quant_of(table) != DEFAULT_SCHEME if is_marked else not wanted:
        return None
    codes, scale = convert.codes_and_scale(table)
    indices = convert.read(op.indices)
    return convert.append(tpu.W8A16GatherOp(codes, scale, indices, element=convert.compute), op)


@lowering(top.GatherOp)
def lower_gather(op: top.GatherOp, convert: Conversion) -> Sequence[SSAValue]:
    """A lookup keeps the type of its table.

    top.Gather %table, %ids -> tpu.Gather %table, %ids
    """
    return convert.append(tpu.GatherOp(convert.read(op.table), convert.read(op.indices)), op)
