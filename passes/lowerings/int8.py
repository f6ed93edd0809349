"""The lowering of linear layers to int8 weights and int8 activations (W8A8)."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import SSAValue

from tilewright.dialects import top, tpu
from tilewright.dialects.element_types import F32, I8, I32
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.graph import shape_of
from tilewright.dialects.quantization import parse_scheme
from tilewright.dialects.scopes import where_of
from tilewright.passes.lowerings.conversion import Conversion
from tilewright.passes.lowerings.linear import result_element, scheme_of
from tilewright.passes.lowerings.registry import lowering

INT8 = parse_scheme("int8").name
REQUANT_COLUMNS = 3
"""Bias, multiplier, shift of a channel."""


@lowering(top.MatMulOp, name="LowerMatMulToInt8", benefit=2)
def lower_matmul_to_int8(op: top.MatMulOp, convert: Conversion) -> Sequence[SSAValue] | None:
    """A product with an int8 weight quantizes its input, and dequantizes its int8 result.

    top.MatMul %x, %w -> tpu.Dequantize (tpu.Int8MatMul (tpu.Quantize %x), %codes requant %r)
    """
    scheme, weight = scheme_of(op, convert), op.right.owner
    if scheme is None or not scheme.int8_activations or not isinstance(weight, top.WeightOp):
        return None
    _check(op, weight, convert)
    transposed = op.right_transpose is None
    channels, depth = shape_of(weight.result)[:: -1 if transposed else 1]
    bias = folded_bias(op)
    folded = None if bias is None else bias.key.data

    def part(form: str) -> SSAValue:
        return convert.weight(weight, form, F32, (1, 1), scheme=INT8)

    x = convert.read(op.x, convert.compute)
    (quantized,) = convert.append(tpu.QuantizeOp(x, part("input_scale")), op)
    codes = convert.weight(
        weight, "codes", I8, (channels, depth), scheme=INT8, transposed=transposed
    )
    requant = convert.weight(
        weight,
        "requant",
        I32,
        (channels, REQUANT_COLUMNS),
        scheme=INT8,
        bias=folded,
        transposed=transposed,
    )
    (product,) = convert.append(tpu.Int8MatMulOp(quantized, codes, requant), op)
    element, added = result_element(op, convert), op.bias is not None and folded is None
    made = tpu.DequantizeOp(
        product, part("output_scale"), element=convert.compute if added else element
    )
    results = convert.append(made, op)
    if op.bias is not None and added:
        right = convert.read(op.bias, convert.compute)
        results = convert.append(tpu.AddOp(results[0], right), op)
        if element != convert.compute:
            results = convert.append(tpu.CastOp(results[0], element), op)
    return results


def folded_bias(op: top.MatMulOp) -> top.WeightOp | None:
    """The bias that `requant` takes in: one that is a weight. Any other is added to the dequantized
    product, so that the layer's range of outputs is one of the product without it."""
    bias = None if op.bias is None else op.bias.owner
    return bias if isinstance(bias, top.WeightOp) else None


def _check(op: top.MatMulOp, weight: top.WeightOp, convert: Conversion) -> None:
    """Raise `UnsupportedError` where the layer cannot be int8."""
    if not convert.is_calibrated:
        raise UnsupportedError(
            f"the layer of weight {weight.key.data!r} cannot be int8: nothing says how large its "
            "activations get",
            where=where_of(op),
            why="int8 activations have one scale a layer, from ranges that calibration measures, "
            "and this module has not been calibrated",
            hint="run tw calibrate MODEL --data FILE and compile with --calibration, or choose "
            "w8a16, which needs no data",
        )
    depth = shape_of(op.x)[-1]
    if depth > tpu.INT8_MAX_DEPTH:
        raise UnsupportedError(
            f"the layer of weight {weight.key.data!r} cannot be int8: it has {depth} inputs",
            where=where_of(op),
            why=f"sums of more than {tpu.INT8_MAX_DEPTH} products of int8 may not fit 32 bits",
            hint="--quant-rule for this weight, for instance with w8a16",
        )
