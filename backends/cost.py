"""What commands cost, in cycles of the compute clock (docs/architecture.md: machine conventions).

Two forms of the same formulas: `gdma_cycles` and `bdc_cycles` for arrays of records, and
`transfer_cycles`, `matrix_cycles` and `vector_cycles` for the search of tile sizes, which knows
shapes and not yet addresses. All include the fixed cost of a command. A command takes whole cycles:
its cost is rounded up once, and everything that is summed from here on is an exact integer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.operands import (
    ELEMENT_SIZES,
    OPERANDS,
    BoolArray,
    Int64Array,
    OperandName,
    column,
    has_one_scale,
    is_indexed,
    is_store,
    operand_row_bytes,
    operand_shapes,
    row_bytes_of,
)
from tilewright.backends.encoding.records import BdcOpcode, BinaryCode, Records, UnaryCode
from tilewright.backends.program import KernelArgument
from tilewright.dialects.element_types import ELEMENT_TYPES, I32, ElementType

SPECIAL_UNARY = frozenset(UnaryCode) - {UnaryCode.CAST, UnaryCode.NEG, UnaryCode.ABS}
"""Element functions that take `special_function_passes`."""

SPECIAL_BINARY = frozenset({BinaryCode.DIV})
"""Two-operand functions that take `special_function_passes`."""


def matrix_cycles(rows: int, cols: int, depth: int, element: ElementType, chip: Chip) -> int:
    """Cycles of one `MM` command without bank conflicts; `element` is its operands' type.

    Each lane forms `matrix_rows` sums of `matrix_width` products a cycle, for one result row.
    """
    steps = (
        math.ceil(rows / chip.lanes)
        * math.ceil(cols / chip.matrix_rows)
        * math.ceil(depth / chip.matrix_width[element.name])
    )
    return chip.bdc_command_cycles + steps


def vector_cycles(
    rows: int, cols: int, widest_element_bytes: int, chip: Chip, passes: int = 1
) -> int:
    """Cycles of one vector command without bank conflicts.

    `passes` is `chip.special_function_passes` for the functions in `SPECIAL_UNARY` and
    `SPECIAL_BINARY` and for quantization, `chip.transpose_passes` for a transposition, else 1.
    """
    vectors = math.ceil(rows / chip.lanes) * math.ceil(
        cols * widest_element_bytes / chip.vector_bytes
    )
    return chip.bdc_command_cycles + vectors * passes


def transfer_cycles(
    rows: int, cols: int, element: ElementType, pitch_bytes: int, chip: Chip
) -> int:
    """Cycles of a `LOAD` or `STORE` of `rows` x `cols` elements, `pitch_bytes` from row to row."""
    row_bytes_of = cols * element.size_bytes
    gapless = rows == 1 or pitch_bytes == row_bytes_of
    runs, run_bytes = (1, rows * row_bytes_of) if gapless else (rows, row_bytes_of)
    charged = runs * math.ceil(run_bytes / chip.dma_run_bytes) * chip.dma_run_bytes
    return math.ceil(chip.gdma_issue_cycles + charged / chip.dma_bytes_per_cycle)


def gdma_cycles(records: Records, arguments: Sequence[KernelArgument], chip: Chip) -> Int64Array:
    """Cycles of each GDMA command.

    Rows that follow each other without a gap are one run. The rows that an index vector names are a
    run each, and the indices themselves one more. (`arguments` complete the picture of a command;
    the formulas need only the record.)
    """
    del arguments
    rows, width, pitch = column(records, "rows"), row_bytes_of(records), column(records, "pitch")
    indexed = is_indexed(records)
    one_run = ~indexed & ((pitch == width) | (rows == 1))
    runs = np.where(one_run, 1, rows)
    units = runs * _ceil_div(np.where(one_run, rows * width, width), chip.dma_run_bytes)
    units += np.where(indexed, _ceil_div(rows * I32.size_bytes, chip.dma_run_bytes), 0)
    cycles = chip.gdma_issue_cycles + units * chip.dma_run_bytes / chip.dma_bytes_per_cycle
    return np.ceil(cycles).astype(np.int64)


def gdma_bytes(records: Records) -> tuple[Int64Array, Int64Array]:
    """Bytes that each GDMA command reads from, and writes to, global memory (indices included)."""
    moved = column(records, "rows") * row_bytes_of(records)
    stores = is_store(records)
    indices = np.where(is_indexed(records), column(records, "rows") * I32.size_bytes, 0)
    return np.where(stores, 0, moved) + indices, np.where(stores, moved, 0)


def bdc_cycles(records: Records, chip: Chip) -> Int64Array:
    """Cycles of each BDC command, bank conflicts included."""
    cycles = bdc_cycles_without_conflicts(records, chip) - chip.bdc_command_cycles
    factor = np.where(bank_conflicts(records, chip), chip.bank_conflict_factor, 1.0)
    return chip.bdc_command_cycles + np.ceil(cycles * factor).astype(np.int64)


def bdc_cycles_without_conflicts(records: Records, chip: Chip) -> Int64Array:
    """Cycles of each BDC command if no two of its operands shared a bank."""
    rows, cols, depth = (column(records, name) for name in ("rows", "cols", "depth"))
    waves = _ceil_div(rows, chip.lanes)
    opcode, function = records["opcode"], records["function"]

    width = np.ones(256, dtype=np.int64)
    for element in ELEMENT_TYPES:
        width[element.code] = chip.matrix_width.get(element.name, 1)
    steps = _ceil_div(cols, chip.matrix_rows) * -(-depth // width[records["a_element"]])

    vectors = _ceil_div(cols * _widest(records), chip.vector_bytes)
    special = ((opcode == BdcOpcode.UNARY) & np.isin(function, list(SPECIAL_UNARY))) | (
        (opcode == BdcOpcode.BINARY) & np.isin(function, list(SPECIAL_BINARY))
    )
    special |= opcode == BdcOpcode.QUANTIZE  # which divides
    vectors = np.where(special, vectors * chip.special_function_passes, vectors)
    vectors = np.where(opcode == BdcOpcode.TRANSPOSE, vectors * chip.transpose_passes, vectors)
    return chip.bdc_command_cycles + waves * np.where(opcode == BdcOpcode.MM, steps, vectors)


def bank_conflicts(records: Records, chip: Chip) -> BoolArray:
    """Whether two operands (dst, a, b) of a command touch a common bank.

    Zero points (c) are counted with the scales (b), to which they belong: the two may share one.
    """
    dst, a, b, c = (_banks_touched(records, name, chip) for name in OPERANDS)
    groups = b | c
    return np.any((dst & a) | (dst & groups) | (a & groups), axis=1)


def _widest(records: Records) -> Int64Array:
    opcode = records["opcode"]
    widest = ELEMENT_SIZES[records["dst_element"]].copy()
    by_result = (opcode == BdcOpcode.DEQUANT) | (opcode == BdcOpcode.DEQUANTIZE)
    sources: tuple[OperandName, ...] = ("a", "b")
    for name in sources:
        size = ELEMENT_SIZES[records[f"{name}_element"]]
        present = (operand_shapes(records, name)[0] > 0) & ~by_result
        if name == "b":
            present &= ~has_one_scale(records)
        widest = np.maximum(widest, np.where(present, size, 0))
    return widest


def _banks_touched(records: Records, name: OperandName, chip: Chip) -> BoolArray:
    """`[commands, banks]`: a bank holds bytes of the operand."""
    rows = operand_shapes(records, name)[0]
    offset, stride = column(records[name], "offset"), column(records[name], "stride")
    slots, width = _ceil_div(rows, chip.lanes), operand_row_bytes(records, name)
    banks = np.arange(chip.banks)
    touched = np.zeros((len(records), chip.banks), dtype=np.bool_)

    def mark(first: Int64Array, last: Int64Array, where: BoolArray) -> None:
        within = (banks >= (first // chip.bank_bytes)[:, None]) & (
            banks <= (last // chip.bank_bytes)[:, None]
        )
        touched[:] |= within & where[:, None]

    # Slots at most a bank apart leave no bank out; slots further apart are few.
    near = stride <= chip.bank_bytes
    mark(offset, offset + (slots - 1) * stride + width - 1, near & (slots > 0) & (width > 0))
    far = ~near & (width > 0)
    for slot in range(int(min(np.max(slots, where=far, initial=0), chip.banks))):
        first = offset + slot * stride
        mark(first, first + width - 1, far & (slots > slot))
    return touched


def _ceil_div(values: Int64Array, by: int) -> Int64Array:
    return -(-values // by)
