"""Histograms of magnitudes that can be merged: what is in them does not depend on the order in
which values came, nor on how they were divided into batches.

A histogram has `BINS` bins of one width over `[0, 2^e)`, where `2^e` is the least power of two
above everything that it has seen. When a larger value comes, e grows by k and 2^k neighbours become
one bin. No count is lost and none moves to a wrong bin: bins of widths that are powers of two lie
whole in one another, and scaling a float by a power of two is exact, so that a value's bin is
`floor(|x| * BINS / 2^e)` by whatever way it came there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

BINS = 1 << 14
"""The largest value lies in the upper half: it is known to `2^-13` of itself, or better."""
_LEAST_EXPONENT = -100
"""Of the range: `BINS / 2^e` is then a finite f32. Smaller values are in the first bin."""


class MagnitudeHistogram:
    """Counts of `|x|` by size, and the largest one."""

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(BINS, np.int64)
        self.absmax = 0.0
        self._exponent = _LEAST_EXPONENT

    @property
    def total(self) -> int:
        """How many values have been counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of a bin: bin i holds `i * width <= |x| < (i + 1) * width`."""
        return math.ldexp(1.0, self._exponent) / BINS

    @property
    def used(self) -> int:
        """The number of bins up to the last that holds anything, or 0."""
        filled = np.flatnonzero(self.counts)
        return int(filled[-1]) + 1 if len(filled) else 0

    def add(self, magnitudes: Array) -> None:
        """Count values, which must be floats (f32 or f64), finite and not negative."""
        if magnitudes.size:
            self.add_up_to(magnitudes, float(magnitudes.max()))

    def add_up_to(self, magnitudes: Array, largest: float) -> None:
        """`add`, for who knows the largest value already."""
        self._hold(largest)
        scale = magnitudes.dtype.type(math.ldexp(float(BINS), -self._exponent))
        bins = (magnitudes.reshape(-1) * scale).astype(np.intp)
        self.counts += np.bincount(bins, minlength=BINS)

    def merge(self, other: MagnitudeHistogram) -> None:
        """Count what `other` has counted, which stays as it is."""
        self._hold(other.absmax)
        self.counts += _merged_bins(other.counts, self._exponent - other._exponent)

    def _hold(self, largest: float) -> None:
        """Widen the range until `largest` is inside."""
        self.absmax = max(self.absmax, largest)
        if largest < self.width * BINS:
            return
        exponent = math.frexp(largest)[1]  # the least with largest < 2^exponent
        self.counts = _merged_bins(self.counts, exponent - self._exponent)
        self._exponent = exponent


def _merged_bins(counts: Counts, doublings: int) -> Counts:
    """The counts over a range that is `2^doublings` times as wide."""
    factor = 1 << min(doublings, BINS.bit_length() - 1)
    merged = np.zeros_like(counts)
    merged[: BINS // factor] = counts.reshape(-1, factor).sum(axis=1)
    return merged
