"""`tpu` ops on int8 codes with 16-bit activations (W8A16)."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from tilewright.dialects import shape_rules
from tilewright.dialects.element_types import F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.graph.base import (
    Value,
    optional_shape_of,
    require_element,
    require_one_float,
    shape_of,
    storage_of,
)
from tilewright.dialects.tpu.base import TpuOp


@irdl_op_definition
class W8A16MatMulOp(TpuOp):
    """Linear layer with an int8 weight.

    ```mlir
    %y = tpu.W8A16MatMul %x, %codes scale %scale bias %b :
      tensor<512x4096xf16>, tensor<4608x4096xi8>, tensor<4608x1xf16>, tensor<4608xf16>
      -> tensor<512x4608xf16>
    ```

    `result[..., n] = sum_k x[..., k] * w[n, k] + bias[n]` with `w[n, k] = T(codes[n, k] *
    scale[n])`: the weight is dequantized and rounded to the type of `x` before the product. `x` is
    `T[..., K]`, `codes` `i8[N, K]`, `scale` `T[N, 1]` or `f32[N, 1]`, `bias` `T[N]`; the result is
    `T[..., N]` or `f32[..., N]`.

    Invariants:

    - `x has depth K, codes have depth K'`
    - `codes has rank 2, not R`
    - `scale is [N, 1], not [...]`
    - `bias is [N], not [...]`
    - `result is [..., N], not [...]`
    - `one floating-point type is needed, not x ..., bias ...`
    - `codes holds i8, not ...`
    - `scale holds T or f32, not ...`, `result holds T or f32, not ...`
    """

    name = "tpu.W8A16MatMul"

    x = operand_def(TensorType)
    codes = operand_def(TensorType)
    scale = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$x `,` $codes `scale` $scale (`bias` $bias^)? attr-dict "
        "`:` type($x) `,` type($codes) `,` type($scale) (`,` type($bias)^)? `->` type($result)"
    )

    def __init__(
        self,
        x: Value,
        codes: Value,
        scale: Value,
        bias: Value | None = None,
        *,
        element: ElementType | None = None,
    ) -> None:
        """`element` is the result's element type, that of `x` if left out."""
        shape = shape_rules.w8a16_matmul(
            shape_of(x), shape_of(codes), shape_of(scale), optional_shape_of(bias)
        )
        super().__init__(
            operands=[x, codes, scale, bias],
            result_types=[tensor_type(shape, element or storage_of(x))],
        )

    def check(self) -> None:
        shape = shape_rules.w8a16_matmul(
            shape_of(self.x),
            shape_of(self.codes),
            shape_of(self.scale),
            optional_shape_of(self.bias),
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        compute = require_one_float(x=self.x, bias=self.bias)
        require_element("codes", self.codes, I8)
        require_element("scale", self.scale, *dict.fromkeys((compute, F32)))
        require_element("result", self.result, *dict.fromkeys((compute, F32)))


@irdl_op_definition
class W8A16GatherOp(TpuOp):
    """Pick rows of an int8 table.

    ```mlir
    %y = tpu.W8A16Gather %codes scale %scale, %ids :
      tensor<65024x4096xi8>, tensor<65024x1xf16>, tensor<512xi32> -> tensor<512x4096xf16>
    ```

    `result[n, c] = codes[indices[n], c] * scale[indices[n]]`. `codes` is `i8[V, C]`, `scale` `T[V,
    1]` or `f32[V, 1]`, `indices` `i32[N]`; the result is `T[N, C]`.

    Invariants:

    - `codes has rank 2, not R`
    - `scale is [V, 1], not [...]`
    - `indices has rank 1, not R`
    - `result is [N, C], not [...]`
    - `codes holds i8, not ...`, `indices holds i32, not ...`
    - `one floating-point type is needed, not result ...`
    - `scale holds T or f32, not ...`
    """

    name = "tpu.W8A16Gather"

    codes = operand_def(TensorType)
    scale = operand_def(TensorType)
    indices = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$codes `scale` $scale `,` $indices attr-dict "
        "`:` type($codes) `,` type($scale) `,` type($indices) `->` type($result)"
    )

    def __init__(
        self, codes: Value, scale: Value, indices: Value, *, element: ElementType | None = None
    ) -> None:
        """`element` is the result's element type, that of `scale` if left out."""
        shape = shape_rules.w8a16_gather(shape_of(codes), shape_of(scale), shape_of(indices))
        super().__init__(
            operands=[codes, scale, indices],
            result_types=[tensor_type(shape, element or storage_of(scale))],
        )

    def check(self) -> None:
        shape = shape_rules.w8a16_gather(
            shape_of(self.codes), shape_of(self.scale), shape_of(self.indices)
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_element("codes", self.codes, I8)
        require_element("indices", self.indices, I32)
        compute = require_one_float(result=self.result)
        require_element("scale", self.scale, *dict.fromkeys((compute, F32)))
