"""The noise of a scheme on Gaussian weights, by closed formulas: what is predicted where the
weights themselves are not at hand.

Rounding to a grid of step s has the error s^2 / 12 (uniform within a step). The step follows from
the largest of g magnitudes, or from the range of g values with zero points, so that the noise is

    E[max^2] / (12 qmax^2)    or    E[range^2] / (12 (2^b - 1)^2)

of the signal's energy (docs/numerics.md: what follows, and is tested as properties). An 8-bit
float has a step for each binade.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.quantization import DENSE, CodeFormat, Scheme, parse_scheme

Array = npt.NDArray[Any]

_QMAX = {CodeFormat.I8: 127, CodeFormat.I4: 7}
_LARGEST = {CodeFormat.F8E4M3: 448.0, CodeFormat.F8E5M2: 57344.0}
_MANTISSA_BITS = {CodeFormat.F8E4M3: 3, CodeFormat.F8E5M2: 2}
_LEAST_EXPONENT = {CodeFormat.F8E4M3: -6, CodeFormat.F8E5M2: -14}
_DENSE_BITS = {"f32": 23, "f16": 10, "bf16": 7}

_GRID = np.linspace(-9.0, 9.0, 1801)
_DENSITY = np.exp(-(_GRID**2) / 2) / math.sqrt(2 * math.pi)
_BELOW = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in _GRID])


@cache
def expected_noise(quant: str, depth: int) -> float:
    """The energy of the rounding errors over that of Gaussian weights with channels of `depth`."""
    if quant in DENSE:
        return _float_noise(1.0, _DENSE_BITS[quant], -126)
    scheme = parse_scheme(quant)
    count = scheme.group or depth
    if scheme.format.is_float:
        largest = math.sqrt(mean_square_of_largest(count))
        return _float_noise(
            largest / _LARGEST[scheme.format],
            _MANTISSA_BITS[scheme.format],
            _LEAST_EXPONENT[scheme.format],
        )
    if scheme.zero_point:
        return mean_square_of_range(count) / (12 * _steps(scheme) ** 2)
    return mean_square_of_largest(count) / (12 * _QMAX[scheme.format] ** 2)


def _steps(scheme: Scheme) -> int:
    return 2**scheme.format.bits - 1


@cache
def mean_square_of_largest(count: int) -> float:
    """`E[max |z|^2]` of `count` independent standard Gaussians: `P(max |z| > t)` integrated over
    `t^2`."""
    t = _GRID[_GRID >= 0]
    inside = 2 * _BELOW[_GRID >= 0] - 1
    return float(np.trapezoid((1 - inside**count) * 2 * t, t))


@cache
def mean_square_of_range(count: int) -> float:
    """`E[(max z - min z)^2]` of `count` independent standard Gaussians.

    `P(range <= r) = n * integral of phi(x) (Phi(x + r) - Phi(x))^(n - 1) dx`: David and Nagaraja,
    Order Statistics, 3rd edition, section 2.3.
    """
    r = np.linspace(0.0, 18.0, 1801)
    within = np.interp(_GRID[None] + r[:, None], _GRID, _BELOW, right=1.0) - _BELOW[None]
    below = count * np.trapezoid(_DENSITY * within ** (count - 1), _GRID, axis=1)
    return float(np.trapezoid((1 - np.minimum(below, 1)) * 2 * r, r))


def _float_noise(scale: float, mantissa_bits: int, least_exponent: int) -> float:
    """The noise of rounding standard Gaussians to `scale` times a floating-point type."""
    z = np.linspace(1e-6, 9.0, 200_001)
    density = np.exp(-(z**2) / 2) * math.sqrt(2 / math.pi)
    exponents = np.maximum(np.floor(np.log2(z / scale)), least_exponent)
    steps = scale * np.exp2(exponents - mantissa_bits)
    return float(np.trapezoid(density * steps**2 / 12, z))
