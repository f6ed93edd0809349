"""The numbers that constants stand for, where f32 could only hold what is nearest to them.

Kernels hold constants in f32: a mean is a sum times the f32 nearest to `1 / C`. In float64, without
rounding, that would be another function than the mean, by 2^-25 of it, and a comparison could see
nothing smaller. So float64 takes a known constant for the number it stands for, everywhere alike:
in ops of the graph, in their attributes, and in kernels.
"""

from __future__ import annotations

import math

import numpy as np

from tilewright.backends.reference.balls import Arithmetic, Ball
from tilewright.backends.reference.formulas import GELU_TANH_CUBIC, GELU_TANH_SCALE

LARGEST_DIVISOR = 1 << 16
"""Up to here the f32 nearest to `1 / n` is taken for `1 / n`."""

_KNOWN = {
    float(np.float32(sign * value)): sign * value
    for sign in (1, -1)
    for value in (
        GELU_TANH_SCALE,
        2 * GELU_TANH_SCALE,
        GELU_TANH_CUBIC,
        GELU_TANH_SCALE * GELU_TANH_CUBIC,
        2 * GELU_TANH_SCALE * GELU_TANH_CUBIC,
        math.sqrt(0.5),
    )
}


def constant(m: Arithmetic, value: float) -> Ball:
    """A constant of an op. The number that it stands for, unless the arithmetic rounds.

    What float64 does not hold either has a radius of one rounding.
    """
    if m.rounds:
        return Ball.exact(np.asarray(float(np.float32(value))))
    stored = float(np.float32(value))
    return _near(m, value if stored != value else _KNOWN.get(stored, value))


def factor(m: Arithmetic, value: float) -> Ball:
    """A constant that is multiplied by: also `1 / n` is known."""
    stored = float(np.float32(value))
    if not m.rounds and stored != 0 and stored not in _KNOWN and math.isfinite(stored):
        divisor = round(1 / stored)
        if 0 < abs(divisor) <= LARGEST_DIVISOR and float(np.float32(1 / divisor)) == stored:
            return _near(m, 1 / divisor)
    return constant(m, value)


def _near(m: Arithmetic, value: float) -> Ball:
    """The ball of a number, if f32 does not hold it exactly of one that float64 rounds, too."""
    exact = float(np.float32(value)) == value
    return Ball(np.asarray(value), np.asarray(0.0 if exact else 4 * m.unit * abs(value)))
