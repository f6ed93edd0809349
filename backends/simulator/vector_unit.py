"""The vector unit: what UNARY, BINARY, REDUCE, FILL, ROTATE and TRANSPOSE compute.

Every function works on the rows `[first, last)` of one command, so that threads can share it; rows
do not depend on each other. Tiles are addresses in lane 0. Functions that are not arithmetic are
evaluated in f64 by the C library and rounded to f32: within 1 ulp of f32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray, njit

from tilewright.backends.encoding.records import BdcOpcode, BinaryCode, ReduceCode, UnaryCode
from tilewright.backends.simulator.conversions import (
    JIT,
    load_row,
    pointer,
    row_address,
    store_row,
)

UNARY, BINARY, REDUCE = int(BdcOpcode.UNARY), int(BdcOpcode.BINARY), int(BdcOpcode.REDUCE)
FILL = int(BdcOpcode.FILL)
NEG, ABS, SQRT = int(UnaryCode.NEG), int(UnaryCode.ABS), int(UnaryCode.SQRT)
RSQRT, RECIPROCAL, EXP = int(UnaryCode.RSQRT), int(UnaryCode.RECIPROCAL), int(UnaryCode.EXP)
SIGMOID, TANH, ERF = int(UnaryCode.SIGMOID), int(UnaryCode.TANH), int(UnaryCode.ERF)
ADD, SUB, MUL = int(BinaryCode.ADD), int(BinaryCode.SUB), int(BinaryCode.MUL)
DIV, MAX = int(BinaryCode.DIV), int(BinaryCode.MAX)
REDUCE_SUM, REDUCE_MAX = int(ReduceCode.SUM), int(ReduceCode.MAX)

FULL, ROW, COLUMN = 0, 1, 2
"""`BMode` of a right operand in memory; an immediate is `IMMEDIATE`."""

PARTIAL_SUMS = 16
"""A reduction has this many interleaved partial results, combined by halves."""


@njit(**JIT)
def vector_rows(
    first: Any,
    last: Any,
    opcode: Any,
    function: Any,
    cols: Any,
    depth: Any,
    interleaved: Any,
    immediate: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    dst_element: Any,
    a: Any,
    a_stride: Any,
    a_element: Any,
    b: Any,
    b_stride: Any,
    b_element: Any,
    b_mode: Any,
) -> None:
    """Rows `[first, last)` of a UNARY, BINARY, REDUCE, FILL or ROTATE command.

    `b_stride` is 0 for a row that every lane holds a copy of.
    """
    x = np.empty(cols, np.float32)
    y = np.empty(cols if opcode == BINARY else 1, np.float32)
    if opcode == FILL or b_mode == 3:
        y[:] = np.float32(immediate)
    for row in range(first, last):
        target = row_address(dst, lane_pitch, lanes, dst_stride, row)
        if opcode == FILL:
            x[:] = y[0]
        else:
            load_row(row_address(a, lane_pitch, lanes, a_stride, row), cols, a_element, x)
        width = cols
        if opcode == UNARY:
            _unary(function, x)
        elif opcode == BINARY:
            source = row_address(b, lane_pitch, lanes, b_stride, row)
            if b_mode == COLUMN:
                load_row(source, 1, b_element, y)
                y[:] = y[0]
            elif b_mode != 3:
                load_row(source, cols, b_element, y)
            _binary(function, x, y)
        elif opcode == REDUCE:
            x[0] = _reduce(function, x)
            width = 1
        elif opcode != FILL:
            _rotate(x, depth, interleaved)
        store_row(x, width, dst_element, target)


@njit(**JIT)
def _unary(function: Any, x: Any) -> None:
    n = len(x)
    if function == NEG:
        for i in range(n):
            x[i] = -x[i]
    elif function == ABS:
        for i in range(n):
            x[i] = abs(x[i])
    elif function == SQRT:
        for i in range(n):
            x[i] = np.sqrt(x[i])
    elif function == RSQRT:
        for i in range(n):
            x[i] = np.float32(1.0 / np.sqrt(np.float64(x[i])))
    elif function == RECIPROCAL:
        for i in range(n):
            x[i] = np.float32(1.0) / x[i]
    elif function == EXP:
        for i in range(n):
            x[i] = np.float32(math.exp(np.float64(x[i])))
    elif function == SIGMOID:
        for i in range(n):
            x[i] = np.float32(1.0 / (1.0 + math.exp(-np.float64(x[i]))))
    elif function == TANH:
        for i in range(n):
            x[i] = np.float32(math.tanh(np.float64(x[i])))
    elif function == ERF:
        for i in range(n):
            x[i] = np.float32(math.erf(np.float64(x[i])))


@njit(**JIT)
def _max(a: Any, b: Any) -> Any:
    """The larger one; a NaN if one is."""
    return a if (a > b or a != a) else b


@njit(**JIT)
def _min(a: Any, b: Any) -> Any:
    """The smaller one; a NaN if one is."""
    return a if (a < b or a != a) else b


@njit(**JIT)
def _binary(function: Any, x: Any, y: Any) -> None:
    n = len(x)
    if function == ADD:
        for i in range(n):
            x[i] += y[i]
    elif function == SUB:
        for i in range(n):
            x[i] -= y[i]
    elif function == MUL:
        for i in range(n):
            x[i] *= y[i]
    elif function == DIV:
        for i in range(n):
            x[i] /= y[i]
    elif function == MAX:
        for i in range(n):
            x[i] = _max(x[i], y[i])
    else:
        for i in range(n):
            x[i] = _min(x[i], y[i])


@njit(**JIT)
def _combine(function: Any, a: Any, b: Any) -> Any:
    if function == REDUCE_SUM:
        return a + b
    return _max(a, b) if function == REDUCE_MAX else _min(a, b)


@njit(**JIT)
def _reduce(function: Any, x: Any) -> Any:
    n = len(x)
    if function == REDUCE_SUM:
        neutral = np.float32(0.0)
    else:
        neutral = np.float32(-np.inf) if function == REDUCE_MAX else np.float32(np.inf)
    partial = np.full(PARTIAL_SUMS, neutral)
    whole = n - n % PARTIAL_SUMS
    if function == REDUCE_SUM:
        for i in range(0, whole, PARTIAL_SUMS):
            for j in range(PARTIAL_SUMS):
                partial[j] += x[i + j]
    elif function == REDUCE_MAX:
        for i in range(0, whole, PARTIAL_SUMS):
            for j in range(PARTIAL_SUMS):
                partial[j] = _max(partial[j], x[i + j])
    else:
        for i in range(0, whole, PARTIAL_SUMS):
            for j in range(PARTIAL_SUMS):
                partial[j] = _min(partial[j], x[i + j])
    for j in range(n - whole):
        partial[j] = _combine(function, partial[j], x[whole + j])
    width = PARTIAL_SUMS
    while width > 1:
        width //= 2
        for j in range(width):
            partial[j] = _combine(function, partial[j], partial[j + width])
    return partial[0]


@njit(**JIT)
def _rotate(x: Any, turned: Any, interleaved: Any) -> None:
    """`(p, q)` becomes `(-q, p)`, for pairs of the first `turned` columns."""
    step = 1 if interleaved else turned // 2
    for pair in range(turned // 2):
        i = 2 * pair if interleaved else pair
        first = x[i]
        x[i] = -x[i + step]
        x[i + step] = first
    x[turned:] = np.float32(0.0)


@njit(**JIT)
def transpose_rows(
    first: Any,
    last: Any,
    cols: Any,
    size: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    a: Any,
    a_stride: Any,
) -> None:
    """Rows `[first, last)` of `a` to columns of `dst`, elements of `size` bytes."""
    for row in range(first, last):
        source = pointer(row_address(a, lane_pitch, lanes, a_stride, row))
        for col in range(cols):
            target = pointer(row_address(dst, lane_pitch, lanes, dst_stride, col) + row * size)
            if size == 4:
                carray(target, 1, np.uint32)[0] = carray(source, cols, np.uint32)[col]
            elif size == 2:
                carray(target, 1, np.uint16)[0] = carray(source, cols, np.uint16)[col]
            else:
                carray(target, 1, np.uint8)[0] = carray(source, cols, np.uint8)[col]
