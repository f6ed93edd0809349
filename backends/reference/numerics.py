"""Rounding, error constants and weight quantization: the numerics contract in plain NumPy.

This is the slow, readable form that faster implementations are tested against. It uses float64
freely where that gives the exact value (every product of an int8 code and an f32 scale is exact in
float64)."""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tilewright.dialects.element_types import F16, F32, ElementType
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError
from tilewright.dialects.quantization import CodeFormat, Scheme

Array = NDArray[Any]
CodesRule = Literal["stored-scale", "tpu-mlir"]

UNIT_ROUNDOFF = 2.0**-24
"""Half an ulp of 1 in f32: the largest relative error of one f32 rounding."""

F32_TINY = 2.0**-126
"""The smallest normal f32; error bounds allow that intermediates below it are lost."""

INT8_LIMIT = 127
"""Symmetric codes go from -127 to 127."""

TPU_MLIR_LEAST_RANGE = np.float32(1e-5)
"""TPU-MLIR's narrowest range of a group with zero points."""

_FINITE_INFO = {
    element: ml_dtypes.finfo(dtype)
    for element, dtype in (("f32", np.float32), ("f16", np.float16), ("bf16", ml_dtypes.bfloat16))
}


# Properties of the floating-point grids.


def _info(element: ElementType) -> Any:
    if not element.is_float:
        raise UnsupportedError(f"{element.name} is not a floating-point type")
    return _FINITE_INFO[element.name]


def largest(element: ElementType) -> float:
    """The largest finite value of a floating-point type."""
    return float(_info(element).max)


def smallest_normal(element: ElementType) -> float:
    """The smallest normal value of a floating-point type; below it bits are lost."""
    return float(_info(element).smallest_normal)


def smallest_subnormal(element: ElementType) -> float:
    """The distance between neighbours around zero."""
    return float(_info(element).smallest_subnormal)


def unit_roundoff(element: ElementType) -> float:
    """The largest relative error of one rounding in the normal range: 2^-24, 2^-11 or 2^-8."""
    return float(_info(element).eps) / 2


def overflow_threshold(element: ElementType) -> float:
    """The smallest magnitude that rounds to infinity: the largest value and half an ulp."""
    return largest(element) * (1 + unit_roundoff(element) / (2 - 2 * unit_roundoff(element)))


def ulp(values: Array, element: ElementType) -> Array:
    """The distance between neighbours of `element` in the binade of each value, as float64.

    Subnormal values have the spacing of the subnormals, values past the largest that of the last
    binade; infinities and NaN have NaN."""
    magnitudes = np.abs(np.asarray(values, dtype=np.float64))
    bits = round(-np.log2(unit_roundoff(element)))
    lowest = round(np.log2(smallest_normal(element)))
    highest = int(np.floor(np.log2(largest(element))))
    finite = np.isfinite(magnitudes)
    _, exponents = np.frexp(np.where(finite, magnitudes, 1.0))
    exponents = np.where(magnitudes == 0, lowest, exponents - 1)
    spacing = np.ldexp(1.0, np.clip(exponents, lowest, highest) - bits + 1)
    return np.where(finite, spacing, np.nan)


def gamma(count: int) -> float:
    """`count * u / (1 - count * u)`: the relative error bound of `count` f32 roundings in a row.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, lemma 3.1.
    """
    product = count * UNIT_ROUNDOFF
    if product >= 1:
        raise UnsupportedError(f"no f32 error bound exists for a sum of {count} terms")
    return product / (1 - product)


# Rounding.


def round_half_away(values: Array) -> Array:
    """Round to integers, halves away from zero, in the precision of `values`.

    `values - trunc(values)` is exact, so 0.49999997 goes to 0 (which `trunc(values + 0.5)` gets
    wrong)."""
    whole = np.trunc(values)
    return np.where(np.abs(values - whole) >= 0.5, whole + np.sign(values), whole)


def _to_odd_f32(values: Array) -> Array:
    """Round float64 to f32 so that a further rounding to at most 22 bits gives the correct result.

    An inexact value goes to the neighbour with the odd significand. Source: Boldo and Melquiond,
    Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd, IEEE
    Trans. Computers 57 (2008)."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = values.astype(np.float32)
    back = nearest.astype(np.float64)
    even = (nearest.view(np.int32) & 1) == 0
    inexact = (back != values) & np.isfinite(nearest) & even
    direction = np.where(values > back, np.float32(np.inf), np.float32(-np.inf))
    return np.where(inexact, np.nextafter(nearest, direction), nearest)


def round_to(values: Array, element: ElementType) -> Array:
    """Round once, to nearest even, to `element`; overflow gives infinity, NaN stays.

    The library's conversion of float64 to bf16 rounds twice (through f32); this one does not.
    """
    values = np.asarray(values)
    if values.dtype == element.dtype:
        return values
    if not element.is_float:
        raise UnsupportedError(f"values are not rounded to {element.name}")
    if values.dtype == np.float64 and element.name == "bf16":
        values = _to_odd_f32(values)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(element.dtype)


def round_up(values: Array, element: ElementType) -> Array:
    """The next value of `element` not below each (finite) value; past the largest: infinity."""
    exact = np.asarray(values, dtype=np.float64)
    nearest = round_to(exact, element)
    below = nearest.astype(np.float64) < exact
    above = np.nextafter(nearest, np.asarray(np.inf, dtype=element.dtype))
    return np.where(below, above, nearest).astype(element.dtype)


# Weight quantization.


def quantize(
    weight: Array,
    scheme: Scheme,
    scale_element: ElementType,
    *,
    codes_rule: CodesRule = "stored-scale",
    name: str = "weight",
) -> tuple[Array, Array, Array | None]:
    """Quantize `weight[N, K]` (rows: output channels): codes `i8[N, K]`, one each (4-bit ones not
    packed, 8-bit floats as their bits), scales `[N, G]`, zero points `i8[N, G]` or none.

    A scale is the range of its group (`absmax`, or `max(w, 0) - min(w, 0)` with zero points) over
    the number of steps, rounded *up* to `scale_element`. Codes are computed from the scale that is
    stored, by an f32 division: `round(w / s) + z`, halves away from zero; so `abs(w - s * (q - z))
    <= s / 2` holds exactly for f16 and bf16 scales, and no code clips by more than that. With f32
    scales the quotient itself is rounded, and the bound is `s / 2 * (1 + 255 * 2^-24)`. 8-bit
    floats are `w / s`, rounded to nearest even.

    Scales are f32 for the whole tensor if one of them would be subnormal or infinite in f16. A
    group of zeros has scale 1 and codes that mean 0. Where a scale is subnormal in f32, it is
    rounded up as well (else all steps would not reach the largest weight).

    `codes_rule="tpu-mlir"` divides by the f32 scale and rounds the scale to nearest afterwards, as
    TPU-MLIR's A16MatMul does: its codes bit for bit, without the error bound. Its groups take
    `2 * absmax` over all steps and do not widen ranges to hold 0. (Its unsigned codes for channels
    of weights that are all positive are not made.)

    Raises `ModelReadError` for a NaN or an infinity in `weight`, naming `name` and the first bad
    index; `UnsupportedError` where groups do not divide `K`; `OptionError` for 8-bit floats by
    TPU-MLIR's rule, which has none."""
    if codes_rule not in ("stored-scale", "tpu-mlir"):
        raise OptionError(
            f"unknown rule for codes {codes_rule!r}", hint="one of 'stored-scale', 'tpu-mlir'"
        )
    weight = np.asarray(weight).astype(np.float32)
    if weight.ndim != 2:
        raise UnsupportedError(f"{name} has rank {weight.ndim}; only matrices are quantized")
    check_finite(weight, name)
    channels, depth = weight.shape
    if not scheme.fits(depth):
        raise UnsupportedError(
            f"groups of {scheme.group} do not divide the {depth} inputs of weight {name!r}"
        )
    groups = weight.reshape(channels, scheme.groups(depth), depth // scheme.groups(depth))
    if codes_rule == "tpu-mlir":
        codes, scale, zero = _quantize_as_tpu_mlir(groups, scheme)
        return codes.reshape(weight.shape), round_to(scale, scale_element), zero
    low, high = _range(groups, scheme)
    scale = _scale((high - low) / _steps(scheme.format, scheme.zero_point), scale_element)
    codes, zero = _codes(groups, scale.astype(np.float32), low, scheme)
    return codes.reshape(weight.shape), scale, zero


def check_finite(weight: Array, name: str) -> None:
    """Raise `ModelReadError` for the first NaN or infinity of a weight."""
    bad = ~np.isfinite(weight)
    if not bool(bad.any()):
        return
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), weight.shape))
    raise ModelReadError(
        f"{name} holds {weight[index]} at index {list(index)}",
        where=name,
        why="a weight that is not finite would make its whole output channel NaN",
        hint="the checkpoint is damaged, or was saved after training diverged",
    )


def code_range(code_format: CodeFormat) -> tuple[int, int]:
    """The least and the greatest code of an integer format."""
    return {CodeFormat.I8: (-128, 127), CodeFormat.I4: (-8, 7), CodeFormat.U4: (0, 15)}[code_format]


def _steps(code_format: CodeFormat, zero_point: bool) -> float:
    """What the range of a group is divided by: of absolute values without zero points."""
    if code_format.is_float:
        return float(ml_dtypes.finfo(FLOAT8_DTYPES[code_format]).max)
    low, high = code_range(code_format)
    return float(high - low if zero_point else high)


def _range(groups: Array, scheme: Scheme) -> tuple[Array, Array]:
    """The ends of the range of each group `[N, G]` in float64: 0 and the absolute maximum, or the
    minimum and the maximum, 0 included."""
    if not scheme.zero_point:
        high = np.max(np.abs(groups), axis=2, initial=0).astype(np.float64)
        return np.zeros_like(high), high
    low, high = np.min(groups, axis=2, initial=0), np.max(groups, axis=2, initial=0)
    return low.astype(np.float64), high.astype(np.float64)


def _scale(exact: Array, element: ElementType) -> Array:
    """Scales as they are stored: up to 16 bits, to nearest in f32; 1 where `exact` is 0."""
    exact = np.where(exact == 0, 1.0, exact)
    subnormal = exact < smallest_normal(F32)
    wide = np.where(subnormal, round_up(exact, F32), round_to(exact, F32)).astype(np.float32)
    if element == F32:
        return wide
    stored = round_up(exact, element)
    lossy = (stored < smallest_normal(F16)) | ~np.isfinite(stored)
    return wide if element == F16 and bool(np.any(lossy)) else stored


def _codes(groups: Array, scale: Array, low: Array, scheme: Scheme) -> tuple[Array, Array | None]:
    """Codes `i8[N, G, g]` and zero points `i8[N, G]` for the scales f32 `[N, G]`."""
    with np.errstate(over="ignore", under="ignore"):
        quotients = groups / scale[:, :, None]
    if scheme.format.is_float:
        return encode_float8(quotients, scheme.format), None
    least, most = code_range(scheme.format)
    zero = np.zeros(scale.shape, np.float64)
    if scheme.zero_point:
        with np.errstate(over="ignore", under="ignore"):
            away = round_half_away(-low.astype(np.float32) / scale).astype(np.float64)
        zero = np.clip(away + least, least, most)
    rounded = round_half_away(quotients).astype(np.float64) + zero[:, :, None]
    codes = np.clip(rounded, least, most).astype(np.int8)
    return codes, zero.astype(np.int8) if scheme.zero_point else None


def _quantize_as_tpu_mlir(groups: Array, scheme: Scheme) -> tuple[Array, Array, Array | None]:
    """Codes, f32 scales and zero points by TPU-MLIR's rule.

    Source: TPU-MLIR, lib/Dialect/Tpu/Canonicalize/A16MatMul.cpp: an int8 channel has the scale
    `absmax / 127`, symmetric groups and int4 `2 * absmax` over all steps, zero points `max(max -
    min, 1e-5)` over all steps."""
    if scheme.format.is_float:
        raise OptionError(
            f"TPU-MLIR has no rule for the codes of {scheme.name}", hint="use 'stored-scale'"
        )
    steps = _steps(scheme.format, True)
    low = np.zeros(groups.shape[:2], np.float32)
    if scheme.zero_point:
        low, high = (np.min(groups, axis=2), np.max(groups, axis=2)) if groups.size else (low, low)
        with np.errstate(over="ignore"):
            exact = np.maximum(high - low, TPU_MLIR_LEAST_RANGE).astype(np.float64) / steps
    else:
        _, absmax = _range(groups, scheme)
        a_channel = scheme.format == CodeFormat.I8 and not scheme.group
        exact = absmax / INT8_LIMIT if a_channel else 2 * absmax / steps
    scale = _scale(exact, F32)
    codes, zero = _codes(groups, scale, low, scheme)
    return codes, scale, zero


# Codes.

FLOAT8_DTYPES = {
    CodeFormat.F8E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    CodeFormat.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
}


def encode_float8(values: Array, code_format: CodeFormat) -> Array:
    """The bits, as i8, of values rounded to the nearest even 8-bit float; the largest float stands
    for all that is larger."""
    dtype = FLOAT8_DTYPES[code_format]
    most = float(ml_dtypes.finfo(dtype).max)
    return np.clip(values, -most, most).astype(dtype).view(np.int8)


def pack_nibbles(codes: Array) -> Array:
    """4-bit codes `i8[N, K]` two a byte, `i8[N, ceil(K / 2)]`: the first in the low nibble; the
    last high nibble of an odd `K` is 0."""
    even = np.pad(np.asarray(codes), ((0, 0), (0, codes.shape[1] % 2))).astype(np.uint8) & 15
    return (even[:, ::2] | even[:, 1::2] << 4).view(np.int8)


def unpack_nibbles(packed: Array, depth: int, *, signed: bool) -> Array:
    """The 4-bit codes `i8[N, depth]` in `packed`, `i8[N, ceil(depth / 2)]`: two's complement if
    `signed`, else 0 to 15."""
    held = np.asarray(packed).view(np.uint8)
    codes = np.stack([held & 15, held >> 4], axis=2).reshape(len(held), 2 * held.shape[1])
    codes = codes[:, :depth].astype(np.int8)
    return (codes ^ 8) - np.int8(8) if signed else codes


def stored_codes(codes: Array, code_format: CodeFormat) -> Array:
    """Codes `i8[N, K]` as they are stored: `i8[N, code_format.row_bytes(K)]`."""
    return pack_nibbles(codes) if code_format.bits == 4 else codes


def plain_codes(stored: Array, code_format: CodeFormat, depth: int) -> Array:
    """Codes `i8[N, depth]` from `i8[N, code_format.row_bytes(depth)]`."""
    if code_format.bits == 8:
        return stored
    return unpack_nibbles(stored, depth, signed=code_format == CodeFormat.I4)


def dequantize(
    codes: Array,
    scale: Array,
    element: ElementType,
    zero: Array | None = None,
    code_format: CodeFormat = CodeFormat.I8,
) -> Array:
    """`round((codes - zero) * scale)` in `element`: the exact product, rounded once.

    `codes` are i8 `[N, K]`, not packed (`plain_codes`); `scale` has shape `[N, G]` and any
    floating-point type, `zero` i8 `[N, G]`; a group is `K / G` inputs. (The product of a code and a
    16-bit scale is exact in f32, that with an f32 scale in float64.)"""
    wide = np.float32 if scale.dtype.itemsize == 2 else np.float64
    if code_format.is_float:
        codes = codes.view(FLOAT8_DTYPES[code_format])
    channels, depth = codes.shape
    groups = scale.shape[1]
    values = codes.astype(wide).reshape(channels, groups, depth // groups)
    if zero is not None:
        values = values - zero.astype(wide)[:, :, None]
    with np.errstate(over="ignore", invalid="ignore"):
        product = values * scale.astype(wide)[:, :, None]
        return round_to(product.reshape(channels, depth), element)
