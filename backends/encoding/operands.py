"""The shapes of what commands address: tiles of local memory and rows of global memory.

One reading of the records for all who need it: costs, checks, races and the machine.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tilewright.backends.encoding.records import (
    BdcFlag,
    BdcOpcode,
    BMode,
    CodeCode,
    GdmaOpcode,
    Records,
)
from tilewright.dialects.element_types import ELEMENT_TYPES, I8

Int64Array: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
OperandName: TypeAlias = Literal["dst", "a", "b", "c"]

OPERANDS: tuple[OperandName, ...] = ("dst", "a", "b", "c")

_FOUR_BITS = (CodeCode.I4, CodeCode.U4)

REQUANT_COLUMNS = 3
"""Columns of the right operand of REQUANT: bias, multiplier, shift."""

ELEMENT_SIZES: Int64Array = np.zeros(256, dtype=np.int64)
"""Bytes of an element, by code; 0 for codes that are none."""
for _element in ELEMENT_TYPES:
    ELEMENT_SIZES[_element.code] = _element.size_bytes


def column(records: Records, name: str) -> Int64Array:
    """A field of all records as int64, so that arithmetic on it does not wrap."""
    return records[name].astype(np.int64)


def has_one_scale(bdc: Records) -> BoolArray:
    """Whether the right operand of each BDC command is one replicated number."""
    opcode = bdc["opcode"]
    return (opcode == BdcOpcode.QUANTIZE) | (opcode == BdcOpcode.DEQUANTIZE)


def has_flag(bdc: Records, flag: BdcFlag) -> BoolArray:
    """Whether each BDC command has the flag."""
    return (bdc["flags"] & np.uint8(flag)) != 0


def is_indexed(gdma: Records) -> BoolArray:
    """Whether each GDMA command takes its rows from an index vector."""
    opcode = gdma["opcode"]
    return (opcode == GdmaOpcode.GATHER) | (opcode == GdmaOpcode.SCATTER)


def is_store(gdma: Records) -> BoolArray:
    """Whether each GDMA command writes global memory."""
    opcode = gdma["opcode"]
    return (opcode == GdmaOpcode.STORE) | (opcode == GdmaOpcode.SCATTER)


def row_bytes_of(gdma: Records) -> Int64Array:
    """Bytes of a row of each GDMA command."""
    return column(gdma, "cols") * ELEMENT_SIZES[gdma["element"]]


def operand_shapes(bdc: Records, name: OperandName) -> tuple[Int64Array, Int64Array, BoolArray]:
    """Rows, columns and whether replicated, of an operand of each BDC command.

    0 rows where a command does not have the operand. A replicated command (`REPLICATED`) works on
    one row in every lane, its right operand included.
    """
    rows, cols, depth = (column(bdc, field) for field in ("rows", "cols", "depth"))
    opcode, mode = bdc["opcode"], bdc["b_mode"]
    replicated = has_flag(bdc, BdcFlag.REPLICATED)
    is_mm, is_binary = opcode == BdcOpcode.MM, opcode == BdcOpcode.BINARY
    if name == "dst":
        turned = opcode == BdcOpcode.TRANSPOSE
        cols_left = np.where(opcode == BdcOpcode.REDUCE, 1, cols)
        return np.where(turned, cols, rows), np.where(turned, rows, cols_left), replicated
    if name == "a":
        has_a = opcode != BdcOpcode.FILL
        packed = (opcode == BdcOpcode.DEQUANT) & np.isin(bdc["function"], _FOUR_BITS)
        a_cols = np.where(is_mm, depth, np.where(packed, -(-cols // 2), cols))
        return np.where(has_a, rows, 0), a_cols, replicated
    is_dequant = opcode == BdcOpcode.DEQUANT
    groups = _groups(cols, depth) if is_dequant.any() else cols
    if name == "c":
        has_c = is_dequant & has_flag(bdc, BdcFlag.ZERO_POINT)
        return np.where(has_c, rows, 0), groups, replicated
    transposed = has_flag(bdc, BdcFlag.TRANSPOSE_RIGHT)
    one_scale, is_requant = has_one_scale(bdc), opcode == BdcOpcode.REQUANT
    has_b = is_mm | is_dequant | one_scale | is_requant | (is_binary & (mode != BMode.IMMEDIATE))
    one_row = one_scale | (is_binary & (mode == BMode.ROW))
    one_column = one_scale | (is_binary & (mode == BMode.COLUMN))
    b_rows = np.where(is_mm, np.where(transposed, cols, depth), np.where(one_row, 1, rows))
    b_cols = np.where(is_mm, np.where(transposed, depth, cols), np.where(one_column, 1, cols))
    b_cols = np.where(is_dequant, groups, np.where(is_requant, REQUANT_COLUMNS, b_cols))
    return np.where(has_b, b_rows, 0), b_cols, replicated | one_row


def _groups(cols: Int64Array, depth: Int64Array) -> Int64Array:
    """One group of columns, or some of `depth` each."""
    return np.where(depth > 0, -(-cols // np.maximum(depth, 1)), 1)


def operand_element(bdc: Records, name: OperandName) -> npt.NDArray[np.uint8]:
    """Element code of an operand of each BDC command."""
    if name == "c":
        return np.full(len(bdc), I8.code, np.uint8)
    return bdc[f"{name}_element"]


def operand_row_bytes(bdc: Records, name: OperandName) -> Int64Array:
    """Bytes of a row of an operand of each BDC command."""
    return operand_shapes(bdc, name)[1] * ELEMENT_SIZES[operand_element(bdc, name)]
