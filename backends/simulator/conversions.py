"""Rows of storage types to and from rows of f32, in compiled code.

All arithmetic of the vector unit is f32: operands convert exactly, results round once, to nearest
even. Memory is addressed by plain integers, so that one compiled form serves local memory, mapped
weights and scratch alike; whoever passes an address has checked its range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.dialects.element_types import BF16 as BF16_ELEMENT
from tilewright.dialects.element_types import F16 as F16_ELEMENT
from tilewright.dialects.element_types import F32 as F32_ELEMENT

JIT = {"nogil": True, "error_model": "numpy"}
"""Options of every compiled function: other threads run meanwhile, and 1 / 0 is infinity.

Not cached one by one: see `task_runner`.
"""

F32 = F32_ELEMENT.code
F16 = F16_ELEMENT.code
BF16 = BF16_ELEMENT.code

_QUIET = np.uint32(0x40)
_HALF_ULP = np.uint32(0x7FFF)
_SIXTEEN = np.uint32(16)
_ONE = np.uint32(1)


@intrinsic
def pointer(typing_context: Any, address: Any) -> Any:
    """The pointer with that address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def look_ahead(builder: Any, address: Any) -> None:
    """Ask for the line of memory at an address, which need not exist."""
    place = builder.inttoptr(address, cgutils.voidptr_t)
    word = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [place, word(0), word(3), word(1)])


@intrinsic
def f32_of_f16_bits(typing_context: Any, bits: Any) -> Any:
    """The f32 value of an f16 in a uint16. Numba has no f16 on CPUs; LLVM does."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def f16_bits_of_f32(typing_context: Any, value: Any) -> Any:
    """An f32 rounded to nearest even f16, in a uint16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@intrinsic
def bits_of_f32(typing_context: Any, value: Any) -> Any:
    """The bits of an f32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def f32_of_bits(typing_context: Any, bits: Any) -> Any:
    """The f32 that has these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@njit(**JIT)
def f32_of_bf16_bits(bits: Any) -> Any:
    """The f32 value of a bf16 in a uint16."""
    return f32_of_bits(np.uint32(bits) << _SIXTEEN)


@njit(**JIT)
def bf16_bits_of_f32(value: Any) -> Any:
    """An f32 rounded to nearest even bf16, in a uint16; a NaN stays one."""
    bits = bits_of_f32(value)
    high = bits >> _SIXTEEN
    rounded = (bits + _HALF_ULP + (high & _ONE)) >> _SIXTEEN
    return np.uint16(high | _QUIET if value != value else rounded)


@njit(**JIT)
def load_row(address: Any, cols: Any, element: Any, out: Any) -> None:
    """`cols` elements at `address` to `out[:cols]` (f32), exactly."""
    if element == F32:
        singles = carray(pointer(address), cols, np.float32)
        for i in range(cols):
            out[i] = singles[i]
    elif element == F16:
        halves = carray(pointer(address), cols, np.uint16)
        for i in range(cols):
            out[i] = f32_of_f16_bits(halves[i])
    else:
        brains = carray(pointer(address), cols, np.uint16)
        for i in range(cols):
            out[i] = f32_of_bf16_bits(brains[i])


@njit(**JIT)
def store_row(values: Any, cols: Any, element: Any, address: Any) -> None:
    """`values[:cols]` (f32) to `address`, each rounded once."""
    if element == F32:
        singles = carray(pointer(address), cols, np.float32)
        for i in range(cols):
            singles[i] = values[i]
    elif element == F16:
        halves = carray(pointer(address), cols, np.uint16)
        for i in range(cols):
            halves[i] = f16_bits_of_f32(values[i])
    else:
        brains = carray(pointer(address), cols, np.uint16)
        for i in range(cols):
            brains[i] = bf16_bits_of_f32(values[i])


@njit(**JIT)
def row_address(tile: Any, lane_pitch: Any, lanes: Any, stride: Any, row: Any) -> Any:
    """Where row `row` of a tile starts: lane `row % lanes`, slot `row // lanes`."""
    return tile + (row % lanes) * lane_pitch + (row // lanes) * stride
