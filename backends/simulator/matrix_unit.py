"""The matrix unit: what MM computes, by blocks of dot products.

Two ways with the same result to the bit (see `dot_products`): operands converted to f32 in scratch
rows and multiplied block by block; or, where one operand has few rows (decoding: the weight tile is
the left operand, x is a row), the large operand read once, where it lies. Functions take a range of
rows, so that threads can share a command.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from tilewright.backends.simulator.conversions import (
    F16,
    F32,
    JIT,
    bf16_bits_of_f32,
    f16_bits_of_f32,
    load_row,
    pointer,
    row_address,
)
from tilewright.backends.simulator.dot_products import (
    BLOCK_COLS,
    BLOCK_ROWS,
    DIRECT_ROWS,
    VECTOR,
    direct_block_bf16,
    direct_block_f16,
    direct_block_f32,
    packed_block,
)

CACHED_ROWS = 2 * BLOCK_ROWS
"""Rows of the left operand that meet all of the right one while they are in the cache."""


@njit(**JIT)
def pack_rows(
    first: Any,
    last: Any,
    rows: Any,
    cols: Any,
    lane_pitch: Any,
    lanes: Any,
    tile: Any,
    stride: Any,
    element: Any,
    scratch: Any,
    pitch: Any,
) -> None:
    """Rows `[first, last)` of a tile to f32 rows of `pitch` bytes, filled up with zeros.

    Rows from `rows` on are zero.
    """
    for row in range(first, last):
        out = carray(pointer(scratch + row * pitch), pitch // 4, np.float32)
        if row < rows:
            load_row(row_address(tile, lane_pitch, lanes, stride, row), cols, element, out)
            out[cols:] = np.float32(0.0)
        else:
            out[:] = np.float32(0.0)


@njit(**JIT)
def pack_columns(
    first: Any,
    last: Any,
    rows: Any,
    cols: Any,
    lane_pitch: Any,
    lanes: Any,
    tile: Any,
    stride: Any,
    element: Any,
    scratch: Any,
    pitch: Any,
) -> None:
    """Columns `[first, last)` of a tile to f32 rows of `pitch` bytes, filled up with zeros.

    Columns from `cols` on are zero.
    """
    end = min(last, cols)
    size = 4 if element == F32 else 2
    block = np.empty((VECTOR, max(end - first, 1)), np.float32)
    for row in range(0, pitch // 4, VECTOR):
        for i in range(VECTOR):
            if row + i < rows and end > first:
                source = row_address(tile, lane_pitch, lanes, stride, row + i) + first * size
                load_row(source, end - first, element, block[i])
            else:
                block[i] = np.float32(0.0)
        for col in range(first, last):
            out = carray(pointer(scratch + col * pitch + 4 * row), VECTOR, np.float32)
            for i in range(VECTOR):
                out[i] = block[i, col - first] if col < end else np.float32(0.0)


@njit(**JIT)
def put_sum(value: Any, accumulate: Any, element: Any, address: Any) -> None:
    """Write one sum, or add it to the one that is there (f32)."""
    if element == F32:
        single = carray(pointer(address), 1, np.float32)
        single[0] = single[0] + value if accumulate else value
    elif element == F16:
        carray(pointer(address), 1, np.uint16)[0] = f16_bits_of_f32(value)
    else:
        carray(pointer(address), 1, np.uint16)[0] = bf16_bits_of_f32(value)


@njit(**JIT)
def multiply_packed(
    first: Any,
    last: Any,
    rows: Any,
    cols: Any,
    left: Any,
    right: Any,
    pitch: Any,
    accumulate: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    dst_element: Any,
) -> None:
    """Rows `[first, last)` of the product of packed operands, `first` a multiple of `BLOCK_ROWS`.

    Packed operands have whole blocks of rows; what the filling yields is dropped.
    """
    size = 4 if dst_element == F32 else 2
    sums = np.empty(BLOCK_ROWS * BLOCK_COLS, np.float32)
    steps = pitch // (4 * VECTOR)
    for group in range(first, last, CACHED_ROWS):
        for col in range(0, cols, BLOCK_COLS):
            for row in range(group, min(group + CACHED_ROWS, last), BLOCK_ROWS):
                packed_block(
                    left + row * pitch, right + col * pitch, pitch, steps, sums.ctypes.data
                )
                for i in range(min(BLOCK_ROWS, rows - row)):
                    target = row_address(dst, lane_pitch, lanes, dst_stride, row + i)
                    for j in range(min(BLOCK_COLS, cols - col)):
                        value = sums[i * BLOCK_COLS + j]
                        put_sum(value, accumulate, dst_element, target + (col + j) * size)


@njit(**JIT)
def multiply_direct(
    first: Any,
    last: Any,
    depth: Any,
    large_is_right: Any,
    small: Any,
    small_rows: Any,
    pitch: Any,
    accumulate: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    dst_element: Any,
    large: Any,
    large_stride: Any,
    element: Any,
) -> None:
    """Rows `[first, last)` of the large operand, in place, times the small one's packed rows."""
    size = 4 if dst_element == F32 else 2
    sums = np.empty(DIRECT_ROWS, np.float32)
    out = sums.ctypes.data
    for row in range(first, last, DIRECT_ROWS):
        end = last - 1
        a0 = row_address(large, lane_pitch, lanes, large_stride, row)
        a1 = row_address(large, lane_pitch, lanes, large_stride, min(row + 1, end))
        a2 = row_address(large, lane_pitch, lanes, large_stride, min(row + 2, end))
        a3 = row_address(large, lane_pitch, lanes, large_stride, min(row + 3, end))
        for other in range(small_rows):
            right = small + other * pitch
            if element == F32:
                direct_block_f32(a0, a1, a2, a3, right, depth, out)
            elif element == F16:
                direct_block_f16(a0, a1, a2, a3, right, depth, out)
            else:
                direct_block_bf16(a0, a1, a2, a3, right, depth, out)
            for i in range(min(DIRECT_ROWS, last - row)):
                r, c = (other, row + i) if large_is_right else (row + i, other)
                target = row_address(dst, lane_pitch, lanes, dst_stride, r) + c * size
                put_sum(sums[i], accumulate, dst_element, target)
