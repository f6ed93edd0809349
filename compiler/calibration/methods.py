"""Where to clip: from the histogram of a tensor's magnitudes to the magnitude that is quantized to
the largest code.

- min-max: the largest magnitude; nothing is clipped.
- percentile: the magnitude that so many percent of the values do not exceed.
- KL: the clip under which the quantized distribution tells least apart from the true one (Migacz,
  8-bit Inference with TensorRT, GTC 2017).
- MSE: the clip under which the mean square of rounding and clipping errors is least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tilewright.compiler.calibration.histogram import BINS, MagnitudeHistogram
from tilewright.dialects.errors import OptionError

MethodName = Literal["minmax", "percentile", "kl", "mse"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)

DEFAULT_PERCENTILE = 99.99
QMAX = 127
"""The largest code of symmetric int8."""
KL_LEVELS = 128
"""Magnitudes that int8 can tell apart: 0 to 127."""
KL_BINS = 4096
"""The largest magnitude lies in the upper half of them: TensorRT's 2048 bins, or up to twice as
many."""
_MSE_STEPS = 16
"""Candidates for each halving of the range."""
_MSE_HALVINGS = 8


@dataclass(frozen=True)
class Method:
    """How a clip is chosen. Raises `OptionError` for what makes no sense."""

    name: MethodName = "minmax"
    percentile: float | None = None
    """For the method of that name only: above 0, up to 100."""

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise OptionError(
                f"unknown method of calibration {self.name!r}", hint=f"one of {', '.join(METHODS)}"
            )
        if self.name == "percentile" and self.percentile is None:
            object.__setattr__(self, "percentile", DEFAULT_PERCENTILE)
        if self.percentile is not None:
            object.__setattr__(self, "percentile", float(self.percentile))
        if self.name != "percentile" and self.percentile is not None:
            raise OptionError(
                f"a percentile does not go with the method {self.name!r}",
                hint="--method percentile",
            )
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise OptionError(
                f"a percentile of {self.percentile:g}",
                hint="above 0, up to 100; 99.9 to 99.999 are usual",
            )

    def __str__(self) -> str:
        return self.name if self.percentile is None else f"{self.name} {self.percentile:g}"

    def clip(self, histogram: MagnitudeHistogram) -> float:
        """The clip for what a histogram holds: above 0 and at most its largest value, which is 0
        only if all values are."""
        if histogram.absmax == 0:
            return 0.0
        if self.name == "minmax":
            return histogram.absmax
        if self.percentile is not None:
            return percentile_clip(histogram, self.percentile)
        return kl_clip(histogram) if self.name == "kl" else mse_clip(histogram)


def percentile_clip(histogram: MagnitudeHistogram, percent: float) -> float:
    """The end of the bin that holds the value of rank `ceil(percent / 100 * n)` of n."""
    cumulative = np.cumsum(histogram.counts)
    rank = np.ceil(percent / 100 * cumulative[-1])
    at = int(np.searchsorted(cumulative, max(rank, 1)))
    return min((at + 1) * histogram.width, histogram.absmax)


def kl_clip(histogram: MagnitudeHistogram) -> float:
    """The clip with the least `kl_divergences`; the largest of equal ones."""
    counts = histogram.counts.reshape(KL_BINS, -1).sum(axis=1)
    width = histogram.width * (BINS // KL_BINS)
    divergences = kl_divergences(np.trim_zeros(counts, "b"))
    if not len(divergences):  # below the least range of a histogram
        return histogram.absmax
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return min((KL_LEVELS + best) * width, histogram.absmax)


def kl_divergences(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`KL(P || Q)` in nats for a clip behind each bin from `KL_LEVELS` to the last.

    P is the distribution of values after clipping: what lies behind the clip is counted in the last
    bin before it. Q knows only in which of `KL_LEVELS` ranges of bins the values before the clip
    lie, and spreads those of a range evenly over the bins that P fills. Where Q is 0 and P is not
    the divergence is infinite. The last bin must not be empty.
    """
    total = counts.sum()
    clips = np.arange(KL_LEVELS, len(counts) + 1)
    edges = clips[:, None] * np.arange(KL_LEVELS + 1) // KL_LEVELS

    def of_levels(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sum over the bins of each level, for each clip."""
        cumulative = np.concatenate([[0.0], np.cumsum(values)])
        return np.diff(cumulative[edges], axis=1)

    last = counts[clips - 1].astype(np.float64)
    kept = np.cumsum(counts)[clips - 1].astype(np.float64)
    outliers = total - kept
    inside = of_levels(counts.astype(np.float64))
    bins = of_levels((counts > 0).astype(np.float64))
    bins[:, -1] += (last == 0) & (outliers > 0)  # filled by outliers alone
    of_p = inside.copy()
    of_p[:, -1] += outliers
    # sum of P log P: that of the counts before the clip, with the last bin's replaced.
    entropy = np.cumsum(_xlogx(counts.astype(np.float64)))[clips - 1]
    entropy += _xlogx(last + outliers) - _xlogx(last)
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(of_p > 0, of_p * np.log(inside / bins), 0.0).sum(axis=1)
        nats = (entropy - cross) / total + np.log(kept / total)
    return np.where(np.isfinite(nats), nats, np.inf)


def _xlogx(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values * np.log(np.maximum(values, 1.0))


def mse_clip(histogram: MagnitudeHistogram) -> float:
    """The clip with the least `mean_square_error`, of candidates from the largest value down, a
    16th of a halving apart."""
    steps = np.arange(_MSE_STEPS * _MSE_HALVINGS)
    candidates = histogram.absmax * 2.0 ** (-steps / _MSE_STEPS)
    errors = [mean_square_error(histogram, float(clip)) for clip in candidates]
    return float(candidates[int(np.argmin(errors))])


def mean_square_error(histogram: MagnitudeHistogram, clip: float) -> float:
    """Of quantization with scale `clip / 127`, with every value in the middle of its bin."""
    filled = np.flatnonzero(histogram.counts)
    middles = (filled + 0.5) * histogram.width
    scale = clip / QMAX
    errors = np.minimum(np.rint(middles / scale), QMAX) * scale - middles
    counts = histogram.counts[filled]
    return float(np.dot(counts, errors**2) / counts.sum())
