"""Distributions of weights: their quantiles, from which matrices are drawn, and what the closed
formulas for quantization noise need of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import erf, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_LEVELS = 2048
"""Magnitudes of a table: with signs 4096 values."""


@dataclass(frozen=True)
class Distribution:
    """A distribution, symmetric about 0 or of positive values alone."""

    name: str
    quantile: Callable[[Array], Array] = field(repr=False)
    """The magnitude below which a share of the values lies: no signs."""
    magnitude_cdf: Callable[[Array], Array] = field(repr=False)
    """The share of values whose magnitude is at most `t >= 0`."""
    mean_square: float
    one_sided: bool = False

    def cdf(self, t: Array) -> Array:
        """The share of values that are at most `t`."""
        inside = self.magnitude_cdf(np.abs(t))
        if self.one_sided:
            return np.where(t < 0, 0.0, inside)
        return np.where(t < 0, (1 - inside) / 2, (1 + inside) / 2)


def _gaussian_quantile(p: Array) -> Array:
    inverse = NormalDist().inv_cdf
    return np.array([inverse((1 + x) / 2) for x in p.ravel()]).reshape(p.shape)


def _gaussian_cdf(t: Array) -> Array:
    return np.array([erf(x / sqrt(2)) for x in np.ravel(t)]).reshape(np.shape(t))


def _student_quantile(p: Array) -> Array:
    """Of Student's t with 4 degrees of freedom. Source: Shaw, Sampling Student's T distribution,
    J. Computational Finance 9 (2006): closed forms for 2 and 4 degrees.
    """
    alpha = np.sqrt(1 - p * p)
    return 2 * np.sqrt(np.cos(np.arccos(alpha) / 3) / alpha - 1)


def _student_cdf(t: Array) -> Array:
    square = t * t
    return t * (square + 6) / (square + 4) ** 1.5


GAUSSIAN = Distribution("gaussian", _gaussian_quantile, _gaussian_cdf, 1.0)
LAPLACE = Distribution("laplace", lambda p: -np.log1p(-p), lambda t: -np.expm1(-t), 2.0)
STUDENT_T4 = Distribution("student-t4", _student_quantile, _student_cdf, 2.0)
"""Heavy tails: fourth moments are infinite."""
UNIFORM = Distribution("uniform", lambda p: p, lambda t: np.minimum(t, 1.0), 1 / 3)
HALF_GAUSSIAN = Distribution("half-gaussian", _gaussian_quantile, _gaussian_cdf, 1.0, True)

DISTRIBUTIONS = (GAUSSIAN, LAPLACE, STUDENT_T4, UNIFORM, HALF_GAUSSIAN)


@cache
def quantile_table(distribution: Distribution) -> Array:
    """4096 values, f64, equally likely, by rising magnitude, positive before negative: drawing a
    position in it draws from the distribution. The first is 0 (for 2^-13 of the distribution).
    """
    middles = (np.arange(_LEVELS) + 0.5) / _LEVELS
    magnitudes = distribution.quantile(middles)
    magnitudes[0] = 0
    signs = np.array([1.0, 1.0 if distribution.one_sided else -1.0])
    made = (magnitudes[:, None] * signs).ravel()
    made.setflags(write=False)
    return made
