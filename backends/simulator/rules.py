"""The rules that single records keep: what must hold, and what is said where it does not.

Rules are evaluated on whole queues at once. Later rules may rely on the earlier ones of their list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.mnemonics import BDC_MNEMONICS, GDMA_MNEMONICS
from tilewright.backends.encoding.operands import (
    ELEMENT_SIZES,
    OPERANDS,
    BoolArray,
    Int64Array,
    column,
    has_flag,
    has_one_scale,
    is_indexed,
    is_store,
    operand_element,
    operand_row_bytes,
    operand_shapes,
    row_bytes_of,
)
from tilewright.backends.encoding.records import (
    MAX_COMMAND_ID,
    BdcFlag,
    BdcOpcode,
    BMode,
    CodeCode,
    GdmaOpcode,
    Records,
)
from tilewright.backends.program import Kernel
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32

Rule: TypeAlias = tuple[BoolArray, str]
"""For each command whether it keeps the rule, and the message where not."""

MAX_OFFSET, MAX_PITCH = 1 << 40, 1 << 30
"""Global offsets and pitches are less than this: an offset plus 2**32 pitches fits 64 bits."""

_FLOATS = np.array([F32.code, F16.code, BF16.code])
_FLAGS = {
    BdcOpcode.MM: BdcFlag.TRANSPOSE_RIGHT | BdcFlag.ACCUMULATE,
    BdcOpcode.DEQUANT: int(BdcFlag.ZERO_POINT),
    BdcOpcode.ROTATE: int(BdcFlag.INTERLEAVED),
    BdcOpcode.UNARY: int(BdcFlag.REPLICATED),
    BdcOpcode.BINARY: int(BdcFlag.REPLICATED),
    BdcOpcode.FILL: int(BdcFlag.REPLICATED),
}


def queue_rules(records: Records, others: int) -> Iterator[Rule]:
    """Rules of either queue; `others` is the length of the other one."""
    count = len(records)
    yield records["id"] == np.arange(1, count + 1), "ids are not 1, 2, 3, ..."
    yield np.full(count, count <= MAX_COMMAND_ID), f"more than {MAX_COMMAND_ID} commands"
    yield records["wait"] <= others, f"it waits for a command that is not there, of {others}"


def gdma_rules(kernel: Kernel, chip: Chip) -> Iterator[Rule]:
    """Rules of GDMA records: codes, shapes, local range and alignment, global range and access."""
    records, arguments = kernel.gdma, kernel.arguments
    opcode, element = records["opcode"], records["element"]
    rows, cols, stride = (column(records, name) for name in ("rows", "cols", "local_stride"))
    yield np.isin(opcode, list(GDMA_MNEMONICS)), "unknown opcode"
    yield ELEMENT_SIZES[element] > 0, "unknown element code"
    yield (rows > 0) & (cols > 0), "an empty transfer"
    replicated = opcode == GdmaOpcode.LOAD_REPLICATED
    yield ~replicated | (rows == 1), "a replicated load takes one row"
    width = row_bytes_of(records)
    yield from _tile_rules(
        "the tile", rows, width, column(records, "local_offset"), stride, element, kernel, chip
    )
    yield records["global_offset"] < MAX_OFFSET, "the global offset is out of range"
    yield records["index_offset"] < MAX_OFFSET, "the offset of its indices is out of range"
    yield records["pitch"] < MAX_PITCH, "the pitch is out of range"

    number, indexed = records["argument"], is_indexed(records)
    yield number < len(arguments), f"there are only {len(arguments)} arguments"
    spans, codes, accesses = _argument_table(kernel)
    number = np.minimum(number, max(len(arguments) - 1, 0))
    yield codes[number] == element, "it does not have the element type of its argument"
    offset, pitch = column(records, "global_offset"), column(records, "pitch")
    yield offset % ELEMENT_SIZES[element] == 0, "the global offset is not a whole element"
    table = column(records, "table_rows")
    yield ~indexed | (table > 0), "the table that it indexes has no rows"
    stop = offset + (np.where(indexed, table, rows) - 1) * pitch + width
    yield stop <= spans[number], "it reaches beyond its argument"
    yield ~is_store(records) | (accesses[number] > 0), "it writes to an argument that is only read"

    index = records["index_argument"]
    yield ~indexed | (index < len(arguments)), f"there are only {len(arguments)} arguments"
    index = np.where(indexed, index, 0)
    yield ~indexed | (codes[index] == I32.code), "its indices are not i32"
    yield ~indexed | (accesses[index] != 1), "its indices are an argument that is only written"
    index_stop = column(records, "index_offset") + rows * I32.size_bytes
    yield ~indexed | (index_stop <= spans[index]), "its indices reach beyond their argument"


def _argument_table(kernel: Kernel) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Span, element code and access (0 read, 1 write, 2 update) of each argument."""
    access = {"read": 0, "write": 1, "update": 2}
    rows = [(a.span_bytes, a.element.code, access[a.access]) for a in kernel.arguments]
    table = np.array(rows or [(0, -1, 0)], dtype=np.int64)
    return table[:, 0], table[:, 1], table[:, 2]


def bdc_rules(kernel: Kernel, chip: Chip) -> Iterator[Rule]:
    """Rules of BDC records: codes, shapes, element types, local ranges and alignment."""
    records = kernel.bdc
    opcode, mode = records["opcode"], records["b_mode"]
    rows, cols, depth = (column(records, name) for name in ("rows", "cols", "depth"))
    packed = opcode.astype(np.int64) * 256 + records["function"]
    known = [code * 256 + function for code, function in BDC_MNEMONICS]
    yield np.isin(packed, known), "unknown opcode or function"
    is_binary, is_mm = opcode == BdcOpcode.BINARY, opcode == BdcOpcode.MM
    yield ~is_binary | (mode <= max(BMode)), "unknown mode of the right operand"
    allowed = np.zeros(256, dtype=np.uint8)
    for code, flags in _FLAGS.items():
        allowed[code] = flags
    yield records["flags"] & ~allowed[opcode] == 0, "a flag that this command does not have"
    yield (rows > 0) & (cols > 0) & (~is_mm | (depth > 0)), "an empty tile"
    yield ~has_flag(records, BdcFlag.REPLICATED) | (rows == 1), "a replicated tile has one row"
    turned = (depth % 2 == 0) & (depth > 0) & (depth <= cols)
    yield (
        (opcode != BdcOpcode.ROTATE) | turned,
        "it turns a number of columns that is odd or too large",
    )
    grouped = (opcode == BdcOpcode.DEQUANT) & (depth > 0)
    yield ~grouped | (cols % np.maximum(depth, 1) == 0), "its groups do not divide its columns"
    yield from _type_rules(records)
    for name in OPERANDS:
        operand = records[name]
        yield from _tile_rules(
            f"operand {name}",
            operand_shapes(records, name)[0],
            operand_row_bytes(records, name),
            column(operand, "offset"),
            column(operand, "stride"),
            operand_element(records, name),
            kernel,
            chip,
        )


def _type_rules(records: Records) -> Iterator[Rule]:
    opcode = records["opcode"]
    dst, a, b, _ = (operand_element(records, name) for name in OPERANDS)
    is_mm, is_dequant = opcode == BdcOpcode.MM, opcode == BdcOpcode.DEQUANT
    moves = opcode == BdcOpcode.TRANSPOSE
    yield ~moves | ((dst == a) & (ELEMENT_SIZES[a] > 0)), "a transposition keeps the element type"
    int8_mm, is_requant = is_mm & (a == I8.code), opcode == BdcOpcode.REQUANT
    is_quantize, is_dequantize = opcode == BdcOpcode.QUANTIZE, opcode == BdcOpcode.DEQUANTIZE
    makes_codes, takes_codes = is_quantize | is_requant, is_dequant | is_dequantize
    yield ~int8_mm | (dst == I32.code), "sums of int8 products are not i32"
    yield ~makes_codes | (dst == I8.code), "the codes that it makes are not int8"
    float_result = ~(moves | int8_mm | makes_codes)
    yield ~float_result | np.isin(dst, _FLOATS), "the result is not floating point"
    has_a = operand_shapes(records, "a")[0] > 0
    float_a = has_a & ~(moves | takes_codes | int8_mm | is_requant)
    yield ~float_a | np.isin(a, _FLOATS), "operand a is not floating point"
    yield ~takes_codes | (a == I8.code), "codes are not int8"
    yield ~is_requant | ((a == I32.code) & (b == I32.code)), "sums and their table are not i32"
    floats = is_dequant & np.isin(records["function"], [CodeCode.F8E4M3, CodeCode.F8E5M2])
    yield ~floats | ~has_flag(records, BdcFlag.ZERO_POINT), "8-bit floats have no zero points"
    float_b = (operand_shapes(records, "b")[0] > 0) & ~(int8_mm | is_requant)
    yield ~float_b | np.isin(b, _FLOATS), "operand b is not floating point"
    yield ~has_one_scale(records) | (b == F32.code), "the one scale is not f32"
    yield ~is_mm | (a == b), "operands of a matrix multiply are of one type"
    accumulates = is_mm & ~int8_mm & has_flag(records, BdcFlag.ACCUMULATE)
    yield ~accumulates | (dst == F32.code), "partial sums are f32"


def _tile_rules(
    what: str,
    rows: Int64Array,
    width: Int64Array,
    offset: Int64Array,
    stride: Int64Array,
    element: Any,
    kernel: Kernel,
    chip: Chip,
) -> Iterator[Rule]:
    absent = rows == 0
    slots = -(-rows // chip.lanes)
    size = np.maximum(ELEMENT_SIZES[element], 1)
    yield (
        absent | (stride % chip.vector_bytes == 0),
        f"{what}: the stride is not a multiple of {chip.vector_bytes} bytes",
    )
    yield absent | (offset % size == 0), f"{what}: misaligned: the offset is not a whole element"
    yield absent | (slots == 1) | (stride >= width), f"{what}: its slots overlap"
    stop = offset + (slots - 1) * stride + width
    yield (
        absent | (stop <= chip.lane_bytes),
        f"{what}: out of range: a lane has {chip.lane_bytes} bytes",
    )
    yield (
        absent | (stop <= kernel.local_bytes),
        f"{what}: out of range: the kernel uses {kernel.local_bytes} bytes of a lane",
    )
