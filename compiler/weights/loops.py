"""Inner loops of weight quantization, compiled by numba.

A row of a weight is an output channel, cut into groups of inputs. Each row is gone over twice while
it is in the cache: the range of each group, then its codes. Floats come as their bits, and ranges
are found among integers (the bits of floats ascend with their magnitudes, NaN and Inf last), so the
first pass converts nothing. The loops release the GIL and know nothing of threads.

The type of the bits says what the floats are: `uint16` f16, `int16` bf16, `uint32` f32. One loop
serves all three, and what differs between schemes is data (`Rule`), but for the loops over codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from tilewright.compiler.weights.bits import (
    bits_from_float,
    float_from_bits,
    magnitude,
    multiply_add,
    ordered,
    value_of,
)
from tilewright.compiler.weights.vectors import (
    LANES,
    greatest_magnitude,
    least_and_greatest,
    write_bytes,
    write_nibbles,
)

QUANTIZED = -1
"""Every row has been quantized."""
SCALE_OUT_OF_RANGE = -2
"""A scale lies outside of the range that the caller asked for."""


class Rule(NamedTuple):
    """How ranges become scales and codes."""

    steps: np.float64
    """What a range is divided by."""
    zero_point: np.bool_
    widens: np.bool_
    """Whether ranges are made to hold 0."""
    narrowest: np.float32
    """The least range, in f32 arithmetic (TPU-MLIR); 0 for none."""
    least_code: np.float32
    most_code: np.float32
    drop: np.uint32
    """A scale is rounded up until these low bits of it are zero."""
    least_scale: np.float32
    most_scale: np.float32
    infinity: np.int64
    """The bits of infinity in the type of the weight."""


_ALMOST_HALF = np.float32(0.5) - np.float32(2.0**-25)
"""The largest float32 below one half: `trunc(x + copysign(this, x))` rounds half away from zero,
exactly (adding 0.5 would round 0.49999997 up)."""
_ALMOST_HALF_BITS = _ALMOST_HALF.view(np.uint32)
_ZERO = np.float32(0)
_ONE = np.float32(1)
_UNITS = np.float32(1.5 * 2.0**23)
"""Sums of this and less than 2^22 have an ulp of 1: their low bits are integers."""
_LEAST_NORMAL = np.float64(2.0**-126)
_LEAST_FAST, _MOST_FAST = np.float32(2.0**-70), np.float32(2.0**100)
"""Scales for which neither a reciprocal nor the remainder of a code leaves the normal range."""


# Ranges and scales.


@numba.njit(inline="always")
def _find_ranges(row: Any, group: Any, zero_point: Any, lows: Any, highs: Any) -> None:
    """The bits of the least and greatest value of each group; of the greatest magnitude alone
    without zero points."""
    vectors = group // LANES
    for g in range(len(highs)):
        start = g * group
        if zero_point:
            low, high = least_and_greatest(row, start, vectors)
            low, high = min(low, ordered(row[start])), max(high, ordered(row[start]))
            for k in range(start + vectors * LANES, start + group):
                key = ordered(row[np.uintp(k)])
                low, high = min(low, key), max(high, key)
            lows[g] = ordered(low)
            highs[g] = ordered(high)
        else:
            top = greatest_magnitude(row, start, vectors)
            for k in range(start + vectors * LANES, start + group):
                top = max(top, magnitude(row[np.uintp(k)]))
            lows[g] = 0
            highs[g] = top


@numba.njit(inline="always")
def _stored_scale(exact: Any, drop: Any) -> Any:
    """`exact` rounded up until its bits in `drop` are zero, to nearest if there are none; 1 for 0.

    Subnormal scales are always rounded up: all steps together must reach the end of the range.
    """
    nearest = np.float32(exact if exact > np.float64(0) else np.float64(1))
    up = (drop != np.uint32(0)) | (exact < _LEAST_NORMAL)
    below = up & (np.float64(nearest) < exact)
    bits = np.uint32(bits_from_float(nearest) + (np.uint32(1) if below else np.uint32(0)))
    return float_from_bits(np.uint32(np.uint32(bits + drop) & np.uint32(~drop)))


@numba.njit(inline="always")
def _find_scales(lows: Any, highs: Any, rule: Any, scales: Any) -> Any:
    """Scales from ranges; returns `QUANTIZED`, `SCALE_OUT_OF_RANGE`, or 0 for a range that is not
    finite. Without a branch, so that it works on many groups at a time."""
    infinite, outside = False, False
    for g in range(len(highs)):
        ends = max(magnitude(lows[g]), magnitude(highs[g]))
        infinite |= ends >= rule.infinity
        low, high = value_of(lows[g]), value_of(highs[g])
        low = _ZERO if rule.widens and low > _ZERO else low
        high = _ZERO if rule.widens and high < _ZERO else high
        extent = np.float64(high) - np.float64(low)
        if rule.narrowest > _ZERO:
            narrow = np.float32(high - low)
            extent = np.float64(narrow if narrow > rule.narrowest else rule.narrowest)
        scale = _stored_scale(extent / rule.steps, rule.drop)
        outside |= (scale < rule.least_scale) | (scale > rule.most_scale)
        scales[g] = scale
    if infinite:
        return 0
    return SCALE_OUT_OF_RANGE if outside else QUANTIZED


@numba.njit(inline="always")
def _find_zeros(lows: Any, scales: Any, rule: Any, zeros: Any) -> None:
    most = rule.most_code - rule.least_code
    for g in range(len(scales)):
        away = -value_of(lows[g]) / scales[g]
        away = away if away > _ZERO else _ZERO
        away = away if away < most else most
        zeros[g] = np.int8(_rounded(away) + np.int32(rule.least_code))


# Codes.


@numba.njit(inline="always")
def _rounded(value: Any) -> Any:
    """The nearest int32, halves away from zero."""
    sign = np.uint32(bits_from_float(value) & np.uint32(0x80000000))
    return np.int32(value + float_from_bits(np.uint32(sign | _ALMOST_HALF_BITS)))


@numba.njit(inline="always")
def _is_normal(scale: Any) -> Any:
    """Whether neither the reciprocal of a scale nor the remainder of a code leaves the normal
    range."""
    return (scale >= _LEAST_FAST) & (scale <= _MOST_FAST)


@numba.njit(inline="always")
def _are_normal(scales: Any) -> Any:
    normal = True
    for g in range(len(scales)):
        normal &= _is_normal(scales[g])
    return normal


@numba.njit(inline="always")
def _quotient(value: Any, scale: Any, reciprocal: Any) -> Any:
    """`value / scale` as a division rounds it, for a `scale` of at most 11 significant bits.

    The remainder of a first quotient is exact, and corrects it to within 2^-22 of an ulp of the
    true one, which lies further than that from where the rounding turns: 11 bits times 25 do not
    come closer to 24 bits than 2^-12 of an ulp. Source: Markstein, Computation of elementary
    functions on the IBM RISC System/6000 processor, IBM J. Res. Dev. 34 (1990).
    """
    first = value * reciprocal
    remainder = multiply_add(-first, scale, value)
    return multiply_add(remainder, reciprocal, first)


@numba.njit(inline="always")
def _nudged_reciprocal(scale: Any) -> Any:
    """`1 / scale`, 4 ulps up: what a value and a scale of 11 significant bits are multiplied to a
    quotient with that rounds to the right integer.

    Ties (k + 1/2) come out above themselves, by 2^-23 at least, and all else is further from them
    than 2^-20, relatively: `2 value` (11 bits) and `(2 k + 1) scale` (20 bits) differ by a unit.
    """
    return float_from_bits(np.uint32(bits_from_float(_ONE / scale) + np.uint32(4)))


@numba.njit(inline="always")
def _write_exact_codes(
    row: Any, group: Any, scales: Any, zeros: Any, rule: Any, codes: Any
) -> None:
    """Integer codes of a row, one a byte, by divisions."""
    least, most = np.int32(rule.least_code), np.int32(rule.most_code)
    for g in range(len(scales)):
        start, scale = np.uintp(g * group), scales[g]
        zero = np.int32(zeros[g]) if rule.zero_point else np.int32(0)
        bottom, top = np.float32(least - zero), np.float32(most - zero)
        for k in range(group):
            place = start + np.uintp(k)
            quotient = value_of(row[place]) / scale
            quotient = quotient if quotient > bottom else bottom
            quotient = quotient if quotient < top else top
            codes[place] = np.int8(_rounded(quotient) + zero)


@numba.njit(inline="always")
def _write_codes(
    row: Any, group: Any, scales: Any, zeros: Any, rule: Any, packed: Any, factors: Any, codes: Any
) -> None:
    """Integer codes of a row of groups that are multiples of `LANES`, for values and scales of 11
    significant bits, without a division a value.

    Times the reciprocal of a scale, plus the zero point and `_UNITS`, rounded once, a value has its
    code in the low bits. (No value is left at a tie, so that to nearest even is as good as any.) No
    code comes out too small: the zero point is as far from the least code as the least value from
    0.
    """
    for g in range(len(scales)):
        factors[g] = _nudged_reciprocal(scales[g])
    vectors = group // LANES
    most = _UNITS + rule.most_code
    for g in range(len(scales)):
        zero = _UNITS + np.float32(zeros[g]) if rule.zero_point else _UNITS
        if packed:
            write_nibbles(row, g * group, vectors, factors[g], zero, most, codes)
        else:
            write_bytes(row, g * group, vectors, factors[g], zero, most, codes)


@numba.njit(inline="always")
def _pack(pairs: Any, packed: Any) -> None:
    """Two codes a byte, the first in the low nibble; `pairs` are the codes of two bytes as u16."""
    for k in range(len(packed)):
        pair = pairs[k]
        packed[k] = np.int8((pair & np.uint16(15)) | ((pair >> np.uint16(4)) & np.uint16(0xF0)))


@numba.njit(nogil=True, cache=True)
def quantize_integers(
    rows: Any, scales: Any, zeros: Any, codes: Any, rule: Any, narrow: bool, packed: bool
) -> int:
    """Codes of int8, or two of four bits in a byte, of `rows`, the bits `[N, K]` of floats.

    Writes scales f32 `[N, G]`, zero points i8 `[N, G]` (if the rule has them) and codes i8 `[N, K]`
    (`[N, ceil(K / 2)]` if `packed`). `narrow` says that values and scales have at most 11
    significant bits. Returns `QUANTIZED`; or the first row with a NaN or Inf; or
    `SCALE_OUT_OF_RANGE`. What was written before is then of no use.
    """
    count, depth = rows.shape
    groups = scales.shape[1]
    group = depth // groups
    lows, highs = np.empty(groups, rows.dtype), np.empty(groups, rows.dtype)
    factors = np.empty(groups, np.float32)
    loose = np.zeros(depth + depth % 2, np.int8)
    for n in range(count):
        row = rows[n]
        _find_ranges(row, group, rule.zero_point, lows, highs)
        status = _find_scales(lows, highs, rule, scales[n])
        if status != QUANTIZED:
            return n if status == 0 else status
        if rule.zero_point:
            _find_zeros(lows, scales[n], rule, zeros[n])
        if narrow and group % LANES == 0 and _are_normal(scales[n]):
            _write_codes(row, group, scales[n], zeros[n], rule, packed, factors, codes[n])
            continue
        plain = loose if packed else codes[n]
        _write_exact_codes(row, group, scales[n], zeros[n], rule, plain)
        if packed:
            _pack(plain.view(np.uint16), codes[n])
    return QUANTIZED


class Float8(NamedTuple):
    """An 8-bit float format, as rounding to it needs it."""

    shift: np.uint32
    """Bits of a float32 significand that it lacks."""
    rebias: np.uint32
    """What float32 exponents are too large by, in the place of the 8-bit float."""
    least_normal: np.float32
    subnormal: np.float32
    """The float32 whose ulp is the least subnormal: added to less, it rounds."""
    most: np.float32


@numba.njit(inline="always")
def _float8(quotient: Any, value: Any, form: Any) -> Any:
    """The bits of the 8-bit float nearest to a quotient, ties to even, with the sign of `value`;
    the largest one for all above."""
    sign = np.uint32(np.uint32(bits_from_float(value) >> np.uint32(24)) & np.uint32(0x80))
    size = float_from_bits(np.uint32(bits_from_float(quotient) & np.uint32(0x7FFFFFFF)))
    size = size if size < form.most else form.most
    bits = bits_from_float(size)
    odd = np.uint32(np.uint32(bits >> form.shift) & np.uint32(1))
    half = np.uint32((np.uint32(1) << np.uint32(form.shift - np.uint32(1))) - np.uint32(1))
    normal = np.uint32(np.uint32(np.uint32(bits + half) + odd) >> form.shift) - form.rebias
    tiny = np.uint32(bits_from_float(size + form.subnormal) & np.uint32(0xFF))
    held = np.uint32(normal) if size >= form.least_normal else tiny
    return np.int8(np.uint8(np.uint32(held | sign)))


@numba.njit(nogil=True, cache=True)
def quantize_floats(rows: Any, scales: Any, codes: Any, rule: Any, form: Any) -> int:
    """Codes that are 8-bit floats `i8[N, K]`; otherwise as `quantize_integers`."""
    count, depth = rows.shape
    groups = scales.shape[1]
    group = depth // groups
    lows, highs = np.empty(groups, rows.dtype), np.empty(groups, rows.dtype)
    for n in range(count):
        row, code = rows[n], codes[n]
        _find_ranges(row, group, False, lows, highs)
        status = _find_scales(lows, highs, rule, scales[n])
        if status != QUANTIZED:
            return n if status == 0 else status
        for g in range(groups):
            part, out = row[g * group : (g + 1) * group], code[g * group : (g + 1) * group]
            scale = scales[n, g]
            if rule.drop != np.uint32(0) and _is_normal(scale):
                reciprocal = _ONE / scale
                for k in range(len(part)):
                    value = value_of(part[k])
                    out[k] = _float8(_quotient(value, scale, reciprocal), value, form)
            else:
                for k in range(len(part)):
                    value = value_of(part[k])
                    out[k] = _float8(value / scale, value, form)
    return QUANTIZED
