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

Array = NDArray[Any]
CodesRule = Literal["stored-scale", "tpu-mlir"]

UNIT_ROUNDOFF = 2.0**-24
"""Half an ulp of 1 in f32: the largest relative error of one f32 rounding."""

F32_TINY = 2.0**-126
"""The smallest normal f32; error bounds allow that intermediates below it are lost."""

INT8_LIMIT = 127
"""Codes are symmetric: -127 to 127; -128 is never used."""

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


def quantize_w8a16(
    weight: Array,
    scale_element: ElementType,
    *,
    codes: CodesRule = "stored-scale",
    name: str = "weight",
) -> tuple[Array, Array]:
    """Quantize `weight[N, K]` (rows: output channels) to int8 codes `[N, K]`, scales `[N, 1]`.

    `scale = absmax / 127` in f32, rounded *up* to `scale_element`; `codes = round(weight / scale)`,
    an f32 division by the stored scale, halves away from zero, so that `abs(weight - codes * scale)
    <= scale / 2` holds exactly for f16 and bf16 scales and no code is clipped. With an f32 scale
    the quotient itself is rounded, and the bound is `scale / 2 * (1 + 255 * 2^-24)`.

    Scales are f32 for the whole tensor if one of them would be subnormal or infinite in f16. A
    channel of zeros has scale 1 and codes 0. Where `absmax / 127` is subnormal in f32, that
    division is rounded up as well (else 127 steps would not reach the largest weight).

    `codes="tpu-mlir"` divides by the f32 scale and rounds the scale to nearest afterwards, as
    TPU-MLIR's A16MatMul does: its codes bit for bit, without the error bound. (Its unsigned codes
    for weights that are all positive are not made.)

    Raises `ModelReadError` for a NaN or an infinity in `weight`, naming `name` and the first bad
    index."""
    if codes not in ("stored-scale", "tpu-mlir"):
        raise OptionError(
            f"unknown rule for codes {codes!r}", hint="one of 'stored-scale', 'tpu-mlir'"
        )
    weight = np.asarray(weight).astype(np.float32)
    if weight.ndim != 2:
        raise ModelReadError(f"{name} has rank {weight.ndim}; only matrices are quantized")
    check_finite(weight, name)
    computed = _computed_scale(weight)
    if codes == "tpu-mlir":
        return _codes(weight, computed), round_to(computed, scale_element)
    stored = round_up(computed, scale_element)
    if scale_element == F16:
        lossy = (stored < smallest_normal(F16)) | ~np.isfinite(stored)
        stored = computed if bool(np.any(lossy)) else stored
    return _codes(weight, stored.astype(np.float32)), stored


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


def _computed_scale(weight: Array) -> Array:
    """`absmax / 127` of each row in f32, `[N, 1]`; 1 for rows of zeros."""
    absmax = np.max(np.abs(weight), axis=1, keepdims=True, initial=0)
    scale = absmax / np.float32(INT8_LIMIT)
    exact = absmax.astype(np.float64) / INT8_LIMIT
    scale = np.where(exact < smallest_normal(F32), round_up(exact, F32), scale)
    return np.where(absmax == 0, np.float32(1), scale).astype(np.float32)


def _codes(weight: Array, scale: Array) -> Array:
    rounded = round_half_away(weight / scale)
    return np.clip(rounded, -INT8_LIMIT, INT8_LIMIT).astype(np.int8)


def dequantize(codes: Array, scale: Array, element: ElementType) -> Array:
    """`round(codes * scale)` in `element`: the exact product, rounded once.

    `codes` are int8 `[N, K]`, `scale` has shape `[N, 1]` and any floating-point type. (The product
    of a code and a 16-bit scale is exact in f32, that with an f32 scale in float64.)"""
    wide = np.float32 if scale.dtype.itemsize == 2 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        return round_to(codes.astype(wide) * scale.astype(wide), element)
