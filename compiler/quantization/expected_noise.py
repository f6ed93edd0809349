"""The noise of a scheme on Gaussian weights, by closed formulas (`backends.reference.noise`): what
is predicted where the weights themselves are not at hand."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from tilewright.backends.reference.distributions import GAUSSIAN
from tilewright.backends.reference.noise import expected_snr_db
from tilewright.dialects.quantization import DENSE, parse_scheme

_DENSE_BITS = {"f32": 23, "f16": 10, "bf16": 7}
"""Bits of fraction."""


@cache
def expected_noise(quant: str, depth: int) -> float:
    """The energy of the rounding errors over that of Gaussian weights with channels of `depth`."""
    if quant in DENSE:
        return _dense_noise(_DENSE_BITS[quant])
    return 10 ** (-expected_snr_db(GAUSSIAN, parse_scheme(quant), depth) / 10)


def _dense_noise(fraction_bits: int) -> float:
    """The noise of rounding standard Gaussians to a floating-point type: steps of `2^(e - m)` in
    the binade of each value, errors uniform in a step."""
    z = np.linspace(1e-6, 9.0, 200_001)
    density = np.exp(-(z**2) / 2) * math.sqrt(2 / math.pi)
    steps = np.exp2(np.floor(np.log2(z)) - fraction_bits)
    return float(np.trapezoid(density * steps**2 / 12, z))
