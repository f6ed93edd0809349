"""Lowerings of linear layers: matrices as they are, or quantized."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.quantization import (
    DEFAULT_SCHEME,
    DENSE,
    CodeFormat,
    Scheme,
    parse_scheme,
)
from tilewright.passes.lowerings.conversion import Conversion, is_head, is_returned
from tilewright.passes.lowerings.registry import lowering
from tilewright.passes.specialize_weights import QUANT_ATTRIBUTE


@lowering(top.MatMulOp, name="LowerMatMulToW8A16", benefit=2)
def lower_matmul_to_w8a16(op: top.MatMulOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """A product with a weight reads the weight's int8 codes; the head's only if `quant_head`.

    top.MatMul %x, %w -> tpu.W8A16MatMul %x, %codes scale %scale
    """
    return _lower_to_a16(op, convert, tpu.W8A16MatMulOp, (CodeFormat.I8,))


@lowering(top.MatMulOp, name="LowerMatMulToW4A16", benefit=2)
def lower_matmul_to_w4a16(op: top.MatMulOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """A product with a weight reads the weight's int4 codes; the head's only if `quant_head`.

    top.MatMul %x, %w -> tpu.W4A16MatMul %x, %codes scale %scale zero %zero
    """
    return _lower_to_a16(op, convert, tpu.W4A16MatMulOp, (CodeFormat.I4, CodeFormat.U4))


@lowering(top.MatMulOp, name="LowerMatMulToF8A16", benefit=2)
def lower_matmul_to_f8a16(op: top.MatMulOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """A product with a weight reads the weight's 8-bit floats; the head's only if `quant_head`.

    top.MatMul %x, %w -> tpu.F8A16MatMul %x, %codes scale %scale
    """
    return _lower_to_a16(op, convert, tpu.F8A16MatMulOp, (CodeFormat.F8E4M3, CodeFormat.F8E5M2))


def _lower_to_a16(
    op: top.MatMulOp,
    convert: Conversion,
    op_class: type[tpu.A16MatMul],
    formats: tuple[CodeFormat, ...],
) -> Sequence[SSAValue] | None:
    """`op_class` for a product with a weight whose scheme has codes of one of `formats`."""
    scheme = scheme_of(op, convert)
    if scheme is None or scheme.int8_activations or scheme.format not in formats:
        return None
    weight = op.right.owner
    assert isinstance(weight, top.WeightOp)
    x = convert.read(op.x, convert.compute)
    parts = convert.quantized(weight, scheme, transposed=op.right_transpose is None)
    bias = None if op.bias is None else convert.read(op.bias, convert.compute)
    code_format = scheme.format
    product = op_class(
        x,
        parts.codes,
        parts.scale,
        bias,
        zero=parts.zero,
        element=result_element(op, convert),
        properties={"format": tpu.CodeFormatAttr(code_format)} if code_format.is_float else {},
    )
    return convert.append(product, op)


def scheme_of(op: top.MatMulOp, convert: Conversion) -> Scheme | None:
    """The scheme of the weight of a linear layer; none where it stays dense.

    An int8 head has int8 weights only: logits of 8 bits would tie.
    """
    weight = op.right.owner
    if not isinstance(weight, top.WeightOp):
        return None
    if is_head(op) and not convert.options.quant_head and QUANT_ATTRIBUTE not in weight.attributes:
        return None
    quant = convert.quant_of(weight)
    if quant in DENSE:
        return None
    scheme = parse_scheme(quant)
    return parse_scheme(DEFAULT_SCHEME) if scheme.int8_activations and is_head(op) else scheme


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
        element=result_element(op, convert),
    )
    return convert.append(product, op)


def result_element(op: top.MatMulOp, convert: Conversion) -> ElementType:
    """f32 for logits, and for a product that a public function returns."""
    is_output = convert.is_public and is_returned(op.result)
    return F32 if is_head(op) or is_output else convert.compute
