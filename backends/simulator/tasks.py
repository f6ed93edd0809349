"""Commands as tasks: rows of the table that the compiled loop executes (`task_runner`).

A command becomes one task, or three for a matrix multiply (convert the operands, multiply). A task
is an inner loop over a range of rows and its other arguments, all of them numbers: addresses are
those of the machine's local memory, which never moves; a GDMA task names arguments of the launch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.operands import Int64Array
from tilewright.backends.encoding.records import (
    BdcFlag,
    BdcOpcode,
    BMode,
    CodeCode,
    GdmaOpcode,
    UnaryCode,
)
from tilewright.backends.simulator import int8_products
from tilewright.backends.simulator.dot_products import BLOCK_COLS, BLOCK_ROWS, DIRECT_ROWS, VECTOR
from tilewright.backends.simulator.fusion import FEW_ROWS
from tilewright.backends.simulator.host_threads import MAX_CHUNKS
from tilewright.backends.simulator.task_loops import TaskKind
from tilewright.backends.simulator.task_runner import TASK_WORDS
from tilewright.dialects.element_types import I8, element_by_code

CHUNK_NS = 8000
"""Tasks are split into chunks that take about so long; taking one is a compare and swap."""

_COPIED, _DEQUANTIZED, _COMPUTED, _TRANSPOSED, _PACKED, _SUMMED = 20, 20, 1, 1, 2, 32
_CODED, _PACKED_CODES, _SUMMED_CODES = 2, 8, 64
"""What one core does in a nanosecond, roughly: bytes, elements, products."""

_SLOW_FUNCTION = 8
"""How much longer the functions of the C library take than arithmetic."""

_SLOW = [UnaryCode.RSQRT, UnaryCode.EXP, UnaryCode.SIGMOID, UnaryCode.TANH, UnaryCode.ERF]

_IN_ORDER = 0
"""The work of a task that one thread must do alone, in order."""

Operand: TypeAlias = tuple[int, int, int]
"""Address in lane 0, stride, element code."""


class Task(NamedTuple):
    """A call `loop(first, last, *arguments)` for ranges that make up `[0, units)`."""

    kind: TaskKind
    units: int
    grain: int
    """Ranges begin at multiples of this."""
    work_ns: int
    """How long it takes one core, roughly."""
    arguments: tuple[int, ...]

    def split(self) -> tuple[int, int]:
        """Units of a chunk, and chunks: a power of two, as tasks of equal rows share caches."""
        wanted = min(1 << max(self.work_ns // CHUNK_NS, 1).bit_length() - 1, MAX_CHUNKS)
        chunk = _round_up(-(-self.units // wanted), self.grain)
        return chunk, -(-self.units // chunk)


def task_table(tasks: Iterable[Task]) -> Int64Array:
    """The rows of tasks (columns: see `task_runner`)."""
    rows = [[t.kind, t.units, *t.split(), *t.arguments] for t in tasks]
    padded = [row + [0] * (TASK_WORDS - len(row)) for row in rows]
    return np.array(padded, dtype=np.int64).reshape(len(padded), TASK_WORDS)


def shared_ns(tasks: Iterable[Task]) -> int:
    """How long one core takes for the tasks that are worth sharing, roughly."""
    return sum(task.work_ns for task in tasks if task.split()[1] > 1)


class TaskBuilder:
    """Makes the tasks of records, for one local memory."""

    def __init__(self, chip: Chip, local: int, lane_pitch: int) -> None:
        self._lanes = chip.lanes
        self._local = local
        self._lane_pitch = lane_pitch
        self._scratch = np.zeros(0, np.float32)
        self._outgrown: list[Any] = []

    @property
    def lanes(self) -> int:
        """Lanes of the chip."""
        return self._lanes

    def transfer(self, record: Any, row_bytes: int) -> Task:
        """The task of a checked GDMA record."""
        opcode = int(record["opcode"])
        # The same row to every lane: as many rows as lanes, all from one place.
        replicated = opcode == GdmaOpcode.LOAD_REPLICATED
        indexed = opcode in (GdmaOpcode.GATHER, GdmaOpcode.SCATTER)
        to_local = opcode not in (GdmaOpcode.STORE, GdmaOpcode.SCATTER)
        rows = self._lanes if replicated else int(record["rows"])
        pitch = 0 if replicated else int(record["pitch"])
        arguments = (
            int(to_local),
            row_bytes,
            self._lane_pitch,
            self._lanes,
            self._local + int(record["local_offset"]),
            int(record["local_stride"]),
            int(record["argument"]),
            int(record["global_offset"]),
            pitch,
            int(record["index_argument"]) if indexed else -1,
            int(record["index_offset"]),
            int(record["table_rows"]),
        )
        # Of rows that are written to one place, the last one stays.
        overlapping = not to_local and pitch < row_bytes
        work = _IN_ORDER if indexed or overlapping else rows * row_bytes // _COPIED
        return Task(TaskKind.MOVE_ROWS, rows, 1, work, arguments)

    def tasks(self, record: Any) -> list[Task]:
        """The tasks of a checked BDC record."""
        opcode, flags = int(record["opcode"]), int(record["flags"])
        rows = self._lanes if flags & BdcFlag.REPLICATED else int(record["rows"])
        cols, depth = int(record["cols"]), int(record["depth"])
        dst, a, b = (self._operand(record, name) for name in ("dst", "a", "b"))
        memory = (self._lane_pitch, self._lanes)
        if opcode == BdcOpcode.MM:
            return self._multiply(rows, cols, depth, flags, dst, a, b)
        if opcode == BdcOpcode.DEQUANT:
            work = rows * cols // _DEQUANTIZED
            zero = flags & BdcFlag.ZERO_POINT
            c = (self._local + int(record["c"]["offset"]), int(record["c"]["stride"]))
            code = int(record["function"])
            arguments = (code, cols, depth, *memory, *dst, *a[:2], *b, *(c if zero else (0, 0)))
            return [Task(TaskKind.DEQUANT_ROWS, rows, 1, work, arguments)]
        if opcode == BdcOpcode.DEQUANTIZE:
            work = rows * cols // _DEQUANTIZED
            one_scale = (b[0], 0, b[2])
            arguments = (int(CodeCode.I8), cols, 0, *memory, *dst, *a[:2], *one_scale, 0, 0)
            return [Task(TaskKind.DEQUANT_ROWS, rows, 1, work, arguments)]
        if opcode == BdcOpcode.QUANTIZE:
            work = rows * cols // _CODED
            return [
                Task(TaskKind.QUANTIZE_ROWS, rows, 1, work, (cols, *memory, *dst[:2], *a, b[0]))
            ]
        if opcode == BdcOpcode.REQUANT:
            work = rows * cols // _CODED
            arguments = (cols, *memory, *dst[:2], *a[:2], *b[:2])
            return [Task(TaskKind.REQUANT_ROWS, rows, 1, work, arguments)]
        if opcode == BdcOpcode.TRANSPOSE:
            work = rows * cols // _TRANSPOSED
            size = element_by_code(a[2]).size_bytes
            arguments = (cols, size, *memory, *dst[:2], *a[:2])
            return [Task(TaskKind.TRANSPOSE_ROWS, rows, VECTOR, work, arguments)]
        mode = int(record["b_mode"]) if opcode == BdcOpcode.BINARY else 0
        if mode == BMode.ROW:
            b = (b[0], 0, b[2])
        function = int(record["function"])
        slow = opcode == BdcOpcode.UNARY and function in _SLOW
        work = rows * cols // _COMPUTED * (_SLOW_FUNCTION if slow else 1)
        turned = (depth, int(bool(flags & BdcFlag.INTERLEAVED)))
        immediate = int(record["immediate"].view(np.uint32))
        arguments = (opcode, function, cols, *turned, immediate, *memory, *dst, *a, *b, mode)
        return [Task(TaskKind.VECTOR_ROWS, rows, 1, work, arguments)]

    def dequantized_product(self, multiply: Any, dequant: Any, load: Any) -> list[Task]:
        """The tasks of a MM that dequantizes its weights: checked records (see `fusion`), `load` is
        None where the codes are in local memory."""
        rows, cols, depth = (int(multiply[name]) for name in ("rows", "cols", "depth"))
        b_is_large = rows < cols
        few, many = min(rows, cols), max(rows, cols)
        pitch = 4 * _round_up(depth, VECTOR)
        scratch = self._reserve(few * pitch)
        small = self._operand(multiply, "a" if b_is_large else "b")
        codes = (-1, *self._operand(dequant, "a")[:2])
        if load is not None:
            codes = (int(load["argument"]), int(load["global_offset"]), int(load["pitch"]))
        zeros = (0, 0)
        if int(dequant["flags"]) & BdcFlag.ZERO_POINT:
            zeros = (self._local + int(dequant["c"]["offset"]), int(dequant["c"]["stride"]))
        arguments = (
            *(depth, int(dequant["depth"]), int(b_is_large), scratch, few, pitch),
            int(bool(int(multiply["flags"]) & BdcFlag.ACCUMULATE)),
            *(self._lane_pitch, self._lanes, *self._operand(multiply, "dst")),
            *(int(dequant["function"]), int(dequant["dst_element"]), *codes),
            *(*self._operand(dequant, "b")[:2], *zeros),
        )
        work = few * many * depth // _SUMMED
        return [
            self._pack(TaskKind.PACK_ROWS, few, (few, depth), small, scratch, pitch),
            Task(TaskKind.MULTIPLY_DEQUANTIZED, many, DIRECT_ROWS, work, arguments),
        ]

    def _operand(self, record: Any, name: str) -> Operand:
        operand = record[name]
        address = self._local + int(operand["offset"])
        return address, int(operand["stride"]), int(record[f"{name}_element"])

    def _multiply(
        self, rows: int, cols: int, depth: int, flags: int, dst: Operand, a: Operand, b: Operand
    ) -> list[Task]:
        memory = (self._lane_pitch, self._lanes)
        if a[2] == I8.code:
            return self._multiply_codes(rows, cols, depth, flags, dst, a, b)
        accumulate = int(bool(flags & BdcFlag.ACCUMULATE))
        transposed = bool(flags & BdcFlag.TRANSPOSE_RIGHT)
        pitch = 4 * _round_up(depth, VECTOR)
        if transposed and min(rows, cols) <= FEW_ROWS:
            b_is_large = rows < cols
            small, large = (a, b) if b_is_large else (b, a)
            few, many = min(rows, cols), max(rows, cols)
            scratch = self._reserve(few * pitch)
            products = (depth, int(b_is_large), scratch, few, pitch, accumulate, *memory)
            arguments = (*products, *dst, *large)
            work = few * many * depth // _SUMMED
            return [
                self._pack(TaskKind.PACK_ROWS, few, (few, depth), small, scratch, pitch),
                Task(TaskKind.MULTIPLY_DIRECT, many, DIRECT_ROWS, work, arguments),
            ]
        padded_rows, padded_cols = _round_up(rows, BLOCK_ROWS), _round_up(cols, BLOCK_COLS)
        left = self._reserve((padded_rows + padded_cols) * pitch)
        right = left + padded_rows * pitch
        pack_right = TaskKind.PACK_ROWS if transposed else TaskKind.PACK_COLUMNS
        b_shape = (cols, depth) if transposed else (depth, cols)
        arguments = (rows, cols, left, right, pitch, accumulate, *memory, *dst)
        work = rows * cols * depth // _SUMMED
        return [
            self._pack(TaskKind.PACK_ROWS, padded_rows, (rows, depth), a, left, pitch),
            self._pack(pack_right, padded_cols, b_shape, b, right, pitch),
            Task(TaskKind.MULTIPLY_PACKED, padded_rows, BLOCK_ROWS, work, arguments),
        ]

    def loaded_product(self, multiply: Any, load: Any) -> list[Task]:
        """The tasks of a MM of int8 that reads its large operand where a LOAD would: checked
        records (see `fusion`)."""
        rows, cols, depth = (int(multiply[name]) for name in ("rows", "cols", "depth"))
        dst, a, b = (self._operand(multiply, name) for name in ("dst", "a", "b"))
        place = (int(load["argument"]), int(load["global_offset"]), int(load["pitch"]))
        flags = int(multiply["flags"])
        return self._multiply_codes(rows, cols, depth, flags, dst, a, b, loaded=place)

    def _multiply_codes(
        self,
        rows: int,
        cols: int,
        depth: int,
        flags: int,
        dst: Operand,
        a: Operand,
        b: Operand,
        loaded: tuple[int, int, int] | None = None,
    ) -> list[Task]:
        """As `_multiply`, of int8 operands. `loaded`: argument, offset and pitch of the large one
        in global memory, if it has few rows beside it."""
        memory = (self._lane_pitch, self._lanes)
        accumulate = int(bool(flags & BdcFlag.ACCUMULATE))
        transposed = bool(flags & BdcFlag.TRANSPOSE_RIGHT)
        work = rows * cols * depth // _SUMMED_CODES
        if transposed and min(rows, cols) <= FEW_ROWS:
            b_is_large = rows < cols
            small, large = (a, b) if b_is_large else (b, a)
            place = (-1, *large[:2]) if loaded is None else loaded
            few, many = min(rows, cols), max(rows, cols)
            pitch = 2 * int8_products.VECTOR * (depth // int8_products.VECTOR + 1)
            scratch = self._reserve(few * pitch)
            products = (depth, int(b_is_large), scratch, few, pitch, accumulate, *memory)
            arguments = (*products, *dst[:2], *place)
            return [
                self._pack_codes(TaskKind.PACK_CODE_ROWS, few, (few, depth), small, scratch, pitch),
                Task(
                    TaskKind.MULTIPLY_CODES_DIRECT, many, int8_products.DIRECT_ROWS, work, arguments
                ),
            ]
        pitch = 2 * _round_up(depth, int8_products.VECTOR)
        padded_rows, padded_cols = (
            _round_up(rows, int8_products.BLOCK_ROWS),
            _round_up(cols, int8_products.BLOCK_COLS),
        )
        left = self._reserve((padded_rows + padded_cols) * pitch)
        right = left + padded_rows * pitch
        pack_right = TaskKind.PACK_CODE_ROWS if transposed else TaskKind.PACK_CODE_COLUMNS
        b_shape = (cols, depth) if transposed else (depth, cols)
        arguments = (rows, cols, left, right, pitch, accumulate, *memory, *dst[:2])
        return [
            self._pack_codes(TaskKind.PACK_CODE_ROWS, padded_rows, (rows, depth), a, left, pitch),
            self._pack_codes(pack_right, padded_cols, b_shape, b, right, pitch),
            Task(TaskKind.MULTIPLY_CODES, padded_rows, int8_products.BLOCK_ROWS, work, arguments),
        ]

    def _pack_codes(
        self,
        kind: TaskKind,
        units: int,
        shape: tuple[int, int],
        operand: Operand,
        scratch: int,
        pitch: int,
    ) -> Task:
        memory = (self._lane_pitch, self._lanes)
        work = shape[0] * shape[1] // _PACKED_CODES
        return Task(kind, units, 1, work, (*shape, *memory, *operand[:2], scratch, pitch))

    def _pack(
        self,
        kind: TaskKind,
        units: int,
        shape: tuple[int, int],
        operand: Operand,
        scratch: int,
        pitch: int,
    ) -> Task:
        memory = (self._lane_pitch, self._lanes)
        work = shape[0] * shape[1] // _PACKED
        return Task(kind, units, 1, work, (*shape, *memory, *operand, scratch, pitch))

    def _reserve(self, size: int) -> int:
        """The address of `size` bytes of scratch. Commands run one by one: all share it."""
        if self._scratch.nbytes < size:
            # Tasks made before keep the address of the smaller one.
            self._outgrown.append(self._scratch)
            self._scratch = np.empty(_round_up(size, 1 << 20) // 4, np.float32)
        return self._scratch.ctypes.data


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
