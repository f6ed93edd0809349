"""`tpu` ops of int8 layers (W8A8): activations to codes, products of codes, codes to activations.

Everything between `tpu.Quantize` and `tpu.Dequantize` is integers, and exact. The scales of
activations are tensors of one element, not attributes: layers share functions.
"""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from tilewright.dialects import shape_rules
from tilewright.dialects.element_types import F16, F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.graph.base import (
    Value,
    require_element,
    require_one_float,
    shape_of,
)
from tilewright.dialects.tpu.base import TpuOp

INT8_MAX_DEPTH = (2**31 - 1) // 2**14
"""Products of two int8 are at most 2^14: sums of so many fit an int32."""


@irdl_op_definition
class QuantizeOp(TpuOp):
    """Activations to int8 codes, with one scale for all.

    ```mlir
    %q = tpu.Quantize %x scale %s : tensor<512x4096xf16>, tensor<1x1xf32> -> tensor<512x4096xi8>
    ```

    `result = clamp(round(f32(x) / scale), -128, 127)`: an f32 division, then halves to even, as
    ONNX's QuantizeLinear with zero point 0. NaN becomes 0. `x` is `T[...]`, `scale` `f32[1, 1]`.

    Invariants:

    - `scale is [1, 1], not [...]`
    - `result is [...], not [...]`
    - `one floating-point type is needed, not x ...`
    - `scale holds f32, not ...`, `result holds i8, not ...`
    """

    name = "tpu.Quantize"

    x = operand_def(TensorType)
    scale = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `scale` $scale attr-dict `:` type($x) `,` type($scale) `->` type($result)"

    def __init__(self, x: Value, scale: Value) -> None:
        super().__init__(operands=[x, scale], result_types=[tensor_type(shape_of(x), I8)])

    def check(self) -> None:
        shape_rules.require_shape("scale", shape_of(self.scale), (1, 1))
        shape_rules.require_shape("result", shape_of(self.result), shape_of(self.x))
        require_one_float(x=self.x)
        require_element("scale", self.scale, F32)
        require_element("result", self.result, I8)


@irdl_op_definition
class Int8MatMulOp(TpuOp):
    """Linear layer on int8 activations with an int8 weight; the result is int8 again.

    ```mlir
    %y = tpu.Int8MatMul %x, %codes requant %r :
      tensor<512x4096xi8>, tensor<4608x4096xi8>, tensor<4608x3xi32> -> tensor<512x4608xi8>
    ```

    `sum = sum_k x[..., k] * codes[n, k] + bias[n]` in int32 (the bias is added last, saturating),
    `result[..., n] = clamp((sum * multiplier[n] + 2^(shift[n] - 1)) >> shift[n], -128, 127)` in
    int64; the columns of `requant` are bias, multiplier and shift (`backends.reference.requant`).
    Shifts are 1 to 62, multipliers not negative. `x` is `i8[..., K]`, `codes` `i8[N, K]`, `requant`
    `i32[N, 3]`; the result is `i8[..., N]`.

    Invariants:

    - `x has depth K, codes have depth K'`
    - `codes has rank 2, not R`
    - `requant is [N, 3], not [...]`
    - `result is [..., N], not [...]`
    - `x holds i8, not ...`, `codes holds i8, not ...`, `result holds i8, not ...`
    - `requant holds i32, not ...`
    - `sums of K products may not fit 32 bits; at most ... do`
    """

    name = "tpu.Int8MatMul"

    x = operand_def(TensorType)
    codes = operand_def(TensorType)
    requant = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$x `,` $codes `requant` $requant attr-dict "
        "`:` type($x) `,` type($codes) `,` type($requant) `->` type($result)"
    )

    def __init__(self, x: Value, codes: Value, requant: Value) -> None:
        shape = (*shape_of(x)[:-1], shape_of(codes)[0])
        super().__init__(operands=[x, codes, requant], result_types=[tensor_type(shape, I8)])
        self._shape()  # refuses operands that do not fit

    def _shape(self) -> shape_rules.Shape:
        return shape_rules.int8_matmul(
            shape_of(self.x), shape_of(self.codes), shape_of(self.requant)
        )

    def check(self) -> None:
        shape_rules.require_shape("result", shape_of(self.result), self._shape())
        require_element("x", self.x, I8)
        require_element("codes", self.codes, I8)
        require_element("requant", self.requant, I32)
        require_element("result", self.result, I8)
        depth = shape_of(self.x)[-1]
        shape_rules.require(
            depth <= INT8_MAX_DEPTH,
            f"sums of {depth} products may not fit 32 bits; at most {INT8_MAX_DEPTH} do",
        )


@irdl_op_definition
class DequantizeOp(TpuOp):
    """Int8 codes to activations, with one scale for all.

    ```mlir
    %y = tpu.Dequantize %q scale %s : tensor<512x4608xi8>, tensor<1x1xf32> -> tensor<512x4608xf16>
    ```

    `result = T(x * scale)`, the exact product rounded once. `x` is `i8[...]`, `scale` `f32[1, 1]`;
    the result is `T[...]`.

    Invariants:

    - `scale is [1, 1], not [...]`
    - `result is [...], not [...]`
    - `one floating-point type is needed, not result ...`
    - `x holds i8, not ...`, `scale holds f32, not ...`
    """

    name = "tpu.Dequantize"

    x = operand_def(TensorType)
    scale = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `scale` $scale attr-dict `:` type($x) `,` type($scale) `->` type($result)"

    def __init__(self, x: Value, scale: Value, *, element: ElementType = F16) -> None:
        """`element` is the result's element type."""
        super().__init__(operands=[x, scale], result_types=[tensor_type(shape_of(x), element)])

    def check(self) -> None:
        shape_rules.require_shape("scale", shape_of(self.scale), (1, 1))
        shape_rules.require_shape("result", shape_of(self.result), shape_of(self.x))
        require_one_float(result=self.result)
        require_element("x", self.x, I8)
        require_element("scale", self.scale, F32)
