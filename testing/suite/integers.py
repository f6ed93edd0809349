"""Products of int8 with int8, and how their sums become int8 again."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tilewright.testing.bounds.products import requantization_error, zero_point_bias
from tilewright.testing.quantizer import Subject
from tilewright.testing.strategies.scalars import draw_positions
from tilewright.testing.strategies.shapes import lengths
from tilewright.testing.suite.property import Array, Case, at, quantizer_property, require_each

_NEEDS = ("int_matmul",)
_EXTREME_DEPTHS = (1040, 1041, 4096, 33000)
"""Sums of 1041 products do not fit f32; these fit int32, but neither f32 nor int24."""


@st.composite
def _draw_codes(draw: st.DrawFn, rows: int, depth: int) -> Array:
    return (draw_positions(draw, (rows, depth), 255).astype(np.int64) - 127).astype(np.int8)


@st.composite
def _draw_integers(draw: st.DrawFn, subject: Subject) -> Case:
    del subject
    depth = draw(lengths(70))
    x = draw(_draw_codes(draw(st.integers(1, 4)), depth))
    codes = draw(_draw_codes(draw(st.integers(1, 4)), depth))
    bias = np.array([draw(st.integers(-(2**20), 2**20)) for _ in codes], np.int32)
    return x, codes, bias


def _multiply(subject: Subject, x: Array, codes: Array, bias: Array) -> Array:
    assert subject.quantizer.int_matmul is not None
    return np.asarray(subject.quantizer.int_matmul(x, codes, bias)).astype(np.int64)


def _require_exact(made: Array, x: Array, codes: Array, bias: Array) -> None:
    exact = x.astype(np.int64) @ codes.astype(np.int64).T + bias
    require_each(made == exact, lambda i: f"sum {list(i)} is {at(made, i)}, exactly {at(exact, i)}")


@quantizer_property("int8-sums", _draw_integers, needs=_NEEDS)
def int8_sums(subject: Subject, x: Array, codes: Array, bias: Array) -> None:
    """Sums of products of int8 codes, and their bias, are exact.

    Catches sums in f16, pairs of products that saturate in 16 bits (pmaddubsw), biases that are
    scaled twice.
    """
    _require_exact(_multiply(subject, x, codes, bias), x, codes, bias)


def _extreme(subject: Subject) -> st.SearchStrategy[Case]:
    del subject
    ends = st.sampled_from([127, -127])
    return st.tuples(st.sampled_from(_EXTREME_DEPTHS), ends, ends, st.integers(0, 1039))


@quantizer_property("int8-sums-of-long-rows", _extreme, needs=_NEEDS, share=0.25)
def int8_sums_of_long_rows(
    subject: Subject, depth: int, left: int, right: int, odd_one: int
) -> None:
    """Sums of thousands of largest products are exact: nothing overflows, no bit is lost.

    Catches sums in f32 (exact up to a depth of 1040 only), and accumulators of 24 bits.
    """
    x, codes = np.full((1, depth), left, np.int8), np.full((1, depth), right, np.int8)
    codes[0, odd_one] = 1
    bias = np.zeros(1, np.int32)
    _require_exact(_multiply(subject, x, codes, bias), x, codes, bias)


@st.composite
def _draw_zero(draw: st.DrawFn, subject: Subject) -> Case:
    x, codes, _ = draw(_draw_integers(subject))
    return x, codes, draw(st.integers(-128, 127))


@quantizer_property("zero-point-as-bias", _draw_zero, needs=_NEEDS)
def zero_point_as_bias(subject: Subject, x: Array, codes: Array, zero: int) -> None:
    """A zero point of the activations, folded into the bias as `-zero * sum of codes`, gives what
    subtracting it from each activation gives.

    Catches biases that are rounded to floats, and sums of codes over padding.
    """
    made = _multiply(subject, x, codes, zero_point_bias(codes, zero).astype(np.int32))
    exact = (x.astype(np.int64) - zero) @ codes.astype(np.int64).T
    require_each(made == exact, lambda i: f"sum {list(i)} is {at(made, i)}, not {at(exact, i)}")


@st.composite
def _draw_sums(draw: st.DrawFn, subject: Subject) -> Case:
    """Sums of any magnitude and a factor that brings the larger ones to the ends of int8, or next
    to a tie."""
    del subject
    bits = draw(st.integers(3, 31))
    raw = np.frombuffer(draw(st.binary(min_size=64, max_size=64)), ">i4").astype(np.int64)
    sums = (raw >> (31 - bits)).astype(np.int32)
    factor = 2.0 ** (draw(st.integers(5, 9)) - bits)
    factor *= draw(st.sampled_from([1.0, 1.25, 0.7, 1 / 3, 1 - 2.0**-20, 1.9999]))
    return sums, min(factor, 0.999)


def _requantize(subject: Subject, sums: Array, factor: float) -> Array:
    assert subject.quantizer.requantize is not None
    return np.asarray(subject.quantizer.requantize(sums, factor))


@quantizer_property("requantization", _draw_sums, needs=("requantize",))
def requantization(subject: Subject, sums: Array, factor: float) -> None:
    """Multiplier and shift give what multiplying with the real factor, rounding and saturating
    gives, within one step.

    Catches shifts that are off by one, products that overflow 32 bits, results that wrap around
    instead of saturating, truncation.
    """
    made = _requantize(subject, sums, factor)
    error = requantization_error(made, sums, factor)
    require_each(
        error < 1,
        lambda i: f"{at(sums, i)} * {factor:.9g} = {float(sums[i]) * factor:.9g} is {at(made, i)}",
    )


@quantizer_property("requantization-to-nearest", _draw_sums, needs=("requantize",))
def requantization_to_nearest(subject: Subject, sums: Array, factor: float) -> None:
    """Requantized sums are the nearest integers.

    Catches multipliers of too few bits, truncation, double rounding (a rounding multiplication and
    then a rounding shift, as the first version of gemmlowp has).
    """
    made = _requantize(subject, sums, factor)
    error = requantization_error(made, sums, factor)
    require_each(
        error <= 0.5 + 2.0**-20,
        lambda i: f"{at(sums, i)} * {factor:.9g} = {float(sums[i]) * factor:.9g} is {at(made, i)}",
    )


@quantizer_property("requantization-is-monotone", _draw_sums, needs=("requantize",))
def requantization_is_monotone(subject: Subject, sums: Array, factor: float) -> None:
    """A larger sum never has a smaller result, from -2^31 to 2^31 - 1.

    Catches wrapping, and rounding that depends on the sign and leaves a gap around zero.
    """
    ends = np.array([-(2**31), 2**31 - 1, 0, -1, 1], np.int32)
    ordered = np.sort(np.concatenate([sums, ends]))
    made = _requantize(subject, ordered, factor).astype(np.int64)
    require_each(
        np.diff(made) >= 0,
        lambda i: f"{ordered[i[0]]} is {made[i[0]]}, and {ordered[i[0] + 1]} is {made[i[0] + 1]}",
    )
