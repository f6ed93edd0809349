"""QUANTIZE and REQUANT of the vector unit: floats to int8 codes, and int32 sums to int8 codes.

Functions work on the rows `[first, last)` of one command, so that threads can share it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from tilewright.backends.simulator.conversions import JIT, load_row, pointer, row_address

_LOWEST, _HIGHEST = np.float32(-128.0), np.float32(127.0)
_INT32_LOWEST, _INT32_HIGHEST = np.int64(-(2**31)), np.int64(2**31 - 1)
_CODE_LOWEST, _CODE_HIGHEST = np.int64(-128), np.int64(127)
_SHIFT_BITS, _ONE = np.int64(63), np.int64(1)


@njit(**JIT)
def quantize_rows(
    first: Any,
    last: Any,
    cols: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    a: Any,
    a_stride: Any,
    a_element: Any,
    b: Any,
) -> None:
    """`clamp(round(a / b), -128, 127)`, halves to even, NaN to 0; `b` is one f32 in lane 0."""
    scale = carray(pointer(b), 1, np.float32)[0]
    values = np.empty(cols, np.float32)
    for row in range(first, last):
        load_row(row_address(a, lane_pitch, lanes, a_stride, row), cols, a_element, values)
        target = pointer(row_address(dst, lane_pitch, lanes, dst_stride, row))
        codes = carray(target, cols, np.int8)
        for i in range(cols):
            rounded = np.rint(values[i] / scale)
            code = min(max(rounded, _LOWEST), _HIGHEST)
            codes[i] = np.int8(np.int32(code if rounded == rounded else np.float32(0.0)))


@njit(**JIT)
def requant_rows(
    first: Any,
    last: Any,
    cols: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    a: Any,
    a_stride: Any,
    b: Any,
    b_stride: Any,
) -> None:
    """`clamp(((a + bias) * multiplier + 2^(shift - 1)) >> shift, -128, 127)` by the row's table."""
    for row in range(first, last):
        table = carray(pointer(row_address(b, lane_pitch, lanes, b_stride, row)), 3, np.int32)
        bias, multiplier = np.int64(table[0]), np.int64(table[1])
        shift = np.int64(table[2]) & _SHIFT_BITS
        rounding = _ONE << (shift - _ONE) if shift > 0 else np.int64(0)
        source = pointer(row_address(a, lane_pitch, lanes, a_stride, row))
        target = pointer(row_address(dst, lane_pitch, lanes, dst_stride, row))
        sums, codes = carray(source, cols, np.int32), carray(target, cols, np.int8)
        for i in range(cols):
            total = min(max(np.int64(sums[i]) + bias, _INT32_LOWEST), _INT32_HIGHEST)
            scaled = (total * multiplier + rounding) >> shift
            codes[i] = np.int8(min(max(scaled, _CODE_LOWEST), _CODE_HIGHEST))
