"""Inner loops of weight quantization, compiled by numba.

One row of a weight is one output channel. A loop goes over each row twice while it is in the cache:
the largest magnitude, then the codes. Magnitudes are compared as integers (the bit patterns of
non-negative floats ascend with their values, and NaN and Inf come last), so the first pass converts
nothing. The loops release the GIL and know nothing of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

QUANTIZED = -1
"""Every row has been quantized."""
SCALE_OUT_OF_RANGE = -2
"""A scale lies outside of the range that the caller asked for."""

_ALMOST_HALF = np.float32(0.5) - np.float32(2.0**-25)
"""The largest float32 below one half: `trunc(x + copysign(this, x))` rounds half away from zero,
exactly (adding 0.5 would round 0.49999997 up)."""
_ONE = np.float32(1)
_QMAX = np.float32(127)
_ZERO = np.float32(0)
_EXACT_QMAX = np.float64(127)
_LEAST_NORMAL = np.float64(2.0**-126)
_SUBNORMALS = np.float64(2.0**149)
"""Subnormal float32 values in 1: times this they are their own bits."""


def _type_float_from_half_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 of the f16 with these bits (numba has no f16 on CPUs; LLVM has)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), generate


def _type_float_from_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


def _type_bits_from_float(typingctx: Any, value: Any) -> Any:
    """The bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


_float_from_half_bits: Any = intrinsic(_type_float_from_half_bits)
_float_from_bits: Any = intrinsic(_type_float_from_bits)
_bits_from_float: Any = intrinsic(_type_bits_from_float)


@numba.njit(inline="always")
def _channel_scale(absmax: Any, drop: Any) -> Any:
    """`absmax / 127` rounded up until its bits in `drop` are zero; 1 for a channel of zeros.

    Subnormal quotients are rounded up by the division itself: 127 steps must reach `absmax`.
    """
    if absmax == _ZERO:
        return _ONE
    exact = np.float64(absmax) / _EXACT_QMAX
    if exact < _LEAST_NORMAL:
        bits = np.uint32(math.ceil(exact * _SUBNORMALS))
    else:
        bits = _bits_from_float(absmax / _QMAX)
    bits = (bits + drop) & ~drop
    return _float_from_bits(bits)


@numba.njit(inline="always")
def _code(value: Any, scale: Any) -> Any:
    """`value / scale` rounded half away from zero.

    No clamp to -127..127 is needed: scales are rounded up, or to nearest in the normal range, so
    that the quotient is below 127.5.
    """
    quotient = value / scale
    return np.int8(np.int32(quotient + (_ALMOST_HALF if quotient >= _ZERO else -_ALMOST_HALF)))


@numba.njit(nogil=True, cache=True)
def quantize_f16(rows: Any, scales: Any, codes: Any, drop: Any, least: Any, most: Any) -> int:
    """Codes and scales of rows of f16 bits; the return value is that of `quantize_f32`."""
    count, depth = rows.shape
    for n in range(count):
        top = np.uint16(0)
        for k in range(depth):
            top = max(top, np.uint16(rows[n, k] & np.uint16(0x7FFF)))
        if top >= np.uint16(0x7C00):
            return n
        scale = _channel_scale(_float_from_half_bits(top), drop)
        if scale < least or scale > most:
            return SCALE_OUT_OF_RANGE
        scales[n] = scale
        for k in range(depth):
            codes[n, k] = _code(_float_from_half_bits(rows[n, k]), scale)
    return QUANTIZED


@numba.njit(nogil=True, cache=True)
def quantize_bf16(rows: Any, scales: Any, codes: Any, drop: Any, least: Any, most: Any) -> int:
    """Codes and scales of rows of bf16 bits; the return value is that of `quantize_f32`."""
    count, depth = rows.shape
    for n in range(count):
        top = np.uint16(0)
        for k in range(depth):
            top = max(top, np.uint16(rows[n, k] & np.uint16(0x7FFF)))
        if top >= np.uint16(0x7F80):
            return n
        absmax = _float_from_bits(np.uint32(np.uint32(top) << np.uint32(16)))
        scale = _channel_scale(absmax, drop)
        if scale < least or scale > most:
            return SCALE_OUT_OF_RANGE
        scales[n] = scale
        for k in range(depth):
            value = _float_from_bits(np.uint32(np.uint32(rows[n, k]) << np.uint32(16)))
            codes[n, k] = _code(value, scale)
    return QUANTIZED


@numba.njit(nogil=True, cache=True)
def quantize_f32(rows: Any, scales: Any, codes: Any, drop: Any, least: Any, most: Any) -> int:
    """Codes `i8[N, K]` and scales `f32[N]` of `rows`, the bits `u32[N, K]` of float32 values.

    A scale is rounded up until its bits in `drop` (a mask of low bits) are zero. Returns
    `QUANTIZED`; or the first row with a NaN or Inf; or `SCALE_OUT_OF_RANGE` where a scale is below
    `least` or above `most`. What was written before is then of no use.
    """
    count, depth = rows.shape
    for n in range(count):
        top = np.uint32(0)
        for k in range(depth):
            top = max(top, np.uint32(rows[n, k] & np.uint32(0x7FFFFFFF)))
        if top >= np.uint32(0x7F800000):
            return n
        scale = _channel_scale(_float_from_bits(top), drop)
        if scale < least or scale > most:
            return SCALE_OUT_OF_RANGE
        scales[n] = scale
        for k in range(depth):
            codes[n, k] = _code(_float_from_bits(rows[n, k]), scale)
    return QUANTIZED
