"""Clips against direct computations of what they are defined as."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.ao.quantization.observer import HistogramObserver

from tilewright.compiler.calibration.histogram import MagnitudeHistogram
from tilewright.compiler.calibration.methods import (
    KL_LEVELS,
    METHODS,
    QMAX,
    Method,
    MethodName,
    kl_clip,
    kl_divergences,
    mean_square_error,
    mse_clip,
    percentile_clip,
)
from tilewright.dialects.errors import OptionError

Values = npt.NDArray[np.float32]

VALUES = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(0, 1e6, width=32, allow_subnormal=False)
)
DISTRIBUTIONS = ("normal", "laplace", "student", "outliers", "uniform")


def histogram_of(values: Values) -> MagnitudeHistogram:
    histogram = MagnitudeHistogram()
    histogram.add(np.abs(values))
    return histogram


def drawn(distribution: str, count: int = 20_000) -> Values:
    rng = np.random.default_rng(7)
    values = {
        "normal": rng.standard_normal(count),
        "laplace": rng.laplace(size=count),
        "student": rng.standard_t(3, count),
        "outliers": rng.standard_normal(count) * np.where(rng.random(count) < 1e-3, 30, 1),
        "uniform": rng.uniform(-1, 1, count),
    }
    return values[distribution].astype(np.float32)


def quantization_error(values: Values, clip: float) -> float:
    scale = clip / QMAX
    rounded = np.clip(np.rint(values.astype(np.float64) / scale), -QMAX, QMAX) * scale
    return float(np.mean((rounded - values) ** 2))


@given(VALUES, st.sampled_from(METHODS))
def test_a_clip_is_above_zero_and_at_most_the_largest(values: Values, name: MethodName) -> None:
    clip = Method(name).clip(histogram_of(values))
    largest = float(values.max())
    assert 0 < clip <= largest if largest else clip == 0


@given(VALUES, VALUES)
def test_minmax_is_exact_and_monotone_in_the_data(values: Values, more: Values) -> None:
    clip = Method("minmax").clip(histogram_of(values))
    assert clip == float(values.max())
    assert Method("minmax").clip(histogram_of(np.concatenate([values, more]))) >= clip


@given(VALUES, st.floats(0.01, 100))
def test_percentile_is_that_of_numpy_within_a_bin(values: Values, percent: float) -> None:
    histogram = histogram_of(values)
    exact = float(np.percentile(values.astype(np.float64), percent, method="inverted_cdf"))
    clip = percentile_clip(histogram, percent)
    assert exact <= clip <= exact + histogram.width


@given(VALUES)
def test_percentiles_are_monotone_and_end_at_the_largest(values: Values) -> None:
    histogram = histogram_of(values)
    clips = [percentile_clip(histogram, percent) for percent in (1, 50, 99, 99.99, 100)]
    assert clips == sorted(clips)
    assert clips[-1] == histogram.absmax


@given(VALUES.filter(lambda values: bool(values.max() > 0)))
def test_mse_is_never_worse_than_the_largest(values: Values) -> None:
    histogram = histogram_of(values)
    error = mean_square_error(histogram, mse_clip(histogram))
    assert error <= mean_square_error(histogram, histogram.absmax)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_mse_finds_the_best_clip_of_the_data(distribution: str) -> None:
    values = drawn(distribution)
    largest = float(np.abs(values).max())
    best = min(quantization_error(values, clip) for clip in largest * np.linspace(0.01, 1, 300))
    assert quantization_error(values, mse_clip(histogram_of(values))) <= 1.02 * best


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_mse_is_as_good_as_the_observer_of_torch(distribution: str) -> None:
    values = drawn(distribution)
    observer = HistogramObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    observer(torch.from_numpy(values))
    (scale,), _ = observer.calculate_qparams()
    theirs = quantization_error(values, float(scale) * QMAX)
    assert quantization_error(values, mse_clip(histogram_of(values))) <= 1.02 * theirs


def divergence(counts: npt.NDArray[np.int64], clip: int) -> float:
    """KL(P || Q) bin by bin, as the slides of TensorRT have it."""
    p = [float(count) for count in counts[:clip]]
    p[-1] += float(counts[clip:].sum())
    q = [0.0] * clip
    for level in range(KL_LEVELS):
        bins = range(level * clip // KL_LEVELS, (level + 1) * clip // KL_LEVELS)
        filled = [i for i in bins if p[i] > 0]
        for i in filled:
            q[i] = float(counts[bins.start : bins.stop].sum()) / len(filled)
    total_p, total_q = sum(p), sum(q)
    result = 0.0
    for of_p, of_q in zip(p, q, strict=True):
        if of_p > 0:
            if of_q == 0:
                return math.inf
            result += of_p / total_p * math.log((of_p / total_p) / (of_q / total_q))
    return result


@given(
    hnp.arrays(np.int64, st.integers(KL_LEVELS, KL_LEVELS + 60), elements=st.integers(0, 9)),
    st.integers(1, 50),
)
def test_kl_is_what_the_definition_says(counts: npt.NDArray[np.int64], last: int) -> None:
    counts[-1] = last
    expected = [divergence(counts, clip) for clip in range(KL_LEVELS, len(counts) + 1)]
    np.testing.assert_allclose(kl_divergences(counts), expected, rtol=1e-9, atol=1e-12)


def test_kl_clips_tails_and_keeps_what_has_none() -> None:
    outliers = histogram_of(drawn("outliers"))
    assert kl_clip(outliers) < 0.5 * outliers.absmax
    uniform = histogram_of(drawn("uniform"))
    assert kl_clip(uniform) > 0.95 * uniform.absmax


def test_values_below_the_least_range_are_not_clipped() -> None:
    histogram = histogram_of(np.array([1e-36, 3e-35], np.float32))
    for name in METHODS:
        assert 0 < Method(name).clip(histogram) <= histogram.absmax


@pytest.mark.parametrize("percentile", [0, -1, 100.5, math.nan])
def test_percentiles_that_are_none(percentile: float) -> None:
    with pytest.raises(OptionError, match="a percentile of"):
        Method("percentile", percentile)


def test_a_percentile_goes_with_its_method() -> None:
    assert Method("percentile").percentile == 99.99
    with pytest.raises(OptionError, match="does not go with the method 'kl'"):
        Method("kl", 99)
