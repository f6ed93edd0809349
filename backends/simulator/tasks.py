"""BDC commands as calls of the compiled inner loops.

A command becomes one task, or three for a matrix multiply (convert the operands, multiply). A task
is a function over a range of rows and its other arguments, all of them numbers: addresses are those
of the machine's local memory, which never moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.records import BdcFlag, BdcOpcode, BMode
from tilewright.backends.simulator.dot_products import BLOCK_COLS, BLOCK_ROWS, DIRECT_ROWS, VECTOR
from tilewright.backends.simulator.matrix_unit import (
    multiply_direct,
    multiply_packed,
    pack_columns,
    pack_rows,
)
from tilewright.backends.simulator.vector_unit import dequant_rows, transpose_rows, vector_rows
from tilewright.dialects.element_types import element_by_code

FEW_ROWS = 4
"""An operand of at most so many rows is multiplied with the other one where it lies."""

SHARED_ELEMENTS = 1 << 22
"""Vector work (elements of a tile) that is worth a second thread: about 0.2 ms."""

SHARED_PRODUCTS = 1 << 23
"""Matrix work (products of packed operands) that is worth a second thread: about 0.2 ms."""

Operand: TypeAlias = tuple[int, int, int]
"""Address in lane 0, stride, element code."""


class Task(NamedTuple):
    """`function(first, last, *arguments)` over ranges that make up `[0, units)`."""

    function: Callable[..., Any]
    units: int
    grain: int
    """Ranges begin at multiples of this."""
    shared: bool
    """Whether it is worth a second thread."""
    arguments: tuple[Any, ...]


class TaskBuilder:
    """Makes the tasks of records, for one local memory."""

    def __init__(self, chip: Chip, local: int, lane_pitch: int) -> None:
        self._lanes = chip.lanes
        self._local = local
        self._lane_pitch = lane_pitch
        self._scratch = np.zeros(0, np.float32)
        self._outgrown: list[Any] = []

    def tasks(self, record: Any) -> list[Task]:
        """The tasks of a checked BDC record."""
        opcode, flags = int(record["opcode"]), int(record["flags"])
        rows = self._lanes if flags & BdcFlag.REPLICATED else int(record["rows"])
        cols, depth = int(record["cols"]), int(record["depth"])
        dst, a, b = (self._operand(record, name) for name in ("dst", "a", "b"))
        memory = (self._lane_pitch, self._lanes)
        shared = rows * cols >= SHARED_ELEMENTS
        if opcode == BdcOpcode.MM:
            return self._multiply(rows, cols, depth, flags, dst, a, b)
        if opcode == BdcOpcode.DEQUANT:
            arguments = (cols, *memory, *dst, *a[:2], *b)
            return [Task(dequant_rows, rows, 1, shared, arguments)]
        if opcode == BdcOpcode.TRANSPOSE:
            size = element_by_code(a[2]).size_bytes
            arguments = (cols, size, *memory, *dst[:2], *a[:2])
            return [Task(transpose_rows, rows, 1, shared, arguments)]
        mode = int(record["b_mode"]) if opcode == BdcOpcode.BINARY else 0
        if mode == BMode.ROW:
            b = (b[0], 0, b[2])
        function, immediate = int(record["function"]), float(record["immediate"])
        turned = (depth, int(bool(flags & BdcFlag.INTERLEAVED)))
        arguments = (opcode, function, cols, *turned, immediate, *memory, *dst, *a, *b, mode)
        return [Task(vector_rows, rows, 1, shared, arguments)]

    def _operand(self, record: Any, name: str) -> Operand:
        operand = record[name]
        address = self._local + int(operand["offset"])
        return address, int(operand["stride"]), int(record[f"{name}_element"])

    def _multiply(
        self, rows: int, cols: int, depth: int, flags: int, dst: Operand, a: Operand, b: Operand
    ) -> list[Task]:
        memory = (self._lane_pitch, self._lanes)
        accumulate = int(bool(flags & BdcFlag.ACCUMULATE))
        transposed = bool(flags & BdcFlag.TRANSPOSE_RIGHT)
        pitch = 4 * _round_up(depth, VECTOR)
        if transposed and min(rows, cols) <= FEW_ROWS:
            b_is_large = rows < cols
            small, large = (a, b) if b_is_large else (b, a)
            few, many = min(rows, cols), max(rows, cols)
            scratch = self._reserve(few * pitch)
            shared = many * depth >= SHARED_ELEMENTS
            products = (depth, int(b_is_large), scratch, few, pitch, accumulate, *memory)
            return [
                Task(pack_rows, few, 1, False, (few, depth, *memory, *small, scratch, pitch)),
                Task(multiply_direct, many, DIRECT_ROWS, shared, (*products, *dst, *large)),
            ]
        padded_rows, padded_cols = _round_up(rows, BLOCK_ROWS), _round_up(cols, BLOCK_COLS)
        left = self._reserve((padded_rows + padded_cols) * pitch)
        right = left + padded_rows * pitch
        shared = rows * cols * depth >= SHARED_PRODUCTS
        pack_right = pack_rows if transposed else pack_columns
        b_shape = (cols, depth) if transposed else (depth, cols)
        return [
            Task(pack_rows, padded_rows, 1, shared, (rows, depth, *memory, *a, left, pitch)),
            Task(pack_right, padded_cols, 1, shared, (*b_shape, *memory, *b, right, pitch)),
            Task(
                multiply_packed,
                padded_rows,
                BLOCK_ROWS,
                shared,
                (rows, cols, left, right, pitch, accumulate, *memory, *dst),
            ),
        ]

    def _reserve(self, size: int) -> int:
        """The address of `size` bytes of scratch. Commands run one by one: all share it."""
        if self._scratch.nbytes < size:
            # Tasks made before keep the address of the smaller one.
            self._outgrown.append(self._scratch)
            self._scratch = np.empty(_round_up(size, 1 << 20) // 4, np.float32)
        return self._scratch.ctypes.data


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
