"""DEQUANT and a MM with few rows as one task: codes are read once, and never written as floats.

`fusion` says where that may be done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tilewright.backends.encoding.records import CodeCode
from tilewright.backends.simulator.code_products import (
    codes_block_f8e4m3_bf16,
    codes_block_f8e4m3_f16,
    codes_block_f8e5m2_bf16,
    codes_block_f8e5m2_f16,
    codes_block_i8_bf16,
    codes_block_i8_f16,
    codes_block_nibbles_bf16,
    codes_block_nibbles_f16,
)
from tilewright.backends.simulator.conversions import F16, F32, JIT, row_address
from tilewright.backends.simulator.dot_products import DIRECT_ROWS, VECTOR
from tilewright.backends.simulator.matrix_unit import put_sum

I8, I4, U4 = int(CodeCode.I8), int(CodeCode.I4), int(CodeCode.U4)
F8E4M3 = int(CodeCode.F8E4M3)

NO_ZERO_POINTS = np.zeros(64, np.int8)
"""What a row without zero points reads, at no distance from group to group."""


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
    zero_step: Any,
) -> None:
    """Rows `[first, last)` of codes, dequantized to `element`, times the small operand's packed
    rows.

    `codes_lanes` is 1 where the codes are read from global memory, `codes_stride` bytes from row to
    row; else they lie over the lanes. `group` is 0 for one group a row, `zero_step` 0 where `zeros`
    is one zero for all.
    """
    size = 4 if dst_element == F32 else 2
    sums = np.empty(DIRECT_ROWS, np.float32)
    out = sums.ctypes.data
    cell = np.empty(1, np.float32)
    groups = depth // group if group > 0 else 1
    steps = group // VECTOR if group > 0 else depth // VECTOR
    rest = 0 if group > 0 else depth % VECTOR
    signed = 8 if code_format == I4 else 0
    for row in range(first, last, DIRECT_ROWS):
        end = last - 1
        r1, r2, r3 = min(row + 1, end), min(row + 2, end), min(row + 3, end)
        held = (
            row_address(codes, lane_pitch, codes_lanes, codes_stride, row),
            row_address(codes, lane_pitch, codes_lanes, codes_stride, r1),
            row_address(codes, lane_pitch, codes_lanes, codes_stride, r2),
            row_address(codes, lane_pitch, codes_lanes, codes_stride, r3),
            row_address(scales, lane_pitch, lanes, scales_stride, row),
            row_address(scales, lane_pitch, lanes, scales_stride, r1),
            row_address(scales, lane_pitch, lanes, scales_stride, r2),
            row_address(scales, lane_pitch, lanes, scales_stride, r3),
        )
        if zero_step > 0:
            points = (
                row_address(zeros, lane_pitch, lanes, zeros_stride, row),
                row_address(zeros, lane_pitch, lanes, zeros_stride, r1),
                row_address(zeros, lane_pitch, lanes, zeros_stride, r2),
                row_address(zeros, lane_pitch, lanes, zeros_stride, r3),
            )
        else:
            points = (zeros, zeros, zeros, zeros)
        for other in range(small_rows):
            right = small + other * pitch
            last_ones = (zero_step, signed, right, groups, steps, rest, out)
            _block(code_format, element, held, points, last_ones)
            for i in range(min(DIRECT_ROWS, last - row)):
                r, c = (other, row + i) if large_is_right else (row + i, other)
                target = row_address(dst, lane_pitch, lanes, dst_stride, r) + c * size
                put_sum(sums[i], accumulate, dst_element, target, cell)


@njit(**JIT)
def _block(code_format: Any, element: Any, held: Any, points: Any, others: Any) -> None:
    if code_format == I8:
        if element == F16:
            codes_block_i8_f16(*held, *points, *others)
        else:
            codes_block_i8_bf16(*held, *points, *others)
    elif code_format in (I4, U4):
        if element == F16:
            codes_block_nibbles_f16(*held, *points, *others)
        else:
            codes_block_nibbles_bf16(*held, *points, *others)
    elif code_format == F8E4M3:
        if element == F16:
            codes_block_f8e4m3_f16(*held, *points, *others)
        else:
            codes_block_f8e4m3_bf16(*held, *points, *others)
    elif element == F16:
        codes_block_f8e5m2_f16(*held, *points, *others)
    else:
        codes_block_f8e5m2_bf16(*held, *points, *others)
