"""Lowerings of ops that move elements of any type, and of the cast between types."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Operation, SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.graph import storage_of
from tilewright.passes.lowerings.conversion import Conversion
from tilewright.passes.lowerings.registry import lowering


@lowering(top.ReshapeOp)
def lower_reshape(op: top.ReshapeOp, convert: Conversion) -> Sequence[SSAValue]:
    """top.Reshape %x -> tpu.Reshape %x, in the type of %x"""
    return _move(op, tpu.ReshapeOp, convert)


@lowering(top.SliceOp)
def lower_slice(op: top.SliceOp, convert: Conversion) -> Sequence[SSAValue]:
    """top.Slice %x -> tpu.Slice %x, in the type of %x"""
    return _move(op, tpu.SliceOp, convert)


@lowering(top.PermuteOp)
def lower_permute(op: top.PermuteOp, convert: Conversion) -> Sequence[SSAValue]:
    """top.Permute %x -> tpu.Permute %x, in the type of %x"""
    return _move(op, tpu.PermuteOp, convert)


@lowering(top.ConcatOp)
def lower_concat(op: top.ConcatOp, convert: Conversion) -> Sequence[SSAValue]:
    """top.Concat %xs -> tpu.Concat %xs, in their type; if they differ, in the compute type"""
    return _move(op, tpu.ConcatOp, convert)


def _move(op: Operation, new_class: type[Operation], convert: Conversion) -> Sequence[SSAValue]:
    operands = [convert.read(value) for value in op.operands]
    elements = dict.fromkeys(storage_of(operand) for operand in operands)
    element = next(iter(elements)) if len(elements) == 1 else convert.compute
    operands = [convert.read(value, element) for value in op.operands]
    return convert.append_same(op, new_class, operands, element)


@lowering(top.CastOp)
def lower_cast(op: top.CastOp, convert: Conversion) -> Sequence[SSAValue]:
    """A cast to a float is one to the compute type.

    top.Cast %x -> tpu.Cast %x
    """
    target = storage_of(op.result)
    element = convert.compute if target.is_float else target
    return convert.append(tpu.CastOp(convert.read(op.x), element), op)
