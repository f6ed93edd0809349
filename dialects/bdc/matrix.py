"""The matrix unit."""

from __future__ import annotations

from xdsl.dialects.builtin import IndexType, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    result_def,
)

from tilewright.dialects.bdc.base import BdcOp, TileOp, local, require
from tilewright.dialects.memory_types import LocalType


@irdl_op_definition
class MmOp(TileOp):
    """Matrix multiply on the matrix unit.

    ```mlir
    %y = bdc.mm %x, %w {transpose_right} :
      !bdc.local<512x4096xf16>, !bdc.local<256x4096xf16> -> !bdc.local<512x256xf16>
    ```

    `y[r, c] = sum_k left[r, k] * right[k, c]`, or `right[c, k]` with `transpose_right`. Operands
    are f32, f16 or bf16, both of one type; products are exact, sums f32 in ascending k, one
    rounding to the result's type. Or both are i8, and the sums are i32, exactly (they wrap). The
    left operand and the result lie over the lanes; the rows of the right operand are broadcast
    through the array wherever they lie.

    Invariants:

    - `bdc.mm: operands are of one type`
    - `bdc.mm: operands are floating point, or i8`
    - `bdc.mm: the result is floating point`, of i8 operands `the result is i32`
    - `bdc.mm: operands lie over the lanes`
    - `bdc.mm: reduction lengths differ: K and L`
    - `bdc.mm: ... does not match the result`
    """

    name = "bdc.mm"

    left = operand_def(LocalType)
    right = operand_def(LocalType)
    transpose_right = opt_prop_def(UnitAttr)

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
        _verify_mm(self, local(self.result), local(self.result).cols)


@irdl_op_definition
class MmAccumulateOp(BdcOp):
    """Matrix multiply that adds to partial sums, in place: f32, or i32 of i8 operands.

    ```mlir
    %sum1 = bdc.mm_accumulate %sum0[%n], %x, %w {transpose_right} :
      !bdc.local<512x4096xf32>, !bdc.local<512x1024xf16>, !bdc.local<256x1024xf16>
      -> !bdc.local<512x4096xf32>
    ```

    `sums[r, n + c] += sum_k left[r, k] * right[k, c]` (or `right[c, k]` with `transpose_right`).
    The result is the tile of partial sums itself.

    Invariants:

    - `bdc.mm_accumulate works in place`
    - `bdc.mm_accumulate adds to f32`, with i8 operands `bdc.mm_accumulate adds to i32`
    - `bdc.mm_accumulate: operands are of one type`
    - `bdc.mm_accumulate: operands are floating point, or i8`
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
        sums = local(self.sums)
        require(sums == local(self.result), "bdc.mm_accumulate works in place")
        kept = "i32" if local(self.left).element.name == "i8" else "f32"
        require(sums.element.name == kept, f"bdc.mm_accumulate adds to {kept}")
        right = local(self.right)
        _verify_mm(self, sums, right.rows if self.transpose_right else right.cols)


def _verify_mm(op: MmOp | MmAccumulateOp, result: LocalType, width: int) -> None:
    left, right = local(op.left), local(op.right)
    depth, cols = (right.cols, right.rows) if op.transpose_right else (right.rows, right.cols)
    require(left.element_type == right.element_type, f"{op.name}: operands are of one type")
    if left.element.name == "i8":
        require(result.element.name == "i32", f"{op.name}: the result is i32")
    else:
        require(left.element.is_float, f"{op.name}: operands are floating point, or i8")
        require(result.element.is_float, f"{op.name}: the result is floating point")
    require(
        not left.replicated and not right.replicated and not result.replicated,
        f"{op.name}: operands lie over the lanes",
    )
    require(left.cols == depth, f"{op.name}: reduction lengths differ: {left.cols} and {depth}")
    require(
        result.rows == left.rows and cols == width,
        f"{op.name}: {left.rows}x{cols} does not match the result",
    )
