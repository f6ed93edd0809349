"""DEQUANT and a MM with few rows as one task: codes are read once, and never written as floats.

`fusion` says where that may be done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from tilewright.backends.encoding.records import CodeCode
from tilewright.backends.simulator.code_products import (
    codes_block_f8e4m3_bf16,
    codes_block_f8e4m3_f16,
    codes_block_f8e5m2_bf16,
    codes_block_f8e5m2_f16,
    codes_block_i8_bf16,
    codes_block_i8_f16,
    codes_block_i8_small_f16,
    codes_block_nibbles_bf16,
    codes_block_nibbles_f16,
)
from tilewright.backends.simulator.conversions import F16, F32, JIT, load_row, pointer, row_address
from tilewright.backends.simulator.dot_products import DIRECT_ROWS, VECTOR
from tilewright.backends.simulator.matrix_unit import put_sum

I8, I4, U4 = int(CodeCode.I8), int(CodeCode.I4), int(CodeCode.U4)
F8E4M3 = int(CodeCode.F8E4M3)

TOO_LARGE = np.float32(2.0**8)
"""Products of integers up to 255 with scales up to here, this one left out, are finite f16."""


@njit(**JIT)
def multiply_dequantized(
    first: Any,
    last: Any,
    depth: Any,
    group: Any,
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
    code_format: Any,
    element: Any,
    codes: Any,
    codes_stride: Any,
    codes_lanes: Any,
    scales: Any,
    scales_stride: Any,
    zeros: Any,
    zeros_stride: Any,
) -> None:
    """Rows `[first, last)` of codes, dequantized to `element`, times the small operand's packed
    rows.

    `codes_lanes` is 1 where the codes are read from global memory, `codes_stride` bytes from row to
    row; else they lie over the lanes. `group` is 0 for one group a row, `zeros` 0 where there are
    no zero points.
    """
    size = 4 if dst_element == F32 else 2
    sums = np.empty(DIRECT_ROWS, np.float32)
    out = sums.ctypes.data
    groups = depth // group if group > 0 else 1
    steps = group // VECTOR if group > 0 else depth // VECTOR
    rest = 0 if group > 0 else depth % VECTOR
    signed = 8 if code_format == I4 else 0
    factors = np.empty((DIRECT_ROWS, groups), np.float32)
    points = np.zeros((DIRECT_ROWS, groups), np.float32)
    known = (factors.ctypes.data, points.ctypes.data)
    # Asked for while the four before them are read; in local memory, that is of no use.
    ahead = DIRECT_ROWS * codes_stride if codes_lanes == 1 else 0
    places = np.empty((DIRECT_ROWS, 2), np.int64)
    held = np.empty(DIRECT_ROWS, np.int64)
    for row in range(first, last, DIRECT_ROWS):
        count = min(DIRECT_ROWS, last - row)
        # One division for all of them: it takes as long as dozens of products.
        lane, slot = row % lanes, row // lanes
        for i in range(count):
            places[i, 0], places[i, 1] = lane, slot
            held[i] = codes + (row + i) * codes_stride
            if codes_lanes != 1:
                held[i] = codes + lane * lane_pitch + slot * codes_stride
            load_row(scales + lane * lane_pitch + slot * scales_stride, groups, element, factors[i])
            if zeros != 0:
                source = pointer(zeros + lane * lane_pitch + slot * zeros_stride)
                integers = carray(source, groups, np.int8)
                for j in range(groups):
                    points[i, j] = np.float32(integers[j])
            lane += 1
            if lane == lanes:
                lane, slot = 0, slot + 1
        small_scales = True
        for i in range(count):
            for j in range(groups):
                small_scales &= abs(factors[i, j]) < TOO_LARGE
        for i in range(count, DIRECT_ROWS):
            held[i] = held[count - 1]
        rows = (held[0], held[1], held[2], held[3])
        for other in range(small_rows):
            right = small + other * pitch
            last_ones = (ahead, signed, right, groups, steps, rest, out)
            _block(code_format, element, small_scales, rows, known, last_ones)
            if large_is_right:
                target = row_address(dst, lane_pitch, lanes, dst_stride, other) + row * size
                for i in range(count):
                    put_sum(sums[i], accumulate, dst_element, target + i * size)
            else:
                for i in range(count):
                    at = places[i, 0] * lane_pitch + places[i, 1] * dst_stride
                    put_sum(sums[i], accumulate, dst_element, dst + at + other * size)


@njit(**JIT)
def _block(
    code_format: Any, element: Any, small_scales: Any, held: Any, known: Any, others: Any
) -> None:
    if code_format == I8:
        if element == F16 and small_scales:
            codes_block_i8_small_f16(*held, *known, *others)
        elif element == F16:
            codes_block_i8_f16(*held, *known, *others)
        else:
            codes_block_i8_bf16(*held, *known, *others)
    elif code_format in (I4, U4):
        if element == F16:
            codes_block_nibbles_f16(*held, *known, *others)
        else:
            codes_block_nibbles_bf16(*held, *known, *others)
    elif code_format == F8E4M3:
        if element == F16:
            codes_block_f8e4m3_f16(*held, *known, *others)
        else:
            codes_block_f8e4m3_bf16(*held, *known, *others)
    elif element == F16:
        codes_block_f8e5m2_f16(*held, *known, *others)
    else:
        codes_block_f8e5m2_bf16(*held, *known, *others)
