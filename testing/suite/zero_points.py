"""Schemes with zero points."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tilewright.testing.formats import code_range, unit_roundoff
from tilewright.testing.quantizer import Subject
from tilewright.testing.strategies import one_sided
from tilewright.testing.strategies.shapes import matrix_shapes
from tilewright.testing.suite.accuracy import (
    any_weight,
    ideal_scale,
    ordinary_weight,
    require_close,
)
from tilewright.testing.suite.property import (
    Array,
    Case,
    at,
    only_symmetric,
    only_zero_points,
    quantizer_property,
    require_each,
)


@quantizer_property("zero-points-in-range", any_weight, applies=only_zero_points)
def zero_points_in_range(subject: Subject, weight: Array) -> None:
    """Every zero point is an integer that a code can be.

    Catches zero points that are not clamped (channels that do not hold 0), fractional ones, ones
    that wrap around when they are stored in a byte.
    """
    made = subject.quantize(weight)
    low, high = code_range(subject.scheme)
    require_each(
        (made.zero >= low) & (made.zero <= high) & (made.zero == np.trunc(made.zero)),
        lambda i: f"zero point {at(made.zero, i)} of group {list(i)} is not in {low:g}..{high:g}",
    )


@quantizer_property("no-zero-points", any_weight, applies=only_symmetric)
def no_zero_points(subject: Subject, weight: Array) -> None:
    """A symmetric scheme has no zero points, or zeros.

    Catches schemes that are called symmetric and are shifted: kernels leave out the correction.
    """
    made = subject.quantize(weight)
    require_each(made.zero == 0, lambda i: f"zero point of group {list(i)} is {at(made.zero, i)}")


def _away_from_zero(subject: Subject) -> st.SearchStrategy[Case]:
    shape = matrix_shapes(subject.scheme)
    return st.tuples(
        st.sampled_from([0.0, 1.0, 8.0]).flatmap(
            lambda offset: one_sided(shape, offset=offset, exponents=(-4, 1), dtype=subject.dtype)
        )
    )


@quantizer_property("one-sided-weights", _away_from_zero)
def one_sided_weights(subject: Subject, weight: Array) -> None:
    """Channels that are all positive, or all negative, and far from 0, keep their values.

    Catches zero points that are clamped without moving the range: a group in [5, 6] would become
    one code, off by more than 4. Ranges have to be widened to hold 0.
    """
    made = subject.quantize(weight)
    steps = np.maximum(np.abs(made.steps), 1)
    ideal = made.wide(ideal_scale(subject, weight)) * (1 + 2.0**-6)
    spacing = np.ones(steps.shape) if subject.is_integer else steps * 2.0**-2
    require_close(weight, made, ideal * spacing * 0.51 + np.abs(weight.astype(np.float64)) * 2e-3)


@quantizer_property("one-sided-range", _away_from_zero, applies=only_zero_points)
def one_sided_range(subject: Subject, weight: Array) -> None:
    """Where all weights of a group have one sign, the zero point is an end of the range, and all
    codes serve that sign.

    Catches zero points in the middle (a bit is lost), and absmax ranges.
    """
    made = subject.quantize(weight)
    low, high = code_range(subject.scheme)
    groups = subject.groups(weight.astype(np.float64))
    positive, negative = np.all(groups > 0, axis=-1), np.all(groups < 0, axis=-1)
    end = np.where(positive, low, np.where(negative, high, made.zero))
    # A scale that is rounded up reaches past the end.
    slack = np.rint(2 * unit_roundoff(made.parts[1].dtype) * (high - low))
    require_each(
        np.abs(made.zero - end) <= slack,
        lambda i: f"zero point of group {list(i)} is {at(made.zero, i)}, not {at(end, i)}",
    )


@quantizer_property("mirrored-zero-points", ordinary_weight, applies=only_zero_points)
def mirrored_zero_points(subject: Subject, weight: Array) -> None:
    """The negative of a weight has the same scales and, but for ties, the mirrored codes.

    Catches ranges of which one end is rounded otherwise than the other, and off-by-one zero points.
    """
    made, negative = subject.quantize(weight), subject.quantize(-weight)
    require_each(made.scale == negative.scale, lambda i: f"scales of group {list(i)} differ")
    require_each(
        np.abs(made.steps + negative.steps) <= 1,
        lambda i: (
            f"{at(weight, i)} is {at(made.steps, i)} steps, its negative {at(negative.steps, i)}"
        ),
    )
