"""The inner loops of tasks, each compiled when a launch first has a task of its kind.

Each is a C function of its own, `loop(first, last, words, bases)`: units `[first, last)` of a task
whose arguments are the int64 numbers from the address `words` on; `bases` is the address of those
of the launch's arguments. It returns -1, or the row whose index is out of range. So a first run
compiles the loops that its program uses, once each: inlined into one function that executes all
kinds of tasks, they would be optimized again with it, needed or not.

Numba keeps compiled loops in a cache, which by itself would not notice a change of what a loop
calls: functions in other modules, and their constants. So loops refer to a number made of those
modules' files: an entry of other files is never loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.backends.encoding import records
from tilewright.backends.encoding.operands import Int64Array
from tilewright.backends.simulator import (
    code_products,
    codes,
    conversions,
    data_mover,
    dequantization,
    dequantized_products,
    dot_products,
    int8_products,
    matrix_unit,
    vector_unit,
)
from tilewright.backends.simulator.codes import quantize_rows, requant_rows
from tilewright.backends.simulator.conversions import JIT, f32_of_bits
from tilewright.backends.simulator.data_mover import move_rows
from tilewright.backends.simulator.dequantization import dequant_rows
from tilewright.backends.simulator.dequantized_products import multiply_dequantized
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
_words_18, _words_21 = _words(18), _words(21)


def fingerprint_of(modules: list[ModuleType]) -> int:
    """A number for what the modules' files contain."""
    digest = hashlib.sha256()
    for module in modules:
        if module.__file__ is not None:
            digest.update(Path(module.__file__).read_bytes())
    return int.from_bytes(digest.digest()[:7], "little")


def _make_loops(fingerprint: int) -> dict[TaskKind, Callable[..., int]]:
    """The loops, yet to be compiled. What a closure refers to is part of the cache's key."""

    def move(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        numbers = _words_12(words)
        to_local, row_bytes, lane_pitch, lanes, tile, stride = numbers[:6]
        argument, offset, pitch, index_argument, index_offset, table_rows = numbers[6:]
        indices = 0
        if index_argument >= 0:
            indices = _word(bases, index_argument) + index_offset
        view = _word(bases, argument) + offset
        local = (to_local, row_bytes, lane_pitch, lanes, tile, stride)
        return move_rows(first, last, *local, view, pitch, indices, table_rows)

    def vector(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        numbers = _words_18(words)
        immediate = f32_of_bits(np.uint32(numbers[5]))
        arguments = (*numbers[:5], immediate, *numbers[6:])
        vector_rows(first, last, *arguments)
        return -1

    def product_of_dequantized(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        numbers = _words_21(words)
        lanes, argument, codes = numbers[8], numbers[14], numbers[15]
        if argument >= 0:
            lanes, codes = 1, _word(bases, argument) + codes
        where = (codes, numbers[16], lanes)
        arguments = (*numbers[:14], *where, *numbers[17:])
        multiply_dequantized(first, last, *arguments)
        return -1

    def direct_product_of_codes(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        numbers = _words_13(words)
        lanes, argument, codes = numbers[7], numbers[10], numbers[11]
        if argument >= 0:
            lanes, codes = 1, _word(bases, argument) + codes
        arguments: Any = (*numbers[:10], codes, numbers[12], lanes)
        multiply_codes_direct(first, last, *arguments)
        return -1

    def dequant(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        dequant_rows(first, last, *_words_15(words))
        return -1

    def transpose(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        transpose_rows(first, last, *_words_8(words))
        return -1

    def rows_to_f32(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        pack_rows(first, last, *_words_9(words))
        return -1

    def columns_to_f32(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        pack_columns(first, last, *_words_9(words))
        return -1

    def product(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        multiply_packed(first, last, *_words_11(words))
        return -1

    def direct_product(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        multiply_direct(first, last, *_words_14(words))
        return -1

    def rows_to_i16(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        pack_code_rows(first, last, *_words_8(words))
        return -1

    def columns_to_i16(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        pack_code_columns(first, last, *_words_8(words))
        return -1

    def product_of_codes(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        multiply_codes(first, last, *_words_10(words))
        return -1

    def quantize(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        quantize_rows(first, last, *_words_9(words))
        return -1

    def requant(first: Any, last: Any, words: Any, bases: Any) -> Any:
        _ = fingerprint
        requant_rows(first, last, *_words_9(words))
        return -1

    return {
        TaskKind.MOVE_ROWS: move,
        TaskKind.VECTOR_ROWS: vector,
        TaskKind.MULTIPLY_DEQUANTIZED: product_of_dequantized,
        TaskKind.MULTIPLY_CODES_DIRECT: direct_product_of_codes,
        TaskKind.DEQUANT_ROWS: dequant,
        TaskKind.TRANSPOSE_ROWS: transpose,
        TaskKind.PACK_ROWS: rows_to_f32,
        TaskKind.PACK_COLUMNS: columns_to_f32,
        TaskKind.MULTIPLY_PACKED: product,
        TaskKind.MULTIPLY_DIRECT: direct_product,
        TaskKind.PACK_CODE_ROWS: rows_to_i16,
        TaskKind.PACK_CODE_COLUMNS: columns_to_i16,
        TaskKind.MULTIPLY_CODES: product_of_codes,
        TaskKind.QUANTIZE_ROWS: quantize,
        TaskKind.REQUANT_ROWS: requant,
    }


@intrinsic
def _word(typing_context: Any, address: Any, index: Any) -> Any:
    """The int64 number at `address + 8 * index`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(builder.gep(start, [arguments[1]]))

    return types.int64(types.int64, types.int64), generate


COMPILED_MODULES = [
    records,
    code_products,
    codes,
    conversions,
    data_mover,
    dequantization,
    dequantized_products,
    dot_products,
    element_types,
    int8_products,
    matrix_unit,
    vector_unit,
]
"""Beside this one, the modules that compiled loops come from."""

_LOOPS = _make_loops(fingerprint_of(COMPILED_MODULES))
_SIGNATURE = types.int64(types.int64, types.int64, types.int64, types.int64)


@cache
def compiled_loop(kind: TaskKind) -> Any:
    """The C function that does tasks of a kind, compiled or from the cache."""
    return cfunc(_SIGNATURE, cache=True, **JIT)(_LOOPS[kind])


def loop_addresses(kinds: Iterable[int]) -> Int64Array:
    """By number of kind, the address of the loop of each of `kinds`; 0 for other kinds."""
    addresses = np.zeros(len(TaskKind), np.int64)
    for kind in set(kinds):
        addresses[kind] = compiled_loop(TaskKind(kind)).address
    return addresses
