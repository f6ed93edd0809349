"""Mergeable histograms: nothing is lost, and neither order nor batches matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilewright.compiler.calibration.histogram import BINS, MagnitudeHistogram

Values = npt.NDArray[np.floating[Any]]

MAGNITUDES = st.one_of(
    st.floats(0, float(np.finfo(np.float32).max), width=32),
    st.floats(0, 2, width=32),
    st.integers(-2, 2).map(lambda e: 2.0**e),  # at the very edge of a range
)
BATCHES = st.lists(
    hnp.arrays(np.float32, st.integers(0, 12), elements=MAGNITUDES), min_size=1, max_size=6
)


def histogram_of(*batches: Values) -> MagnitudeHistogram:
    histogram = MagnitudeHistogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def assert_same(a: MagnitudeHistogram, b: MagnitudeHistogram) -> None:
    assert (a.absmax, a.width) == (b.absmax, b.width)
    np.testing.assert_array_equal(a.counts, b.counts)


@given(BATCHES, st.integers(0, 99))
def test_order_does_not_matter(batches: list[Values], seed: int) -> None:
    shuffled = list(np.concatenate(batches))
    np.random.default_rng(seed).shuffle(shuffled)
    assert_same(
        histogram_of(*batches),
        histogram_of(*(np.array([value], np.float32) for value in shuffled)),
    )


@given(BATCHES, BATCHES)
def test_merging_is_adding(left: list[Values], right: list[Values]) -> None:
    merged = histogram_of(*left)
    merged.merge(histogram_of(*right))
    assert_same(merged, histogram_of(np.concatenate([*left, *right])))


@given(BATCHES)
def test_every_value_is_in_its_bin(batches: list[Values]) -> None:
    histogram, values = histogram_of(*batches), np.concatenate(batches).astype(np.float64)
    assert histogram.total == len(values)
    assert histogram.absmax == max(values, default=0)
    expected = np.bincount(np.floor(values / histogram.width).astype(int), minlength=BINS)
    np.testing.assert_array_equal(histogram.counts, expected)


@given(BATCHES)
def test_the_largest_value_is_in_the_upper_half(batches: list[Values]) -> None:
    histogram = histogram_of(*batches)
    if histogram.absmax >= 2.0**-99:
        assert BINS // 2 < histogram.used <= BINS


def test_batches_of_other_types() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.standard_normal((16, 24))).astype(np.float32)
    assert_same(histogram_of(values), histogram_of(values.astype(np.float64)))
