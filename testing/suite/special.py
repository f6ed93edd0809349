"""Weights at the ends of what there is: zeros, constants, outliers, tiny and huge values, NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tilewright.testing.bounds.weights import quantization_error_bound
from tilewright.testing.formats import unit_roundoff
from tilewright.testing.quantizer import Quantized, Subject
from tilewright.testing.strategies import (
    constant_channels,
    largest_f16,
    near_subnormal_scales,
    outliers,
    tailed,
    weights,
    with_zero_channels,
)
from tilewright.testing.strategies.shapes import matrix_shapes
from tilewright.testing.suite.accuracy import any_weight, ideal_scale, require_close
from tilewright.testing.suite.property import (
    Array,
    Case,
    at,
    fail,
    quantizer_property,
    require,
    require_each,
)

_STORED = 2.0**-7
"""What a stored scale may be larger than the ideal one: two roundings of bf16."""


def _ideal_bound(subject: Subject, weight: Array, made: Quantized) -> Array:
    """The error that a scale as large as the range needs leads to, whatever was stored."""
    ideal = ideal_scale(subject, weight) * (1 + _STORED)
    bound = quantization_error_bound(ideal, made.steps, subject.scheme)
    rounded = unit_roundoff(np.dtype(np.float16)) + 2.0**-9
    return bound + np.abs(weight.astype(np.float64)) * rounded


def _family(strategy: Any) -> Any:
    def cases(subject: Subject) -> st.SearchStrategy[Case]:
        return st.tuples(strategy(matrix_shapes(subject.scheme), dtype=subject.dtype))

    return cases


@quantizer_property("scales-are-positive", any_weight)
def scales_are_positive(subject: Subject, weight: Array) -> None:
    """Every scale is a positive finite number.

    Catches 0 / 0 on channels of zeros, scales that underflow to 0 or overflow to infinity in f16,
    and negative scales.
    """
    made = subject.quantize(weight)
    require_each(
        np.isfinite(made.scale) & (made.scale > 0),
        lambda i: f"scale of group {list(i)} is {at(made.scale, i)}",
    )


def _zero_channels(subject: Subject) -> st.SearchStrategy[Case]:
    shape = matrix_shapes(subject.scheme)
    return st.tuples(with_zero_channels(shape, subject.scheme, dtype=subject.dtype))


@quantizer_property("zero-channels", _zero_channels)
def zero_channels(subject: Subject, weight: Array) -> None:
    """A group of zeros is quantized to zeros with a positive scale, and the others as ever.

    Catches 0 / 0: NaN that is cast to an integer is 0 on one processor and -128 on another.
    """
    made = subject.quantize(weight)
    nothing = np.all(subject.groups(weight) == 0, axis=-1)
    require_each(
        ~nothing | (np.isfinite(made.scale) & (made.scale > 0)),
        lambda i: f"the scale of the zeros of group {list(i)} is {at(made.scale, i)}",
    )
    require_close(weight, made, _ideal_bound(subject, weight, made))


@quantizer_property("constant-channels", _family(constant_channels))
def constant_channel(subject: Subject, weight: Array) -> None:
    """A channel of one value has one code, within half a step of the value.

    Catches ranges `max - min` of 0: a scale of 0 or of a fixed floor (1e-5), with which a channel
    of 5.0 becomes one of 0.00015.
    """
    made = subject.quantize(weight)
    codes = subject.groups(made.codes)
    require_each(
        codes == codes[..., :1], lambda i: f"equal weights of group {list(i[:2])} differ in code"
    )
    require_close(weight, made, _ideal_bound(subject, weight, made))


@quantizer_property("outliers", _family(outliers))
def outlier(subject: Subject, weight: Array) -> None:
    """An outlier is kept, and costs precision only in its own group.

    Catches silent clipping of large weights, and one scale for the whole tensor.
    """
    made = subject.quantize(weight)
    require_close(weight, made, _ideal_bound(subject, weight, made))


def _subnormal(subject: Subject) -> st.SearchStrategy[Case]:
    shape = matrix_shapes(subject.scheme)
    return st.tuples(near_subnormal_scales(shape, subject.scheme, dtype=subject.dtype))


@quantizer_property("subnormal-scales", _subnormal)
def subnormal_scales(subject: Subject, weight: Array) -> None:
    """Channels whose scale is below the normal range of f16 are as precise as others.

    Catches f16 scales of channels with absmax below 7.75e-3 (they lose their bits) and below 3.8e-6
    (they are 0, and the channel is gone).
    """
    made = subject.quantize(weight)
    require_close(weight, made, _ideal_bound(subject, weight, made))


@quantizer_property("largest-f16", _family(largest_f16))
def largest_half(subject: Subject, weight: Array) -> None:
    """Weights of +-65504, the largest f16, are quantized like others.

    Catches `max - min` and sums of squares that overflow in f16, scales that are infinite when
    stored, and codes that wrap around.
    """
    made = subject.quantize(weight)
    require_each(np.isfinite(made.scale), lambda i: f"scale of group {list(i)} is not finite")
    require_close(weight, made, _ideal_bound(subject, weight, made))


def _huge(subject: Subject) -> st.SearchStrategy[Case]:
    exponents = {"float16": (10, 15), "bfloat16": (110, 126), "float32": (110, 126)}
    low, high = exponents[subject.dtype.name]
    shape = matrix_shapes(subject.scheme)
    return st.tuples(tailed(shape, exponents=(low, high), dtype=subject.dtype))


@quantizer_property("saturation", _huge)
def saturation(subject: Subject, weight: Array) -> None:
    """Weights near the largest number of their type keep their sign and their place in the order.

    Catches casts before the clamp (1e30 becomes a negative code), and scales that overflow to
    infinity, with which every code is 0.
    """
    made = subject.quantize(weight)
    require_each(
        (np.sign(made.values) == np.sign(weight.astype(np.float64))) | (made.steps == 0),
        lambda i: f"{at(weight, i)} has code {at(made.steps, i)}",
    )
    largest = np.abs(subject.groups(weight.astype(np.float64)))
    codes = np.abs(subject.groups(made.steps))
    top = np.take_along_axis(codes, largest.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    require_each(
        (2 * top >= subject.limit - 1) | (largest.max(axis=-1) == 0),
        lambda i: f"the largest weight of group {list(i)} has code {at(top, i)}",
    )


def _not_finite(subject: Subject) -> st.SearchStrategy[Case]:
    # Of e4m3 weights there are no infinities, but nobody quantizes these.
    return st.tuples(
        weights(scheme=subject.scheme, dtype=subject.dtype, ordinary=True),
        st.integers(0, 2**16 - 1),
        st.sampled_from([np.nan, np.inf, -np.inf]),
    )


def _spoilt(weight: Array, place: int, bad: float) -> tuple[Array, tuple[int, int]]:
    row, column = divmod(place % weight.size, weight.shape[1])
    weight = weight.copy()
    weight[row, column] = bad
    return weight, (row, column)


@quantizer_property("not-finite-is-seen", _not_finite)
def not_finite_is_seen(subject: Subject, weight: Array, place: int, bad: float) -> None:
    """A NaN or an infinity is an error, or is still not finite when dequantized; other channels do
    not change.

    Catches NaN and infinities that become ordinary weights: a damaged checkpoint that nobody
    notices.
    """
    spoilt, (row, column) = _spoilt(weight, place, bad)
    try:
        made = subject.quantize(spoilt)
    except Exception:  # a refusal, of whatever class
        return
    with np.errstate(all="ignore"):
        value = made.values[row, column]
    require(
        not np.isfinite(value),
        f"{bad} at [{row}, {column}] becomes code {at(made.codes, (row, column))}, which means "
        f"{value:.6g}",
    )
    others = np.arange(len(weight)) != row
    before = subject.quantize(weight)
    require(
        bool(np.array_equal(made.values[others], before.values[others])),
        f"{bad} in channel {row} changes other channels",
    )


@quantizer_property("not-finite-is-refused", _not_finite)
def not_finite_is_refused(subject: Subject, weight: Array, place: int, bad: float) -> None:
    """A NaN or an infinity in a weight is an error.

    Catches quantizers that turn a whole channel to NaN without a word, as almost all do.
    """
    spoilt, (row, column) = _spoilt(weight, place, bad)
    try:
        subject.quantize(spoilt)
    except Exception:  # a refusal, of whatever class
        return
    fail(f"{bad} at [{row}, {column}] is accepted")
