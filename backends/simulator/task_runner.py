"""The compiled loop that executes a launch: tasks in order, each shared by the host threads.

A task is a row of an int64 table: a compiled inner loop, how many units (rows) it works on, in how
many chunks, and its other arguments. No unit of a task depends on another one, and a task begins
when the one before it is done (`host_threads`): the result is that of one thread.

Numba keeps the compiled loop in a cache, which by itself would not notice a change of what the loop
calls: inner loops in other modules, and their constants. So the loop has a number made of those
modules' files, and it alone is cached: an entry of other files is never loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.backends.encoding import records
from tilewright.backends.simulator import (
    code_products,
    codes,
    conversions,
    data_mover,
    dequantization,
    dequantized_products,
    dot_products,
    host_threads,
    int8_products,
    matrix_unit,
    vector_unit,
)
from tilewright.backends.simulator.codes import quantize_rows, requant_rows
from tilewright.backends.simulator.conversions import JIT, f32_of_bits
from tilewright.backends.simulator.data_mover import move_rows
from tilewright.backends.simulator.dequantization import dequant_rows
from tilewright.backends.simulator.dequantized_products import multiply_dequantized
from tilewright.backends.simulator.host_threads import (
    FOUND,
    POSITION_BIT,
    current_claim,
    finish_chunk,
    take_chunk,
    wait_a_little,
)
from tilewright.backends.simulator.int8_products import (
    multiply_codes,
    multiply_codes_direct,
    pack_code_columns,
    pack_code_rows,
)
from tilewright.backends.simulator.matrix_unit import (
    multiply_direct,
    multiply_packed,
    pack_columns,
    pack_rows,
)
from tilewright.backends.simulator.vector_unit import transpose_rows, vector_rows
from tilewright.dialects import element_types


class TaskKind(IntEnum):
    """The inner loop that a task calls."""

    MOVE_ROWS = 0
    DEQUANT_ROWS = 1
    VECTOR_ROWS = 2
    TRANSPOSE_ROWS = 3
    PACK_ROWS = 4
    PACK_COLUMNS = 5
    MULTIPLY_PACKED = 6
    MULTIPLY_DIRECT = 7
    PACK_CODE_ROWS = 8
    PACK_CODE_COLUMNS = 9
    MULTIPLY_CODES = 10
    MULTIPLY_CODES_DIRECT = 11
    QUANTIZE_ROWS = 12
    REQUANT_ROWS = 13
    MULTIPLY_DEQUANTIZED = 14


KIND, UNITS, CHUNK, CHUNKS, ARGUMENTS = 0, 1, 2, 3, 4
"""Columns of the table. Chunk number `c` of `CHUNKS` begins at unit `c * CHUNK`."""

TASK_WORDS = ARGUMENTS + 22

_MOVE, _DEQUANT = int(TaskKind.MOVE_ROWS), int(TaskKind.DEQUANT_ROWS)
_VECTOR, _TRANSPOSE = int(TaskKind.VECTOR_ROWS), int(TaskKind.TRANSPOSE_ROWS)
_PACK_ROWS, _PACK_COLUMNS = int(TaskKind.PACK_ROWS), int(TaskKind.PACK_COLUMNS)
_MULTIPLY_PACKED = int(TaskKind.MULTIPLY_PACKED)
_MULTIPLY_DIRECT = int(TaskKind.MULTIPLY_DIRECT)
_PACK_CODE_ROWS, _PACK_CODE_COLUMNS = int(TaskKind.PACK_CODE_ROWS), int(TaskKind.PACK_CODE_COLUMNS)
_MULTIPLY_CODES = int(TaskKind.MULTIPLY_CODES)
_MULTIPLY_CODES_DIRECT = int(TaskKind.MULTIPLY_CODES_DIRECT)
_QUANTIZE = int(TaskKind.QUANTIZE_ROWS)
_MULTIPLY_DEQUANTIZED = int(TaskKind.MULTIPLY_DEQUANTIZED)


def _words(count: int) -> Any:
    """A compiled function: the `count` int64 numbers at an address, as a tuple."""

    @intrinsic
    def words(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            start = builder.inttoptr(arguments[0], word.as_pointer())
            places = [cgutils.gep_inbounds(builder, start, i) for i in range(count)]
            values = [builder.load(place) for place in places]
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(types.int64, count)(types.int64), generate

    return words


_words_8, _words_9, _words_10, _words_11 = _words(8), _words(9), _words(10), _words(11)
_words_12, _words_13, _words_14, _words_15 = _words(12), _words(13), _words(14), _words(15)
_words_18, _words_22 = _words(18), _words(22)


@njit(**JIT)
def _move(first: Any, last: Any, words: Any, bases: Any) -> Any:
    """A GDMA task: its rows name arguments, whose addresses are those of the launch."""
    to_local, row_bytes, lane_pitch, lanes, tile, stride = words[:6]
    argument, offset, pitch, index_argument, index_offset, table_rows = words[6:]
    indices = bases[index_argument] + index_offset if index_argument >= 0 else 0
    view = bases[argument] + offset
    local = (to_local, row_bytes, lane_pitch, lanes, tile, stride)
    return move_rows(first, last, *local, view, pitch, indices, table_rows)


@njit(**JIT)
def _multiply_dequantized(first: Any, last: Any, words: Any, bases: Any) -> None:
    """A MM that dequantizes: its codes are in local memory, or where an argument is."""
    lanes, argument, codes = words[8], words[14], words[15]
    if argument >= 0:
        lanes, codes = 1, bases[argument] + codes
    where = (codes, words[16], lanes)
    arguments = (*words[:14], *where, *words[17:])
    multiply_dequantized(first, last, *arguments)


@njit(**JIT)
def _multiply_codes_direct(first: Any, last: Any, words: Any, bases: Any) -> None:
    """A MM of int8: its large operand is in local memory, or where an argument is."""
    lanes, argument, codes = words[7], words[10], words[11]
    if argument >= 0:
        lanes, codes = 1, bases[argument] + codes
    multiply_codes_direct(first, last, *words[:10], codes, words[12], lanes)


@njit(**JIT)
def _execute(table: Any, task: Any, first: Any, last: Any, bases: Any) -> Any:
    """Units `[first, last)` of a task. Returns -1, or the row whose index is out of range."""
    kind = table[task, KIND]
    at = table.ctypes.data + 8 * (task * TASK_WORDS + ARGUMENTS)
    if kind == _MOVE:
        return _move(first, last, _words_12(at), bases)
    if kind == _DEQUANT:
        dequant_rows(first, last, *_words_15(at))
    elif kind == _VECTOR:
        words = _words_18(at)
        immediate = f32_of_bits(np.uint32(words[5]))
        arguments = (*words[:5], immediate, *words[6:])
        vector_rows(first, last, *arguments)
    elif kind == _TRANSPOSE:
        transpose_rows(first, last, *_words_8(at))
    elif kind == _PACK_ROWS:
        pack_rows(first, last, *_words_9(at))
    elif kind == _PACK_COLUMNS:
        pack_columns(first, last, *_words_9(at))
    elif kind == _MULTIPLY_PACKED:
        multiply_packed(first, last, *_words_11(at))
    elif kind == _MULTIPLY_DIRECT:
        multiply_direct(first, last, *_words_14(at))
    elif kind == _PACK_CODE_ROWS:
        pack_code_rows(first, last, *_words_8(at))
    elif kind == _PACK_CODE_COLUMNS:
        pack_code_columns(first, last, *_words_8(at))
    elif kind == _MULTIPLY_CODES:
        multiply_codes(first, last, *_words_10(at))
    elif kind == _MULTIPLY_CODES_DIRECT:
        _multiply_codes_direct(first, last, _words_13(at), bases)
    elif kind == _MULTIPLY_DEQUANTIZED:
        _multiply_dequantized(first, last, _words_22(at), bases)
    elif kind == _QUANTIZE:
        quantize_rows(first, last, *_words_9(at))
    else:
        requant_rows(first, last, *_words_9(at))
    return -1


def fingerprint_of(modules: list[ModuleType]) -> int:
    """A number for what the modules' files contain."""
    digest = hashlib.sha256()
    for module in modules:
        if module.__file__ is not None:
            digest.update(Path(module.__file__).read_bytes())
    return int.from_bytes(digest.digest()[:7], "little")


def _make_run_tasks(fingerprint: int) -> Callable[..., None]:
    @njit(cache=True, **JIT)
    def run_tasks(
        table: Any, order: Any, bases: Any, thread: Any, threads: Any, state: Any
    ) -> None:
        """Thread `thread` of `threads`: its part of the tasks of `table`, in `order`.

        `bases` are the host addresses of the launch's arguments. Returns when all tasks are done,
        or one has met an index out of range: `state[FOUND]` is then its place in `order`, counted
        from 1, and the next word the row.
        """
        _ = fingerprint  # What a closure refers to is part of the cache's key.
        if threads == 1:
            for position in range(len(order)):
                task = order[position]
                bad = _execute(table, task, 0, table[task, UNITS], bases)
                if bad >= 0:
                    state[FOUND], state[FOUND + 1] = position + 1, bad
                    return
            return
        looks = 0
        while True:
            claim = current_claim(state)
            position = claim >> POSITION_BIT
            if claim < 0 or position >= len(order):
                return
            task = order[position]
            chunks = table[task, CHUNKS]
            chunk = take_chunk(state, claim, chunks, thread)
            if chunk < 0:
                wait_a_little(looks)
                looks += 1
                continue
            looks = 0
            first = chunk * table[task, CHUNK]
            last = min(first + table[task, CHUNK], table[task, UNITS])
            bad = _execute(table, task, first, last, bases)
            following = position + 1
            if bad >= 0:
                state[FOUND], state[FOUND + 1] = position + 1, bad
                following = len(order)
            finish_chunk(state, chunks, following)

    return run_tasks


COMPILED_MODULES = [
    element_types,
    records,
    code_products,
    codes,
    conversions,
    data_mover,
    dequantization,
    dequantized_products,
    dot_products,
    host_threads,
    int8_products,
    matrix_unit,
    vector_unit,
]
"""Beside this one, the modules that compiled code comes from."""

run_tasks = _make_run_tasks(fingerprint_of(COMPILED_MODULES))
