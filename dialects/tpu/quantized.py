"""`tpu` ops on quantized weights with 16-bit activations: W8A16, W4A16 and 8-bit floats."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects.builtin import TensorType
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, SpacedOpaqueSyntaxAttribute
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
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
from tilewright.dialects.quantization import CodeFormat
from tilewright.dialects.tpu.base import TpuOp


@irdl_attr_definition
class CodeFormatAttr(EnumAttribute[CodeFormat], SpacedOpaqueSyntaxAttribute):
    """What a code is."""

    name = "tpu.code_format"


class A16MatMul(TpuOp):
    """What the linear layers with quantized weights and 16-bit activations have in common.

    `result[..., n] = sum_k x[..., k] * w[n, k] + bias[n]` with
    `w[n, k] = T((codes[n, k] - zero[n, k / g]) * scale[n, k / g])`: the weight is dequantized and
    rounded to the type of `x` before the product. `g = K / G` follows from the scales' shape.
    """

    x = operand_def(TensorType)
    codes = operand_def(TensorType)
    scale = operand_def(TensorType)
    zero = opt_operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "$x `,` $codes `scale` $scale (`zero` $zero^)? (`bias` $bias^)? attr-dict "
        "`:` type($x) `,` type($codes) `,` type($scale) (`zero` type($zero)^)? "
        "(`,` type($bias)^)? `->` type($result)"
    )

    def __init__(
        self,
        x: Value,
        codes: Value,
        scale: Value,
        bias: Value | None = None,
        *,
        zero: Value | None = None,
        element: ElementType | None = None,
        properties: Mapping[str, Attribute] | None = None,
    ) -> None:
        """`element` is the result's element type, that of `x` if left out."""
        shape = (*shape_of(x)[:-1], shape_of(codes)[0])
        super().__init__(
            operands=[x, codes, scale, zero, bias],
            properties=dict(properties or {}),
            result_types=[tensor_type(shape, element or storage_of(x))],
        )
        self._shape()  # refuses operands that do not fit

    @property
    def code_format(self) -> CodeFormat:
        """What a code is."""
        raise NotImplementedError

    @property
    def group(self) -> int:
        """Inputs that share a scale: all of a channel, or a part."""
        return shape_of(self.x)[-1] // shape_of(self.scale)[1]

    def _shape(self) -> shape_rules.Shape:
        return shape_rules.a16_matmul(
            shape_of(self.x),
            shape_of(self.codes),
            shape_of(self.scale),
            optional_shape_of(self.zero),
            optional_shape_of(self.bias),
            self.code_format,
        )

    def check(self) -> None:
        shape_rules.require_shape("result", shape_of(self.result), self._shape())
        compute = require_one_float(x=self.x, bias=self.bias)
        require_element("codes", self.codes, I8)
        if self.zero is not None:
            require_element("zero", self.zero, I8)
        require_element("scale", self.scale, *dict.fromkeys((compute, F32)))
        require_element("result", self.result, *dict.fromkeys((compute, F32)))


@irdl_op_definition
class W8A16MatMulOp(A16MatMul):
    """Linear layer with an int8 weight.

    ```mlir
    %y = tpu.W8A16MatMul %x, %codes scale %scale bias %b :
      tensor<512x4096xf16>, tensor<4608x4096xi8>, tensor<4608x1xf16>, tensor<4608xf16>
      -> tensor<512x4608xf16>
    ```

    `result[..., n] = sum_k x[..., k] * w[n, k] + bias[n]` with
    `w[n, k] = T((codes[n, k] - zero[n, k / g]) * scale[n, k / g])`: the weight is dequantized and
    rounded to the type of `x` before the product. `x` is `T[..., K]`, `codes` `i8[N, K]`, `scale`
    `T[N, G]` or `f32[N, G]` with `g = K / G`, `zero` `i8[N, G]` (0 if left out), `bias` `T[N]`; the
    result is `T[..., N]` or `f32[..., N]`.

    Invariants:

    - `x has depth K, codes have depth K'`
    - `codes has rank 2, not R`
    - `scale is [N, 1] or a column for each of equal groups of K, not [...]`
    - `zero is [N, G], not [...]`
    - `bias is [N], not [...]`
    - `result is [..., N], not [...]`
    - `one floating-point type is needed, not x ..., bias ...`
    - `codes holds i8, not ...`, `zero holds i8, not ...`
    - `scale holds T or f32, not ...`, `result holds T or f32, not ...`
    """

    name = "tpu.W8A16MatMul"

    @property
    def code_format(self) -> CodeFormat:
        return CodeFormat.I8


@irdl_op_definition
class W4A16MatMulOp(A16MatMul):
    """Linear layer with an int4 weight, two codes a byte, the first in the low nibble.

    ```mlir
    %y = tpu.W4A16MatMul %x, %codes scale %scale zero %zero :
      tensor<512x4096xf16>, tensor<4608x2048xi8>, tensor<4608x64xf16> zero tensor<4608x64xi8>
      -> tensor<512x4608xf16>
    ```

    As `tpu.W8A16MatMul`, with `codes` `i8[N, K / 2]` (rounded up). With zero points, codes are
    unsigned; these lie in 0..15, or are 16 (GPTQ's first format stores them one too little).
    Without, codes are two's complement.

    Invariants:

    - those of the layer with an int8 weight
    """

    name = "tpu.W4A16MatMul"

    @property
    def code_format(self) -> CodeFormat:
        return CodeFormat.I4 if self.zero is None else CodeFormat.U4


@irdl_op_definition
class F8A16MatMulOp(A16MatMul):
    """Linear layer with a weight of 8-bit floats.

    ```mlir
    %y = tpu.F8A16MatMul %x, %codes scale %scale {format = #tpu.code_format f8e4m3} :
      tensor<512x4096xf16>, tensor<4608x4096xi8>, tensor<4608x1xf16> -> tensor<512x4608xf16>
    ```

    As `tpu.W8A16MatMul`, with the bits of OCP E4M3 (without infinities) or E5M2 as `codes`.

    Invariants:

    - those of the layer with an int8 weight
    - `format is f8e4m3 or f8e5m2, not ...`
    - `8-bit floats have no zero points`
    """

    name = "tpu.F8A16MatMul"

    format = prop_def(CodeFormatAttr)

    @property
    def code_format(self) -> CodeFormat:
        return self.format.data

    def check(self) -> None:
        shape_rules.require(
            self.code_format.is_float, f"format is f8e4m3 or f8e5m2, not {self.code_format}"
        )
        shape_rules.require(self.zero is None, "8-bit floats have no zero points")
        super().check()


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
