"""The vector unit."""

from __future__ import annotations

from xdsl.dialects.builtin import BoolAttr, FloatAttr, IndexType, IntegerAttr, f32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
)

from tilewright.dialects.bdc.base import TileOp, local, require, require_floats
from tilewright.dialects.bdc.functions import (
    BinaryFunction,
    BinaryFunctionAttr,
    CodeFormatAttr,
    ReduceFunction,
    ReduceFunctionAttr,
    UnaryFunction,
    UnaryFunctionAttr,
)
from tilewright.dialects.memory_types import LocalType
from tilewright.dialects.quantization import CodeFormat


@irdl_op_definition
class FillOp(TileOp):
    """A tile of one value.

    ```mlir
    %zero = bdc.fill {value = 0.000000e+00 : f32} : !bdc.local<512x4096xf32>
    ```
    """

    name = "bdc.fill"

    value = prop_def(FloatAttr)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "attr-dict `:` type($result)"

    def __init__(self, value: float, result_type: LocalType) -> None:
        super().__init__(properties={"value": FloatAttr(value, f32)}, result_types=[result_type])


@irdl_op_definition
class ViewOp(IRDLOperation):
    """A range of columns of a tile, without a command: the result shares the tile's memory.

    ```mlir
    %head = bdc.view %t[%col] : !bdc.local<64x4096xf16> -> !bdc.local<64x128xf16>
    ```

    Invariants:

    - `bdc.view keeps the element type`
    - `bdc.view keeps rows and layout`
    - `bdc.view is not wider than its tile`
    """

    name = "bdc.view"

    tile = operand_def(LocalType)
    col = operand_def(IndexType)
    result = result_def(LocalType)

    assembly_format = "$tile `[` $col `]` attr-dict `:` type($tile) `->` type($result)"

    def __init__(self, tile: SSAValue, col: SSAValue, result_type: LocalType) -> None:
        super().__init__(operands=[tile, col], result_types=[result_type])

    def verify_(self) -> None:
        tile, view = local(self.tile), local(self.result)
        require(tile.element_type == view.element_type, "bdc.view keeps the element type")
        require(
            tile.rows == view.rows and tile.replicated == view.replicated,
            "bdc.view keeps rows and layout",
        )
        require(view.cols <= tile.cols, "bdc.view is not wider than its tile")


@irdl_op_definition
class DequantOp(TileOp):
    """Dequantize codes: `y[r, c] = round((codes[r, c] - zero[r, c / g]) * scale[r, c / g])`.

    ```mlir
    %w = bdc.dequant i8 %codes, %scale :
      !bdc.local<384x4096xi8>, !bdc.local<384x1xf16> -> !bdc.local<384x4096xf16>
    ```

    The codes are a tile of bytes, and the format says what is in them: `i8`, `f8e4m3` and `f8e5m2`
    one code each; `i4` (two's complement) and `u4` two, that of the even column in the low nibble.
    Each of the G columns of scales, and of `zero`, is for a group of `g = columns / G` of the
    result. Zero points are bytes, signed; left out, they are 0.

    ```mlir
    %w4 = bdc.dequant u4 %packed, %scales zero %zeros :
      !bdc.local<384x2048xi8>, !bdc.local<384x64xf16> zero !bdc.local<384x64xi8>
      -> !bdc.local<384x4096xf16>
    ```

    Invariants:

    - `bdc.dequant takes int8 codes`
    - `bdc.dequant takes a floating-point scale`
    - `bdc.dequant makes floating point`
    - `bdc.dequant takes a scale a row, or one for each of equal groups of its columns`
    - `bdc.dequant takes an int8 zero point for each scale`
    - `bdc.dequant: 8-bit floats have no zero points`
    - `bdc.dequant keeps the shape`
    """

    name = "bdc.dequant"

    format = prop_def(CodeFormatAttr)
    codes = operand_def(LocalType)
    scale = operand_def(LocalType)
    zero = opt_operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$format $codes `,` $scale (`zero` $zero^)? attr-dict "
        "`:` type($codes) `,` type($scale) (`zero` type($zero)^)? `->` type($result)"
    )

    def __init__(
        self,
        codes: SSAValue,
        scale: SSAValue,
        result_type: LocalType,
        *,
        code_format: CodeFormat = CodeFormat.I8,
        zero: SSAValue | None = None,
    ) -> None:
        super().__init__(
            operands=[codes, scale, zero],
            properties={"format": CodeFormatAttr(code_format)},
            result_types=[result_type],
        )

    @property
    def group(self) -> int:
        """Columns that share a scale; 0 where a row has but one."""
        groups = local(self.scale).cols
        return 0 if groups == 1 else local(self.result).cols // groups

    def verify_(self) -> None:
        codes, scale, result = local(self.codes), local(self.scale), local(self.result)
        code_format = self.format.data
        require(codes.element.name == "i8", "bdc.dequant takes int8 codes")
        require(scale.element.is_float, "bdc.dequant takes a floating-point scale")
        require(result.element.is_float, "bdc.dequant makes floating point")
        require(
            scale.rows == codes.rows and result.cols % scale.cols == 0,
            "bdc.dequant takes a scale a row, or one for each of equal groups of its columns",
        )
        if self.zero is not None:
            zero = local(self.zero)
            require(
                zero.element.name == "i8" and (zero.rows, zero.cols) == (scale.rows, scale.cols),
                "bdc.dequant takes an int8 zero point for each scale",
            )
            require(not code_format.is_float, "bdc.dequant: 8-bit floats have no zero points")
        require(
            (result.rows, code_format.row_bytes(result.cols)) == (codes.rows, codes.cols),
            "bdc.dequant keeps the shape",
        )


@irdl_op_definition
class UnaryOp(TileOp):
    """Apply a function to each element.

    ```mlir
    %y = bdc.unary exp %x : !bdc.local<64x512xf32> -> !bdc.local<64x512xf32>
    ```

    Invariants:

    - `bdc.unary works on floating point`
    - `bdc.unary keeps the shape`
    - `bdc.unary keeps the layout`
    """

    name = "bdc.unary"

    function = prop_def(UnaryFunctionAttr)
    x = operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$function $x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, function: UnaryFunction, x: SSAValue, result_type: LocalType) -> None:
        super().__init__(
            operands=[x],
            properties={"function": UnaryFunctionAttr(function)},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        require_floats(self)
        x, result = local(self.x), local(self.result)
        require((x.rows, x.cols) == (result.rows, result.cols), "bdc.unary keeps the shape")
        require(x.replicated == result.replicated, "bdc.unary keeps the layout")


@irdl_op_definition
class BinaryOp(TileOp):
    """Combine two tiles element by element.

    ```mlir
    %y = bdc.binary mul %x, %w :
      !bdc.local<64x4096xf16>, !bdc.local<1x4096xf16, replicated> -> !bdc.local<64x4096xf16>
    ```

    The right tile has the left one's shape, or is one replicated row that meets every row, or has
    one column that meets every column.

    Invariants:

    - `bdc.binary works on floating point`
    - `bdc.binary: the result has the left operand's shape`
    - `bdc.binary: the result has the left layout`
    - `bdc.binary: the right operand meets neither rows nor columns`
    """

    name = "bdc.binary"

    function = prop_def(BinaryFunctionAttr)
    left = operand_def(LocalType)
    right = operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$function $left `,` $right attr-dict `:` type($left) `,` type($right) `->` type($result)"
    )

    def __init__(
        self, function: BinaryFunction, left: SSAValue, right: SSAValue, result_type: LocalType
    ) -> None:
        super().__init__(
            operands=[left, right],
            properties={"function": BinaryFunctionAttr(function)},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        require_floats(self)
        left, right, result = local(self.left), local(self.right), local(self.result)
        require(
            (left.rows, left.cols) == (result.rows, result.cols),
            "bdc.binary: the result has the left operand's shape",
        )
        require(left.replicated == result.replicated, "bdc.binary: the result has the left layout")
        same = (right.rows, right.cols, right.replicated) == (left.rows, left.cols, left.replicated)
        row = right.replicated and right.cols == left.cols
        column = right.cols == 1 and right.rows == left.rows and not right.replicated
        require(
            same or row or column, "bdc.binary: the right operand meets neither rows nor columns"
        )


@irdl_op_definition
class ScalarOp(TileOp):
    """Combine each element with a constant: `y = x (function) value`.

    ```mlir
    %y = bdc.scalar mul %x {value = 1.250000e-01 : f32} :
      !bdc.local<64x512xf32> -> !bdc.local<64x512xf32>
    ```

    Invariants:

    - `bdc.scalar works on floating point`
    - `bdc.scalar keeps the shape`
    - `bdc.scalar keeps the layout`
    """

    name = "bdc.scalar"

    function = prop_def(BinaryFunctionAttr)
    x = operand_def(LocalType)
    value = prop_def(FloatAttr)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$function $x attr-dict `:` type($x) `->` type($result)"

    def __init__(
        self, function: BinaryFunction, x: SSAValue, value: float, result_type: LocalType
    ) -> None:
        super().__init__(
            operands=[x],
            properties={
                "function": BinaryFunctionAttr(function),
                "value": FloatAttr(value, f32),
            },
            result_types=[result_type],
        )

    def verify_(self) -> None:
        require_floats(self)
        x, result = local(self.x), local(self.result)
        require((x.rows, x.cols) == (result.rows, result.cols), "bdc.scalar keeps the shape")
        require(x.replicated == result.replicated, "bdc.scalar keeps the layout")


@irdl_op_definition
class ReduceOp(TileOp):
    """Reduce each row to one element, in f32.

    ```mlir
    %s = bdc.reduce sum %x : !bdc.local<64x4096xf32> -> !bdc.local<64x1xf32>
    ```

    Invariants:

    - `bdc.reduce works on floating point`
    - `bdc.reduce leaves one column`
    - `bdc.reduce works over the lanes`
    """

    name = "bdc.reduce"

    function = prop_def(ReduceFunctionAttr)
    x = operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$function $x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, function: ReduceFunction, x: SSAValue, result_type: LocalType) -> None:
        super().__init__(
            operands=[x],
            properties={"function": ReduceFunctionAttr(function)},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        require_floats(self)
        x, result = local(self.x), local(self.result)
        require((x.rows, 1) == (result.rows, result.cols), "bdc.reduce leaves one column")
        require(not x.replicated and not result.replicated, "bdc.reduce works over the lanes")


@irdl_op_definition
class TransposeOp(TileOp):
    """Transpose a tile: `y[c, r] = x[r, c]`.

    ```mlir
    %row = bdc.transpose %col : !bdc.local<384x1xf16> -> !bdc.local<1x384xf16>
    ```

    Invariants:

    - `bdc.transpose swaps the dimensions`
    - `bdc.transpose keeps the element type`
    - `bdc.transpose works over the lanes`
    """

    name = "bdc.transpose"

    x = operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: SSAValue, result_type: LocalType) -> None:
        super().__init__(operands=[x], result_types=[result_type])

    def verify_(self) -> None:
        x, result = local(self.x), local(self.result)
        require(
            (x.cols, x.rows) == (result.rows, result.cols), "bdc.transpose swaps the dimensions"
        )
        require(x.element_type == result.element_type, "bdc.transpose keeps the element type")
        require(not x.replicated and not result.replicated, "bdc.transpose works over the lanes")


@irdl_op_definition
class RotateOp(TileOp):
    """Rotate pairs of columns by a quarter turn, as RoPE needs: `(a, b)` becomes `(-b, a)`.

    ```mlir
    %r = bdc.rotate %x {rotary_dim = 64 : i64, interleaved = true} :
      !bdc.local<64x128xf16> -> !bdc.local<64x128xf32>
    ```

    Only the first `rotary_dim` columns turn; the others become 0. Pairs are neighbours `(2i, 2i +
    1)` if `interleaved` (GPT-J, ChatGLM), else `(i, i + rotary_dim / 2)` (GPT-NeoX, Llama).

    Invariants:

    - `bdc.rotate works on floating point`
    - `bdc.rotate keeps the shape`
    - `bdc.rotate: rotary_dim R is not an even number up to D`
    """

    name = "bdc.rotate"

    x = operand_def(LocalType)
    rotary_dim = prop_def(IntegerAttr)
    interleaved = prop_def(BoolAttr)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(
        self, x: SSAValue, result_type: LocalType, *, rotary_dim: int, interleaved: bool
    ) -> None:
        super().__init__(
            operands=[x],
            properties={
                "rotary_dim": IntegerAttr(rotary_dim, i64),
                "interleaved": BoolAttr.from_bool(interleaved),
            },
            result_types=[result_type],
        )

    def verify_(self) -> None:
        require_floats(self)
        x, result = local(self.x), local(self.result)
        require((x.rows, x.cols) == (result.rows, result.cols), "bdc.rotate keeps the shape")
        width = self.rotary_dim.value.data
        require(
            width % 2 == 0 and 0 < width <= x.cols,
            f"bdc.rotate: rotary_dim {width} is not an even number up to {x.cols}",
        )
