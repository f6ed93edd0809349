"""Rounding to nearest (the rules of docs/numerics.md, from the reference), and what it costs as the
layer's output sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.backends.reference import numerics
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.passes.tuning.data import Array, Statistics
from tilewright.passes.tuning.report import Error, decibels

ROWS = 2048
"""Output channels at a time: what is made of them on the way is small beside the weight."""


@dataclass(frozen=True)
class Rounded:
    """A matrix on the grid of a scheme."""

    codes: Array
    """i8 `[N, K]`, a code in each element (8-bit floats as their bits)."""
    scale: Array
    """`[N, G]`, as stored."""
    zero: Array | None
    """i8 `[N, G]`, where the scheme has zero points."""
    code_format: CodeFormat

    def values(self) -> Array:
        """The matrix, f32 `[N, K]`."""
        return numerics.dequantize(self.codes, self.scale, F32, self.zero, self.code_format)


def round_to_nearest(weight: Array, scheme: Scheme, element: ElementType) -> Rounded:
    """`weight[N, K]` rounded to nearest; scales are of `element`, or f32 where f16 will not do."""
    return Rounded(*numerics.quantize(weight, scheme, element), scheme.format)


def energy(matrix: Array, statistics: Statistics) -> float:
    """`tr(M H M^T)`: the mean square of `x M^T` over the calibration's inputs, summed over the
    outputs.

    Without a Hessian inputs are taken as uncorrelated: H is diagonal, `second_moments`.
    """
    hessian = statistics.hessian
    total = 0.0
    second = None if hessian is None else hessian.astype(np.float32)
    diagonal = second_moments(statistics)
    for start in range(0, len(matrix), ROWS):
        rows = matrix[start : start + ROWS].astype(np.float32, copy=False)
        if second is None:
            total += float(np.sum(rows.astype(np.float64) ** 2 @ diagonal))
        else:
            total += float(np.sum((rows @ second) * rows, dtype=np.float64))
    return max(total, 0.0)


def second_moments(statistics: Statistics) -> Array:
    """`E[x_k^2]`, f64 `[K]`: H's diagonal; without it those of Gaussian inputs of the mean
    magnitudes there are, `pi / 2 * (mean |x_k|)^2`."""
    if statistics.hessian is not None:
        return np.diag(statistics.hessian)
    return np.pi / 2 * statistics.mean_abs.astype(np.float64) ** 2


@dataclass(frozen=True)
class Measured:
    """Energies of a layer's output and weight, and of their errors."""

    output: float
    output_error: float
    weight: float
    weight_error: float

    @property
    def error(self) -> Error:
        """The ratios in dB."""
        return Error(
            decibels(self.output, self.output_error), decibels(self.weight, self.weight_error)
        )


def measure(weight: Array, values: Array, statistics: Statistics) -> Measured:
    """What becomes of a layer whose `weight` is rounded to `values`, both `[N, K]`."""
    difference = weight - values
    return Measured(
        energy(weight, statistics),
        energy(difference, statistics),
        float(np.sum(weight.astype(np.float64) ** 2)),
        float(np.sum(difference.astype(np.float64) ** 2)),
    )
