"""Lowerings of linear layers: matrices as they are, or as int8 codes with a scale a row."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import F32, ElementType
from tilewright.passes.lowerings.conversion import Conversion, is_head, is_returned
from tilewright.passes.lowerings.registry import lowering


@lowering(top.MatMulOp, quant="w8a16", name="LowerMatMulToW8A16")
def lower_matmul_to_w8a16(op: top.MatMulOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """A product with a weight reads the weight's int8 codes; the head's only if `quant_head`.

    top.MatMul %x, %w -> tpu.W8A16MatMul %x, %codes scale %scale
    """
    weight = op.right.owner
    if not isinstance(weight, top.WeightOp):
        return None
    if is_head(op) and not convert.options.quant_head:
        return None
    x = convert.read(op.x, convert.compute)
    codes, scale = convert.codes_and_scale(weight, transposed=op.right_transpose is None)
    bias = None if op.bias is None else convert.read(op.bias, convert.compute)
    element = _result_element(op, convert)
    return convert.append(tpu.W8A16MatMulOp(x, codes, scale, bias, element=element), op)


@lowering(top.MatMulOp, name="LowerMatMul")
def lower_matmul(op: top.MatMulOp, convert: Conversion) -> Sequence[SSAValue]:
    """A product in the compute type.

    top.MatMul %x, %w -> tpu.MatMul %x, %w
    """
    x = convert.read(op.x, convert.compute)
    right = convert.read(op.right, convert.compute)
    bias = None if op.bias is None else convert.read(op.bias, convert.compute)
    product = tpu.MatMulOp(
        x,
        right,
        bias,
        right_transpose=op.right_transpose is not None,
        element=_result_element(op, convert),
    )
    return convert.append(product, op)


def _result_element(op: top.MatMulOp, convert: Conversion) -> ElementType:
    """f32 for logits, and for a product that a public function returns."""
    is_output = convert.is_public and is_returned(op.result)
    return F32 if is_head(op) or is_output else convert.compute
