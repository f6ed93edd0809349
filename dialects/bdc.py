"""The `bdc` dialect: compute on tiles in local memory, in a kernel.

The BDC engine (also called TIU) is one in-order queue of instructions that all lanes execute
together. It has a matrix unit (`bdc.mm`) and a vector unit (all others). Operands and results are
tiles (`!bdc.local`); a result is a new tile, except where an op says that it works in place.

Vector ops take any mixture of f32, f16 and bf16: they convert operands to f32 (exactly), compute in
f32, and round once to the element type of the result (docs/numerics.md: nearest even). They take
as many cycles as their widest operand needs.

Two attributes are added by passes. `offsets` (from `allocate-local-memory`) is the ring of local
byte addresses that the result takes in turn, one for each execution. `waits` (from `insert-waits`)
has one entry for each execution of the op: the id of the GDMA command that must have finished
before, 0 for none.
"""

from __future__ import annotations

from enum import auto

from xdsl.dialects.builtin import (
    I32,
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IndexType,
    IntegerAttr,
    UnitAttr,
    f32,
    i64,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Dialect, SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from tilewright.dialects.bdc_program import AccessModeAttr, ArgumentAttr, ProgramOp, RecordsAttr
from tilewright.dialects.memory_types import LocalType


class UnaryFunction(StrEnum):
    """Element functions of the vector unit. `cast` only rounds to the result's type."""

    CAST = auto()
    NEG = auto()
    ABS = auto()
    SQRT = auto()
    RSQRT = auto()
    RECIPROCAL = auto()
    EXP = auto()
    SIGMOID = auto()
    TANH = auto()
    ERF = auto()


class BinaryFunction(StrEnum):
    """Two-operand element functions of the vector unit."""

    ADD = auto()
    SUB = auto()
    MUL = auto()
    DIV = auto()
    MAX = auto()
    MIN = auto()


class ReduceFunction(StrEnum):
    """Functions that reduce the columns of a row to one."""

    SUM = auto()
    MAX = auto()
    MIN = auto()


@irdl_attr_definition
class UnaryFunctionAttr(EnumAttribute[UnaryFunction], SpacedOpaqueSyntaxAttribute):
    """The function of a `bdc.unary`."""

    name = "bdc.unary_function"


@irdl_attr_definition
class BinaryFunctionAttr(EnumAttribute[BinaryFunction], SpacedOpaqueSyntaxAttribute):
    """The function of a `bdc.binary` or `bdc.scalar`."""

    name = "bdc.binary_function"


@irdl_attr_definition
class ReduceFunctionAttr(EnumAttribute[ReduceFunction], SpacedOpaqueSyntaxAttribute):
    """The function of a `bdc.reduce`."""

    name = "bdc.reduce_function"


def _local(value: SSAValue) -> LocalType:
    assert isinstance(value.type, LocalType)
    return value.type


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise VerifyException(message)


@irdl_op_definition
class FillOp(IRDLOperation):
    """A tile of one value.

    ```mlir
    %zero = bdc.fill {value = 0.000000e+00 : f32} : !bdc.local<512x4096xf32>
    ```
    """

    name = "bdc.fill"

    value = prop_def(FloatAttr)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

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
        tile, view = _local(self.tile), _local(self.result)
        _require(tile.element_type == view.element_type, "bdc.view keeps the element type")
        _require(
            tile.rows == view.rows and tile.replicated == view.replicated,
            "bdc.view keeps rows and layout",
        )
        _require(view.cols <= tile.cols, "bdc.view is not wider than its tile")


@irdl_op_definition
class MmOp(IRDLOperation):
    """Matrix multiply on the matrix unit.

    ```mlir
    %y = bdc.mm %x, %w {transpose_right} :
      !bdc.local<512x4096xf16>, !bdc.local<256x4096xf16> -> !bdc.local<512x256xf16>
    ```

    `y[r, c] = sum_k left[r, k] * right[k, c]`, or `right[c, k]` with `transpose_right`. Operands
    are f32, f16 or bf16, both of one type; products are exact, sums f32 in ascending k, one
    rounding to the result's type. The left operand and the result lie over the lanes; the rows of
    the right operand are broadcast through the array wherever they lie.

    Invariants:

    - `bdc.mm: operands are of one type`
    - `bdc.mm: operands are floating point`
    - `bdc.mm: the result is floating point`
    - `bdc.mm: operands lie over the lanes`
    - `bdc.mm: reduction lengths differ: K and L`
    - `bdc.mm: ... does not match the result`
    """

    name = "bdc.mm"

    left = operand_def(LocalType)
    right = operand_def(LocalType)
    transpose_right = opt_prop_def(UnitAttr)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$left `,` $right attr-dict `:` type($left) `,` type($right) `->` type($result)"
    )

    def __init__(
        self,
        left: SSAValue,
        right: SSAValue,
        result_type: LocalType,
        *,
        transpose_right: bool,
    ) -> None:
        super().__init__(
            operands=[left, right],
            properties={"transpose_right": UnitAttr() if transpose_right else None},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        _verify_mm(self, _local(self.result), _local(self.result).cols)


@irdl_op_definition
class MmAccumulateOp(IRDLOperation):
    """Matrix multiply that adds to f32 partial sums, in place.

    ```mlir
    %sum1 = bdc.mm_accumulate %sum0[%n], %x, %w {transpose_right} :
      !bdc.local<512x4096xf32>, !bdc.local<512x1024xf16>, !bdc.local<256x1024xf16>
      -> !bdc.local<512x4096xf32>
    ```

    `sums[r, n + c] += sum_k left[r, k] * right[k, c]` (or `right[c, k]` with `transpose_right`).
    The result is the tile of partial sums itself.

    Invariants:

    - `bdc.mm_accumulate works in place`
    - `bdc.mm_accumulate adds to f32`
    - `bdc.mm_accumulate: operands are of one type`
    - `bdc.mm_accumulate: operands are floating point`
    - `bdc.mm_accumulate: operands lie over the lanes`
    - `bdc.mm_accumulate: reduction lengths differ: K and L`
    - `bdc.mm_accumulate: ... does not match the result`
    """

    name = "bdc.mm_accumulate"

    sums = operand_def(LocalType)
    col = operand_def(IndexType)
    left = operand_def(LocalType)
    right = operand_def(LocalType)
    transpose_right = opt_prop_def(UnitAttr)
    result = result_def(LocalType)
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$sums `[` $col `]` `,` $left `,` $right attr-dict "
        "`:` type($sums) `,` type($left) `,` type($right) `->` type($result)"
    )

    def __init__(
        self,
        sums: SSAValue,
        col: SSAValue,
        left: SSAValue,
        right: SSAValue,
        *,
        transpose_right: bool,
    ) -> None:
        super().__init__(
            operands=[sums, col, left, right],
            properties={"transpose_right": UnitAttr() if transpose_right else None},
            result_types=[sums.type],
        )

    def verify_(self) -> None:
        sums = _local(self.sums)
        _require(sums == _local(self.result), "bdc.mm_accumulate works in place")
        _require(sums.element.name == "f32", "bdc.mm_accumulate adds to f32")
        right = _local(self.right)
        _verify_mm(self, sums, right.rows if self.transpose_right else right.cols)


def _verify_mm(op: MmOp | MmAccumulateOp, result: LocalType, width: int) -> None:
    left, right = _local(op.left), _local(op.right)
    depth, cols = (right.cols, right.rows) if op.transpose_right else (right.rows, right.cols)
    _require(left.element_type == right.element_type, f"{op.name}: operands are of one type")
    _require(left.element.is_float, f"{op.name}: operands are floating point")
    _require(result.element.is_float, f"{op.name}: the result is floating point")
    _require(
        not left.replicated and not right.replicated and not result.replicated,
        f"{op.name}: operands lie over the lanes",
    )
    _require(left.cols == depth, f"{op.name}: reduction lengths differ: {left.cols} and {depth}")
    _require(
        result.rows == left.rows and cols == width,
        f"{op.name}: {left.rows}x{cols} does not match the result",
    )


@irdl_op_definition
class DequantOp(IRDLOperation):
    """Dequantize int8 codes: `y[r, c] = round(codes[r, c] * scale[r, 0])`.

    ```mlir
    %w = bdc.dequant %codes, %scale :
      !bdc.local<384x4096xi8>, !bdc.local<384x1xf16> -> !bdc.local<384x4096xf16>
    ```

    Invariants:

    - `bdc.dequant takes int8 codes`
    - `bdc.dequant takes a floating-point scale`
    - `bdc.dequant takes a scale a row`
    - `bdc.dequant keeps the shape`
    """

    name = "bdc.dequant"

    codes = operand_def(LocalType)
    scale = operand_def(LocalType)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$codes `,` $scale attr-dict `:` type($codes) `,` type($scale) `->` type($result)"
    )

    def __init__(self, codes: SSAValue, scale: SSAValue, result_type: LocalType) -> None:
        super().__init__(operands=[codes, scale], result_types=[result_type])

    def verify_(self) -> None:
        codes, scale, result = _local(self.codes), _local(self.scale), _local(self.result)
        _require(codes.element.name == "i8", "bdc.dequant takes int8 codes")
        _require(scale.element.is_float, "bdc.dequant takes a floating-point scale")
        _require(scale.cols == 1 and scale.rows == codes.rows, "bdc.dequant takes a scale a row")
        _require(
            (result.rows, result.cols) == (codes.rows, codes.cols), "bdc.dequant keeps the shape"
        )


@irdl_op_definition
class UnaryOp(IRDLOperation):
    """Apply a function to each element.

    ```mlir
    %y = bdc.unary exp %x : !bdc.local<64x512xf32> -> !bdc.local<64x512xf32>
    ```

    Invariants:

    - `bdc.unary keeps the shape`
    - `bdc.unary keeps the layout`
    """

    name = "bdc.unary"

    function = prop_def(UnaryFunctionAttr)
    x = operand_def(LocalType)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$function $x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, function: UnaryFunction, x: SSAValue, result_type: LocalType) -> None:
        super().__init__(
            operands=[x],
            properties={"function": UnaryFunctionAttr(function)},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        x, result = _local(self.x), _local(self.result)
        _require((x.rows, x.cols) == (result.rows, result.cols), "bdc.unary keeps the shape")
        _require(x.replicated == result.replicated, "bdc.unary keeps the layout")


@irdl_op_definition
class BinaryOp(IRDLOperation):
    """Combine two tiles element by element.

    ```mlir
    %y = bdc.binary mul %x, %w :
      !bdc.local<64x4096xf16>, !bdc.local<1x4096xf16, replicated> -> !bdc.local<64x4096xf16>
    ```

    The right tile has the left one's shape, or is one replicated row that meets every row, or has
    one column that meets every column.

    Invariants:

    - `bdc.binary: the result has the left operand's shape`
    - `bdc.binary: the result has the left layout`
    - `bdc.binary: the right operand meets neither rows nor columns`
    """

    name = "bdc.binary"

    function = prop_def(BinaryFunctionAttr)
    left = operand_def(LocalType)
    right = operand_def(LocalType)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

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
        left, right, result = _local(self.left), _local(self.right), _local(self.result)
        _require(
            (left.rows, left.cols) == (result.rows, result.cols),
            "bdc.binary: the result has the left operand's shape",
        )
        _require(left.replicated == result.replicated, "bdc.binary: the result has the left layout")
        same = (right.rows, right.cols, right.replicated) == (left.rows, left.cols, left.replicated)
        row = right.replicated and right.cols == left.cols
        column = right.cols == 1 and right.rows == left.rows and not right.replicated
        _require(
            same or row or column, "bdc.binary: the right operand meets neither rows nor columns"
        )


@irdl_op_definition
class ScalarOp(IRDLOperation):
    """Combine each element with a constant: `y = x (function) value`.

    ```mlir
    %y = bdc.scalar mul %x {value = 1.250000e-01 : f32} :
      !bdc.local<64x512xf32> -> !bdc.local<64x512xf32>
    ```

    Invariants:

    - `bdc.scalar keeps the shape`
    - `bdc.scalar keeps the layout`
    """

    name = "bdc.scalar"

    function = prop_def(BinaryFunctionAttr)
    x = operand_def(LocalType)
    value = prop_def(FloatAttr)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

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
        x, result = _local(self.x), _local(self.result)
        _require((x.rows, x.cols) == (result.rows, result.cols), "bdc.scalar keeps the shape")
        _require(x.replicated == result.replicated, "bdc.scalar keeps the layout")


@irdl_op_definition
class ReduceOp(IRDLOperation):
    """Reduce each row to one element, in f32.

    ```mlir
    %s = bdc.reduce sum %x : !bdc.local<64x4096xf32> -> !bdc.local<64x1xf32>
    ```

    Invariants:

    - `bdc.reduce leaves one column`
    - `bdc.reduce works over the lanes`
    """

    name = "bdc.reduce"

    function = prop_def(ReduceFunctionAttr)
    x = operand_def(LocalType)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$function $x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, function: ReduceFunction, x: SSAValue, result_type: LocalType) -> None:
        super().__init__(
            operands=[x],
            properties={"function": ReduceFunctionAttr(function)},
            result_types=[result_type],
        )

    def verify_(self) -> None:
        x, result = _local(self.x), _local(self.result)
        _require((x.rows, 1) == (result.rows, result.cols), "bdc.reduce leaves one column")
        _require(not x.replicated and not result.replicated, "bdc.reduce works over the lanes")


@irdl_op_definition
class TransposeOp(IRDLOperation):
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
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x attr-dict `:` type($x) `->` type($result)"

    def __init__(self, x: SSAValue, result_type: LocalType) -> None:
        super().__init__(operands=[x], result_types=[result_type])

    def verify_(self) -> None:
        x, result = _local(self.x), _local(self.result)
        _require(
            (x.cols, x.rows) == (result.rows, result.cols), "bdc.transpose swaps the dimensions"
        )
        _require(x.element_type == result.element_type, "bdc.transpose keeps the element type")
        _require(not x.replicated and not result.replicated, "bdc.transpose works over the lanes")


@irdl_op_definition
class RotateOp(IRDLOperation):
    """Rotate pairs of columns by a quarter turn, as RoPE needs: `(a, b)` becomes `(-b, a)`.

    ```mlir
    %r = bdc.rotate %x {rotary_dim = 64 : i64, interleaved = true} :
      !bdc.local<64x128xf16> -> !bdc.local<64x128xf32>
    ```

    Only the first `rotary_dim` columns turn; the others become 0. Pairs are neighbours `(2i, 2i +
    1)` if `interleaved` (GPT-J, ChatGLM), else `(i, i + rotary_dim / 2)` (GPT-NeoX, Llama).

    Invariants:

    - `bdc.rotate keeps the shape`
    - `bdc.rotate: rotary_dim R is not an even number up to D`
    """

    name = "bdc.rotate"

    x = operand_def(LocalType)
    rotary_dim = prop_def(IntegerAttr)
    interleaved = prop_def(BoolAttr)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

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
        x, result = _local(self.x), _local(self.result)
        _require((x.rows, x.cols) == (result.rows, result.cols), "bdc.rotate keeps the shape")
        width = self.rotary_dim.value.data
        _require(
            width % 2 == 0 and 0 < width <= x.cols,
            f"bdc.rotate: rotary_dim {width} is not an even number up to {x.cols}",
        )


Bdc = Dialect(
    "bdc",
    [
        FillOp,
        ViewOp,
        MmOp,
        MmAccumulateOp,
        DequantOp,
        UnaryOp,
        BinaryOp,
        ScalarOp,
        ReduceOp,
        TransposeOp,
        RotateOp,
        ProgramOp,
    ],
    [
        LocalType,
        UnaryFunctionAttr,
        BinaryFunctionAttr,
        ReduceFunctionAttr,
        AccessModeAttr,
        ArgumentAttr,
        RecordsAttr,
    ],
)
