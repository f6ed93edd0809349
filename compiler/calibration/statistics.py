"""What is known of the inputs of a linear layer, channel by channel: sums over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.calibration.histogram import MagnitudeHistogram

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class InputStatistics:
    """The inputs `x[row, k]` of a linear layer over all rows of the calibration."""

    absmax: npt.NDArray[np.float32]
    """`max |x_k|`, `[K]`."""
    mean_abs: npt.NDArray[np.float32]
    """`mean |x_k|`, `[K]`."""
    hessian: npt.NDArray[np.float64] | None = None
    """`X^T X / rows`, `[K, K]`, if it was gathered: half the Hessian of the squared error of the
    layer's output with respect to a row of its weight."""


class InputSums:
    """`InputStatistics` in the making, and a histogram of all channels together.

    Sums over batches are taken in float64, those of products within a batch in the type of `x`:
    but for these roundings they do not depend on how rows come in batches.
    """

    def __init__(self, channels: int, *, hessian: bool) -> None:
        self.channels = channels
        self.rows = 0
        self.histogram = MagnitudeHistogram()
        self._absmax = np.zeros(channels, np.float32)
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels)) if hessian else None

    def add(self, x: Array) -> None:
        """Count the rows of `x[rows, K]`, which are finite floats."""
        magnitudes = np.abs(x)
        largest = magnitudes.max(axis=0)
        self.rows += len(x)
        self.histogram.add_up_to(magnitudes, float(largest.max()))
        np.maximum(self._absmax, largest, out=self._absmax)
        self._sum += magnitudes.sum(axis=0, dtype=np.float64)
        if self._products is not None:
            self._products += x.T @ x

    def merge(self, other: InputSums) -> None:
        """Count what `other` has counted, which stays as it is."""
        self.rows += other.rows
        self.histogram.merge(other.histogram)
        np.maximum(self._absmax, other._absmax, out=self._absmax)
        self._sum += other._sum
        if self._products is not None and other._products is not None:
            self._products += other._products

    def finish(self) -> InputStatistics:
        """The statistics of the rows, of which there must be one or more. The sums are used up."""
        hessian, self._products = self._products, None
        if hessian is not None:
            hessian /= self.rows
        return InputStatistics(self._absmax, (self._sum / self.rows).astype(np.float32), hessian)
