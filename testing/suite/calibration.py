"""Ranges of activations from data."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tilewright.testing.quantizer import Subject
from tilewright.testing.strategies.shapes import lengths
from tilewright.testing.strategies.weights import outliers, tailed
from tilewright.testing.suite.property import Array, Case, quantizer_property, require

_NEEDS = ("calibrate",)
_CLOSE = 2.0**-5
"""Of the largest value: histograms may be binned anew when their range grows."""


@st.composite
def _draw_batches(draw: st.DrawFn, subject: Subject) -> Case:
    del subject
    depth = draw(lengths(20))
    rows = draw(st.integers(2, 12))
    data = draw(tailed((rows, depth), exponents=(0, 2)) | outliers((rows, depth), exponents=(0, 1)))
    if not data.any():
        data[0, 0] = 1
    if draw(st.sampled_from([False, False, True])):
        data = -np.abs(data)
    cut = draw(st.integers(1, rows - 1))
    return data[:cut], data[cut:]


def _range(subject: Subject, *batches: Array) -> float:
    assert subject.quantizer.calibrate is not None
    return float(subject.quantizer.calibrate([batch.copy() for batch in batches]))


def _require_near(value: float, other: float, largest: float, what: str) -> None:
    require(
        abs(value - other) <= _CLOSE * largest,
        f"the range is {value:.9g}, and {other:.9g} {what} (the largest value is {largest:.9g})",
    )


def _largest(*batches: Array) -> float:
    return max(float(np.abs(batch).max()) for batch in batches)


@quantizer_property("calibration-range", _draw_batches, needs=_NEEDS)
def calibration_range(subject: Subject, first: Array, second: Array) -> None:
    """The range is positive, and no larger than the largest magnitude of the data.

    Catches ranges of 0 (division by 0 follows), signs that are forgotten, data that is not seen.
    """
    value, largest = _range(subject, first, second), _largest(first, second)
    require(
        0 < value <= largest * (1 + 2.0**-10),
        f"the range is {value:.9g}, the largest value {largest:.9g}",
    )


@quantizer_property("calibration-order", _draw_batches, needs=_NEEDS)
def calibration_order(subject: Subject, first: Array, second: Array) -> None:
    """Batches in another order give the same range.

    Catches histograms whose bins the first batch fixes, moving averages, the last batch winning.
    """
    forward, backward = _range(subject, first, second), _range(subject, second, first)
    _require_near(forward, backward, _largest(first, second), "in the other order")


@quantizer_property("calibration-batches", _draw_batches, needs=_NEEDS)
def calibration_batches(subject: Subject, first: Array, second: Array) -> None:
    """The same data in one batch gives the same range.

    Catches means of ranges of batches, which depend on the batch size.
    """
    split, joined = _range(subject, first, second), _range(subject, np.concatenate([first, second]))
    _require_near(split, joined, _largest(first, second), "in one batch")


@quantizer_property("calibration-scaling", _draw_batches, needs=_NEEDS)
def calibration_scaling(subject: Subject, first: Array, second: Array) -> None:
    """Data 4 times as large has 4 times the range.

    Catches bins of a fixed width, and floors.
    """
    value = _range(subject, first, second)
    larger = _range(subject, first * np.float32(4), second * np.float32(4))
    _require_near(value * 4, larger, 4 * _largest(first, second), "for data 4 times as large")


@quantizer_property("calibration-repetition", _draw_batches, needs=_NEEDS)
def calibration_repetition(subject: Subject, first: Array, second: Array) -> None:
    """The same data twice has the same range.

    Catches ranges that grow or shrink with the amount of data.
    """
    once, twice = _range(subject, first, second), _range(subject, first, second, first, second)
    _require_near(once, twice, _largest(first, second), "with all data twice")
