"""Number formats of quantized arithmetic as sets of bit patterns.

A table of a format's patterns, simplest values first, is what the strategies draw from: drawing a
position gives every pattern the same weight (a NaN, a subnormal and 65504 as often as 1.0), and a
smaller position is a simpler number, so that counterexamples shrink to 0, 1, -1, 2, 0.5, ...
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tilewright.backends.reference.noise import (
    code_limit,
    code_spacing,
    code_steps,
    spacing,
)
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import CodeFormat, Scheme

__all__ = [
    "BFLOAT16",
    "FLOAT8_E4M3",
    "FLOAT8_E5M2",
    "FLOAT16",
    "FLOAT_CODES",
    "INT4",
    "NUMBER_FORMATS",
    "NumberFormat",
    "all_values",
    "code_limit",
    "code_range",
    "code_spacing",
    "code_steps",
    "code_values",
    "overflow_threshold",
    "spacing",
    "table",
    "unit_roundoff",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NumberFormat:
    """A format of at most 16 bits: its name, its NumPy type, and its width in bits."""

    name: str
    dtype: np.dtype[Any]
    bits: int

    @property
    def is_float(self) -> bool:
        return self.name != "int4"


FLOAT16 = NumberFormat("f16", np.dtype(np.float16), 16)
BFLOAT16 = NumberFormat("bf16", np.dtype(ml_dtypes.bfloat16), 16)
FLOAT8_E4M3 = NumberFormat("f8e4m3", np.dtype(ml_dtypes.float8_e4m3fn), 8)
"""OCP E4M3 without infinities; at most 448."""
FLOAT8_E5M2 = NumberFormat("f8e5m2", np.dtype(ml_dtypes.float8_e5m2), 8)
"""OCP E5M2; at most 57344."""
INT4 = NumberFormat("int4", np.dtype(np.int8), 4)
"""Two's complement, -8 to 7; in NumPy a byte each, with the sign in all upper bits."""

NUMBER_FORMATS = (FLOAT16, BFLOAT16, FLOAT8_E4M3, FLOAT8_E5M2, INT4)
FLOAT_CODES = {CodeFormat.F8E4M3: FLOAT8_E4M3, CodeFormat.F8E5M2: FLOAT8_E5M2}
"""The formats of codes that are floats."""


def all_values(number: NumberFormat) -> Array:
    """The value of every bit pattern, in the order of the patterns."""
    if not number.is_float:
        return (((np.arange(16) + 8) % 16) - 8).astype(np.int8)
    unsigned = np.uint16 if number.bits == 16 else np.uint8
    return np.arange(2**number.bits, dtype=unsigned).view(number.dtype)


@cache
def table(
    number: NumberFormat,
    *,
    allow_nan: bool = True,
    allow_infinity: bool = True,
    allow_subnormal: bool = True,
    min_magnitude: float = 0.0,
    max_magnitude: float | None = None,
) -> Array:
    """The values of the allowed bit patterns, each pattern once, simplest first.

    The magnitudes bound what is finite; zeros are kept only with a `min_magnitude` of 0. Simple:
    finite, normal, an integer, few significant bits, near 1, positive, in this order. Raises
    `OptionError` where nothing is left.
    """
    values = all_values(number)
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
    magnitude = np.abs(wide)
    finite = np.isfinite(wide)
    keep = finite & (magnitude >= min_magnitude)
    if max_magnitude is not None:
        keep &= magnitude <= max_magnitude
    if allow_infinity:
        keep |= np.isinf(wide)
    if allow_nan:
        keep |= np.isnan(wide)
    subnormal = np.zeros(len(values), np.bool_)
    if number.is_float:
        least = float(ml_dtypes.finfo(number.dtype).smallest_normal)
        subnormal = finite & (magnitude > 0) & (magnitude < least)
    if not allow_subnormal:
        keep &= ~subnormal
    if not keep.any():
        raise OptionError(f"no value of {number.name} is allowed")
    order = np.lexsort(_complexity(wide, subnormal))
    made = values[order[keep[order]]]
    made.setflags(write=False)
    return made


def _complexity(wide: Array, subnormal: Array) -> tuple[Array, ...]:
    """Keys for `np.lexsort`, the last one first."""
    finite = np.isfinite(wide)
    safe = np.where(finite, wide, 0.0)
    fraction, exponent = np.frexp(np.abs(safe))
    # Significant bits: how often the fraction has to be doubled to be an integer.
    doubled = fraction[:, None] * 2.0 ** np.arange(12)
    significant = np.argmax(doubled == np.trunc(doubled), axis=1)
    return (
        np.signbit(safe),
        np.abs(safe),
        np.abs(exponent),
        significant,
        safe != np.trunc(safe),
        subnormal,
        np.isnan(wide),
        ~finite,
    )


def code_values(codes: Array, code: CodeFormat) -> Array:
    """What codes stand for, as float64: integers themselves, bits of 8-bit floats as floats.

    Codes of 8-bit floats are their bits (any integer type of one byte) or ml_dtypes floats.
    """
    number = FLOAT_CODES.get(code)
    if number is None or codes.dtype.kind not in "iu":
        return codes.astype(np.float64)
    return codes.astype(np.uint8, copy=False).view(number.dtype).astype(np.float64)


def code_range(scheme: Scheme) -> tuple[float, float]:
    """The smallest and the largest value that a code of the scheme may have."""
    limit = code_limit(scheme)
    if scheme.format.is_float:
        return -limit, limit
    if scheme.format is CodeFormat.U4:
        return 0, 15
    return -limit - 1, limit


def unit_roundoff(dtype: np.dtype[Any]) -> float:
    """The largest relative error of one rounding to nearest: 2^-11 for f16, 2^-8 for bf16."""
    return float(ml_dtypes.finfo(dtype).eps) / 2


def overflow_threshold(dtype: np.dtype[Any]) -> float:
    """The smallest magnitude that rounds to infinity: the largest value and half a step."""
    info = ml_dtypes.finfo(dtype)
    return float(info.max) + float(spacing(np.array([float(info.max)]), dtype)[0]) / 2
