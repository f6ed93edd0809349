"""Quantization noise: the signal-to-noise ratio that a scheme must have, and that it has."""

from __future__ import annotations

from functools import cache
from math import log10, sqrt
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tilewright.backends.reference.distributions import Distribution, quantile_table
from tilewright.dialects.quantization import CodeFormat, Scheme

Array = npt.NDArray[Any]

_FLOAT_CODES: dict[CodeFormat, np.dtype[Any]] = {
    CodeFormat.F8E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    CodeFormat.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
}

_GRID = 1501
_LOG_CUTOFF = 1e-12
"""Ranges are integrated up to where a group reaches no farther but once in 10^12."""


def snr_db(exact: Array, made: Array) -> float:
    """`10 log10(sum exact^2 / sum (made - exact)^2)`; infinite where they are equal."""
    reference = np.asarray(exact, np.float64)
    noise = float(np.sum((np.asarray(made, np.float64) - reference) ** 2))
    signal = float(np.sum(reference**2))
    if noise == 0:
        return float("inf")
    return 10 * log10(signal / noise) if signal else float("-inf")


def cosine_from_snr(snr: float) -> float:
    """The cosine of the angle between a vector and itself with noise of `snr` dB that does not
    correlate with it: `<x, x + n> / (|x| |x + n|) = 1 / sqrt(1 + 1 / SNR)`.
    """
    return 1 / sqrt(1 + 10 ** (-snr / 10))


def expected_snr_db(source: Distribution | Array, scheme: Scheme, depth: int) -> float:
    """The SNR of weights in dB under a scheme, with channels of `depth` inputs: of independent
    values of a distribution, or of a given weight `[N, depth]`.

    Derivation. With steps of `s d` (d the distance of codes: 1 for integers) errors are uniform in
    a step, variance `s^2 d^2 / 12`. For integers `s = range / steps`, so

        SNR = 12 steps^2 E[w^2] / E[range^2]

    with the range of a group of g values: the largest magnitude, `steps` 127 or 7; with zero points
    the distance of largest and smallest, 0 included, `steps` 255 or 15. The expectations are
    integrals over the distribution's cdf F: `E[max^2] = int 2t P(max > t) dt`, and `E[range^2] = 2
    int int_{s<t} P(min <= s, max > t)`, where `P(min <= s, max > t) = 1 - (1 - F(s))^g - F(t)^g +
    (F(t) - F(s))^g` (inclusion and exclusion; Hoeffding's formula for the second moment). For 8-bit
    floats the noise is the mean of `d(w / s)^2` at `s = sqrt(E[max^2]) / limit`.

    It holds where steps are small against the weights: within 0.2 dB for int8, for 8-bit floats (of
    Student's t 0.3 dB), and for int4 of Gaussian and uniform weights. Heavy tails put most int4
    codes at 0, where errors are the weights themselves: there it is too low by some dB.
    """
    steps = code_steps(scheme)
    group = scheme.group or depth
    if not isinstance(source, Distribution):
        groups = np.asarray(source, np.float64).reshape(len(source), -1, group)
        ranges = _ranges(groups, scheme)
        scale = np.repeat(ranges / steps, group, axis=-1).reshape(source.shape)
        safe = np.where(scale == 0, 1.0, scale)
        noise = float(np.mean((code_spacing(source / safe, scheme) * scale) ** 2)) / 12
        return 10 * log10(float(np.mean(np.asarray(source, np.float64) ** 2)) / noise)
    if scheme.zero_point:
        square = expected_square_range(source, group)
    else:
        square = expected_square_max(source, group)
    if not scheme.format.is_float:
        return 10 * log10(12 * steps**2 * source.mean_square / square)
    values = np.array(quantile_table(source))
    scale = sqrt(square) / steps
    noise = float(np.mean(code_spacing(values / scale, scheme) ** 2)) * scale**2 / 12
    return 10 * log10(source.mean_square / noise)


def _ranges(groups: Array, scheme: Scheme) -> Array:
    if not scheme.zero_point:
        return np.abs(groups).max(axis=-1)
    return np.maximum(groups.max(axis=-1), 0) - np.minimum(groups.min(axis=-1), 0)


@cache
def expected_square_max(source: Distribution, count: int) -> float:
    """`E[max |w|^2]` of `count` independent values."""
    t = _grid(source, count)
    return float(np.trapezoid(2 * t * _above(source.magnitude_cdf(t), count), t))


@cache
def expected_square_range(source: Distribution, count: int) -> float:
    """`E[(max(w, 0) - min(w, 0))^2]` of `count` independent values."""
    if source.one_sided:
        return expected_square_max(source, count)
    positive = _grid(source, count)
    # With 0 in the range, max > t holds for all t < 0, and min <= s for all s >= 0: both ends on
    # one side of 0 leave E[max^2] / 2 each, s below and t above the mixed term.
    upper = source.cdf(positive)
    one_end = float(np.trapezoid(2 * positive * _above(upper, count), positive))
    lower = 1 - upper  # F(-t), by symmetry
    both = (
        1
        - (1 - lower)[:, None] ** count
        - upper[None, :] ** count
        + np.maximum(upper[None, :] - lower[:, None], 0) ** count
    )
    mixed = float(np.trapezoid(np.trapezoid(both, positive, axis=1), positive))
    return 2 * one_end + 2 * mixed


def _above(cdf: Array, count: int) -> Array:
    """`1 - cdf^count`, without cancellation where cdf is almost 1."""
    with np.errstate(divide="ignore"):
        return -np.expm1(count * np.log(cdf))


def _grid(source: Distribution, count: int) -> Array:
    """Points from 0 to where values of `count` no longer come, denser near 0."""
    top = float(source.quantile(np.array([1 - _LOG_CUTOFF / count]))[0])
    dense = np.linspace(0, 1, _GRID) ** 2
    return dense * top


def code_limit(scheme: Scheme) -> float:
    """The largest code: 127, 7 (15 with zero points), 448 or 57344."""
    dtype = _FLOAT_CODES.get(scheme.format)
    if dtype is not None:
        return float(ml_dtypes.finfo(dtype).max)
    if scheme.format is CodeFormat.U4:
        return 15
    return 127 if scheme.format is CodeFormat.I8 else 7


def code_steps(scheme: Scheme) -> float:
    """Steps between the ends of a group's range: that of a symmetric scheme is its largest weight,
    so 127, 7, 448 or 57344; with zero points it is the distance of both ends, so 255 or 15.
    """
    if scheme.zero_point and not scheme.format.is_float:
        return 2.0**scheme.format.bits - 1
    return code_limit(scheme)


def code_spacing(values: Array, scheme: Scheme) -> Array:
    """The distance of neighbouring codes at each value (`w / s`), as float64: 1 for integers.

    For 8-bit floats `2^(e - m)` in the binade `[2^e, 2^(e+1))` with m = 3 or 2 bits of fraction;
    below the least normal, `2^-6` or `2^-14`, that of the last binade.
    """
    dtype = _FLOAT_CODES.get(scheme.format)
    return np.ones(np.shape(values)) if dtype is None else spacing(values, dtype)


def spacing(values: Array, dtype: np.dtype[Any]) -> Array:
    """The distance of neighbours of a floating-point type in the binade of each value, as float64.

    `2^(e - m)` in `[2^e, 2^(e+1))` with m bits of fraction; values below the least normal have the
    spacing of the subnormals, those past the largest that of the last binade.
    """
    info = ml_dtypes.finfo(dtype)
    least = round(np.log2(float(info.smallest_normal)))
    most = int(np.floor(np.log2(float(info.max))))
    values = np.asarray(values, np.float64)
    usable = np.isfinite(values) & (values != 0)
    _, exponent = np.frexp(np.where(usable, np.abs(values), 1.0))
    exponent = np.where(usable, exponent - 1, np.where(values == 0, least, most))
    fraction_bits = -round(np.log2(float(info.eps)))
    return np.ldexp(1.0, np.clip(exponent, least, most) - fraction_bits)
