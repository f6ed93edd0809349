"""The vector unit on int8: activations to codes and back, and int32 sums to codes."""

from __future__ import annotations

from xdsl.ir import SSAValue
from xdsl.irdl import ParsePropInAttrDict, irdl_op_definition, operand_def

from tilewright.dialects.bdc.base import TileOp, local, require
from tilewright.dialects.memory_types import LocalType


@irdl_op_definition
class QuantizeOp(TileOp):
    """Floating point to int8 codes: `y = clamp(round(f32(x) / scale), -128, 127)`.

    ```mlir
    %q = bdc.quantize %x, %scale :
      !bdc.local<64x4096xf16>, !bdc.local<1x1xf32, replicated> -> !bdc.local<64x4096xi8>
    ```

    A division in f32, then halves to even; NaN becomes 0. Every lane has the one scale.

    Invariants:

    - `bdc.quantize takes floating point`
    - `bdc.quantize makes i8`
    - `bdc.quantize takes one replicated f32 scale`
    - `bdc.quantize keeps the shape`, `bdc.quantize works on tiles over the lanes`
    """

    name = "bdc.quantize"

    x = operand_def(LocalType)
    scale = operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `,` $scale attr-dict `:` type($x) `,` type($scale) `->` type($result)"

    def __init__(self, x: SSAValue, scale: SSAValue, result_type: LocalType) -> None:
        super().__init__(operands=[x, scale], result_types=[result_type])

    def verify_(self) -> None:
        x, result = local(self.x), local(self.result)
        require(x.element.is_float, "bdc.quantize takes floating point")
        require(result.element.name == "i8", "bdc.quantize makes i8")
        _require_one_scale(self.name, local(self.scale))
        _require_same_shape(self.name, x, result)


@irdl_op_definition
class DequantizeOp(TileOp):
    """Int8 codes to floating point: `y = round(x * scale)`, one rounding of the exact product.

    ```mlir
    %y = bdc.dequantize %q, %scale :
      !bdc.local<64x4096xi8>, !bdc.local<1x1xf32, replicated> -> !bdc.local<64x4096xf16>
    ```

    Every lane has the one scale.

    Invariants:

    - `bdc.dequantize takes i8`
    - `bdc.dequantize makes floating point`
    - `bdc.dequantize takes one replicated f32 scale`
    - `bdc.dequantize keeps the shape`, `bdc.dequantize works on tiles over the lanes`
    """

    name = "bdc.dequantize"

    x = operand_def(LocalType)
    scale = operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$x `,` $scale attr-dict `:` type($x) `,` type($scale) `->` type($result)"

    def __init__(self, x: SSAValue, scale: SSAValue, result_type: LocalType) -> None:
        super().__init__(operands=[x, scale], result_types=[result_type])

    def verify_(self) -> None:
        x, result = local(self.x), local(self.result)
        require(x.element.name == "i8", "bdc.dequantize takes i8")
        require(result.element.is_float, "bdc.dequantize makes floating point")
        _require_one_scale(self.name, local(self.scale))
        _require_same_shape(self.name, x, result)


@irdl_op_definition
class RequantOp(TileOp):
    """Int32 sums to int8 codes, by a bias, a multiplier and a shift a row.

    ```mlir
    %y = bdc.requant %sums, %table :
      !bdc.local<384x512xi32>, !bdc.local<384x3xi32> -> !bdc.local<384x512xi8>
    ```

    `t = sums[r, c] + table[r, 0]`, saturating at the ends of int32, then `y[r, c] = clamp((t *
    table[r, 1] + 2^(table[r, 2] - 1)) >> table[r, 2], -128, 127)` in int64. The shift is 1 to 62
    (of another one the lowest six bits count; 0 shifts nothing).

    Invariants:

    - `bdc.requant takes i32`
    - `bdc.requant makes i8`
    - `bdc.requant takes three columns of i32 a row`
    - `bdc.requant takes a table over the lanes`
    - `bdc.requant keeps the shape`, `bdc.requant works on tiles over the lanes`
    """

    name = "bdc.requant"

    sums = operand_def(LocalType)
    table = operand_def(LocalType)

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$sums `,` $table attr-dict `:` type($sums) `,` type($table) `->` type($result)"
    )

    def __init__(self, sums: SSAValue, table: SSAValue, result_type: LocalType) -> None:
        super().__init__(operands=[sums, table], result_types=[result_type])

    def verify_(self) -> None:
        sums, table, result = local(self.sums), local(self.table), local(self.result)
        require(sums.element.name == "i32", "bdc.requant takes i32")
        require(result.element.name == "i8", "bdc.requant makes i8")
        require(
            table.element.name == "i32" and (table.rows, table.cols) == (sums.rows, 3),
            "bdc.requant takes three columns of i32 a row",
        )
        require(not table.replicated, "bdc.requant takes a table over the lanes")
        _require_same_shape(self.name, sums, result)


def _require_one_scale(name: str, scale: LocalType) -> None:
    one = scale.element.name == "f32" and (scale.rows, scale.cols) == (1, 1)
    require(one and scale.replicated, f"{name} takes one replicated f32 scale")


def _require_same_shape(name: str, x: LocalType, result: LocalType) -> None:
    require((x.rows, x.cols) == (result.rows, result.cols), f"{name} keeps the shape")
    over_lanes = not x.replicated and not result.replicated
    require(over_lanes, f"{name} works on tiles over the lanes")
