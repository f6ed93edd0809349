"""The DEQUANT command of the vector unit: codes of all formats to floats.

`dst[r, c] = round((code[r, c] - zero[r, c / g]) * scale[r, c / g])`. The difference is exact in
f32, and so is its product with a 16-bit scale: one rounding. A product with an f32 scale is not; it
is first rounded to odd, so that the second rounding acts as if it were the only one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from tilewright.backends.encoding.records import CodeCode
from tilewright.backends.simulator.conversions import (
    F16,
    F32,
    JIT,
    bf16_bits_of_f32,
    bits_of_f32,
    f16_bits_of_f32,
    f32_of_bits,
    f32_of_f16_bits,
    load_row,
    pointer,
    row_address,
)

I8, I4, U4 = int(CodeCode.I8), int(CodeCode.I4), int(CodeCode.U4)
F8E4M3 = int(CodeCode.F8E4M3)


@njit(**JIT)
def dequant_rows(
    first: Any,
    last: Any,
    code_format: Any,
    cols: Any,
    group: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    dst_element: Any,
    a: Any,
    a_stride: Any,
    b: Any,
    b_stride: Any,
    b_element: Any,
    c: Any,
    c_stride: Any,
) -> None:
    """Rows `[first, last)` of a DEQUANT command; `group` is 0 for one group a row.

    There are no zero points where `c` is 0.
    """
    width = group if group > 0 else cols
    groups = cols // width
    scales = np.empty(groups, np.float32)
    values = np.empty(cols + 1, np.float32)
    for row in range(first, last):
        source = row_address(a, lane_pitch, lanes, a_stride, row)
        target = row_address(dst, lane_pitch, lanes, dst_stride, row)
        load_row(row_address(b, lane_pitch, lanes, b_stride, row), groups, b_element, scales)
        decode_row(code_format, source, cols, values)
        if c != 0:
            zeros = carray(
                pointer(row_address(c, lane_pitch, lanes, c_stride, row)), groups, np.int8
            )
            for i in range(groups):
                zero = np.float32(zeros[i])
                for j in range(i * width, (i + 1) * width):
                    values[j] -= zero
        for i in range(groups):
            part = values[i * width : (i + 1) * width]
            _scale(part, scales[i], b_element == F32, dst_element, target, i * width)


@njit(**JIT)
def decode_row(code_format: Any, address: Any, cols: Any, values: Any) -> None:
    """The numbers that `cols` codes at `address` stand for; `values` has room for one more."""
    if code_format == I8:
        codes = carray(pointer(address), cols, np.int8)
        for i in range(cols):
            values[i] = np.float32(codes[i])
        return
    held = carray(pointer(address), cols, np.uint8)
    if code_format == U4:
        for i in range((cols + 1) // 2):
            values[2 * i] = np.float32(held[i] & np.uint8(15))
            values[2 * i + 1] = np.float32(held[i] >> np.uint8(4))
    elif code_format == I4:
        for i in range((cols + 1) // 2):
            low, high = held[i] & np.uint8(15), held[i] >> np.uint8(4)
            values[2 * i] = np.float32(low ^ np.uint8(8)) - np.float32(8.0)
            values[2 * i + 1] = np.float32(high ^ np.uint8(8)) - np.float32(8.0)
    elif code_format == F8E4M3:
        # An f16 with the same fraction, and an exponent that is 8 too small.
        for i in range(cols):
            bits = np.uint16(held[i])
            sign, magnitude = bits & np.uint16(0x80), bits & np.uint16(0x7F)
            half = (sign << np.uint16(8)) | (magnitude << np.uint16(7))
            value = f32_of_f16_bits(np.uint16(half)) * np.float32(256.0)
            values[i] = np.float32(np.nan) if magnitude == np.uint16(0x7F) else value
    else:
        # E5M2 is the upper byte of an f16.
        for i in range(cols):
            values[i] = f32_of_f16_bits(np.uint16(np.uint16(held[i]) << np.uint16(8)))


@njit(**JIT)
def _scale(
    values: Any, scale: Any, scale_is_wide: Any, element: Any, target: Any, start: Any
) -> None:
    """`values * scale`, rounded once, to the elements from `start` on of the row at `target`."""
    n = len(values)
    if element == F32:
        singles = carray(pointer(target + 4 * start), n, np.float32)
        for i in range(n):
            singles[i] = values[i] * scale
        return
    halves = carray(pointer(target + 2 * start), n, np.uint16)
    if scale_is_wide:
        for i in range(n):
            product = _product_rounded_to_odd(values[i], scale)
            if element == F16:
                halves[i] = f16_bits_of_f32(product)
            else:
                halves[i] = bf16_bits_of_f32(product)
    elif element == F16:
        for i in range(n):
            halves[i] = f16_bits_of_f32(values[i] * scale)
    else:
        for i in range(n):
            halves[i] = bf16_bits_of_f32(values[i] * scale)


@njit(**JIT)
def _product_rounded_to_odd(code: Any, scale: Any) -> Any:
    exact = np.float64(code) * np.float64(scale)
    product = np.float32(exact)
    error = exact - np.float64(product)
    bits = bits_of_f32(product)
    if error != 0.0 and error == error and (bits & np.uint32(1)) == 0:
        grows = (error > 0.0) == (exact > 0.0)
        bits = bits + np.uint32(1) if grows else bits - np.uint32(1)
    return f32_of_bits(bits)
