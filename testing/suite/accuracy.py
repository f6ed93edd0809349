"""How near the quantized weight is to the weight, and which codes are used for it."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tilewright.testing.bounds.weights import quantization_error_bound
from tilewright.testing.formats import code_range, code_steps, unit_roundoff
from tilewright.testing.quantizer import Quantized, Subject
from tilewright.testing.strategies import on_grid, ties, weights
from tilewright.testing.strategies.shapes import matrix_shapes
from tilewright.testing.strategies.weights import is_spanning
from tilewright.testing.suite.property import (
    Array,
    Case,
    at,
    only_integers,
    only_symmetric,
    quantizer_property,
    require,
    require_each,
)


def any_weight(subject: Subject) -> st.SearchStrategy[Case]:
    """A finite weight of any family."""
    return st.tuples(weights(scheme=subject.scheme, dtype=subject.dtype))


def ordinary_weight(subject: Subject) -> st.SearchStrategy[Case]:
    """A weight whose scales are normal numbers in f16."""
    return st.tuples(weights(scheme=subject.scheme, dtype=subject.dtype, ordinary=True))


def require_close(weight: Array, made: Quantized, bound: Array) -> None:
    """Fails where a weight is farther from its quantized value than the bound."""
    error = np.abs(weight.astype(np.float64) - made.values)
    wide_scale = made.wide(made.scale)

    def message(index: tuple[int, ...]) -> str:
        return (
            f"w{list(index)} = {at(weight, index)} has code {at(made.steps, index)} of scale "
            f"{at(wide_scale, index)}: off by {at(error, index)}, and {at(bound, index)} is allowed"
        )

    require_each(error <= bound, message)


@quantizer_property("error-bound", any_weight)
def error_bound(subject: Subject, weight: Array) -> None:
    """Every weight is within half a step of what its code and the stored scale mean.

    Catches scales that are rounded after the codes were made, division by 127.5 or 128, floors of
    scales, truncation, and clipping that nobody asked for.
    """
    made = subject.quantize(weight)
    require_close(weight, made, quantization_error_bound(made.scale, made.steps, subject.scheme))


@quantizer_property("error-bound-of-rounded-scales", ordinary_weight)
def error_bound_of_rounded_scales(subject: Subject, weight: Array) -> None:
    """Every weight is within half a step and what rounding the scale to its stored type costs.

    Catches truncation and wrong divisors in quantizers that round scales after the codes, as ONNX
    Runtime, gguf and TPU-MLIR do: the weaker form of `error-bound`.
    """
    made = subject.quantize(weight)
    after = unit_roundoff(made.parts[1].dtype)
    bound = quantization_error_bound(
        made.scale, made.steps, subject.scheme, scale_rounded_after=after
    )
    require_close(weight, made, bound)


@quantizer_property("code-range", any_weight)
def in_code_range(subject: Subject, weight: Array) -> None:
    """Every code is one of the scheme's.

    Catches missing clamps, codes of a wider type than the scheme says, NaN codes of 8-bit floats.
    """
    made = subject.quantize(weight)
    low, high = code_range(subject.scheme)
    require_each(
        subject.in_range(made.codes),
        lambda i: f"code {at(made.codes, i)} at {list(i)} is not in {low:g}..{high:g}",
    )


@quantizer_property("symmetric-codes", any_weight, applies=only_symmetric)
def symmetric_codes(subject: Subject, weight: Array) -> None:
    """The lowest code of two's complement (-128, -8) is never used.

    Catches quantizers whose range is not symmetric: kernels that negate codes, or multiply pairs of
    them in 16 bits, overflow on it.
    """
    made = subject.quantize(weight)
    require_each(
        np.abs(made.codes) <= subject.limit,
        lambda i: f"code {at(made.codes, i)} at {list(i)}",
    )


@quantizer_property("range-is-used", ordinary_weight)
def range_is_used(subject: Subject, weight: Array) -> None:
    """Scales are no larger than the range of the weights asks for.

    Catches scales of a power of two too much, ranges that count something else (padding, another
    channel), absmax used where there are zero points, bits that are given away.
    """
    made = subject.quantize(weight)
    ideal = ideal_scale(subject, weight)
    most = ideal * (1 + 2 * max(unit_roundoff(made.parts[1].dtype), 2.0**-11)) * (1 + 2.0**-7)
    require_each(
        (made.scale <= most) | (ideal == 0),
        lambda i: f"group {list(i)} has scale {at(made.scale, i)}; {at(ideal, i)} would do",
    )


def ideal_scale(subject: Subject, weight: Array) -> Array:
    """The smallest scale that clips nothing, f64[N, G]; 0 for groups of zeros.

    Ranges with zero points hold 0, so that it can be represented.
    """
    groups = subject.groups(weight.astype(np.float64))
    steps = code_steps(subject.scheme)
    if subject.scheme.zero_point:
        low = np.minimum(groups.min(axis=-1), 0)
        return (np.maximum(groups.max(axis=-1), 0) - low) / steps
    return np.abs(groups).max(axis=-1) / steps


@quantizer_property("zero-is-exact", any_weight)
def zero_is_exact(subject: Subject, weight: Array) -> None:
    """A weight of 0 stays 0, to the bit.

    Catches zero points that are rounded away from an integer, and ranges that do not hold 0: pruned
    weights and padding would leak into every sum.
    """
    weight = weight.copy()
    weight[:, :: max(1, weight.shape[1] // 3)] = 0
    made = subject.quantize(weight)
    require_each(
        (weight != 0) | (made.values == 0),
        lambda i: f"w{list(i)} = 0 has code {at(made.codes, i)}, which means {at(made.values, i)}",
    )


@quantizer_property("sign-symmetry", any_weight, applies=only_symmetric)
def sign_symmetry(subject: Subject, weight: Array) -> None:
    """The negative of a weight has the negative codes and the same scales.

    Catches floor(x + 0.5), ranges that are not symmetric, zero points that nobody asked for.
    """
    made, negative = subject.quantize(weight), subject.quantize(-weight)
    require_each(
        made.codes == -negative.codes,
        lambda i: (
            f"{at(weight, i)} has code {at(made.codes, i)} and its negative {at(negative.codes, i)}"
        ),
    )
    require_each(made.scale == negative.scale, lambda i: f"scales of group {list(i)} differ")


def _scaled_case(subject: Subject) -> st.SearchStrategy[Case]:
    return st.tuples(
        weights(scheme=subject.scheme, dtype=subject.dtype, ordinary=True),
        st.sampled_from([1, -1, 2, -2, 3]),
    )


@quantizer_property("power-of-two-scaling", _scaled_case)
def power_of_two_scaling(subject: Subject, weight: Array, exponent: int) -> None:
    """A weight times a power of two has the same codes, and scales times that power.

    Catches absolute constants in the scale (an epsilon that is added or a floor), division in f16,
    and search over a fixed grid of scales.
    """
    factor = weight.dtype.type(2.0**exponent)
    assume(bool(np.all((weight * factor) / factor == weight)))
    made, scaled = subject.quantize(weight), subject.quantize(weight * factor)
    require_each(
        made.codes == scaled.codes,
        lambda i: (
            f"w{list(i)} = {at(weight, i)} has code {at(made.codes, i)}, times 2^{exponent} "
            f"{at(scaled.codes, i)}"
        ),
    )
    nothing = ideal_scale(subject, weight) == 0  # has a scale of its own
    require_each(
        (made.scale * 2.0**exponent == scaled.scale) | nothing,
        lambda i: f"scale {at(made.scale, i)} times 2^{exponent} becomes {at(scaled.scale, i)}",
    )


def _small_case(subject: Subject) -> st.SearchStrategy[Case]:
    def small(weight: Array) -> Array:
        return (weight.astype(np.float64) * 2.0**-15).astype(np.float32).astype(subject.dtype)

    drawn = weights(scheme=subject.scheme, dtype=subject.dtype, ordinary=True)
    return st.tuples(drawn.map(small))


@quantizer_property("small-weights", _small_case)
def small_weights(subject: Subject, weight: Array) -> None:
    """Weights around 2e-4 keep the precision that weights around 1 have.

    Catches f16 scales that are subnormal and lose their bits (10 % of the codes of some published
    quantizers are wrong there), and fixed floors such as 1e-5.
    """
    made = subject.quantize(weight)
    steps = np.abs(made.steps)
    bound = quantization_error_bound(
        ideal_scale(subject, weight) * (1 + 2.0**-6),
        steps,
        subject.scheme,
        scale_rounded_after=2e-3,
    )
    require_close(weight, made, bound)


_FINE_ENOUGH = 2.0**-11
"""Rounding to this is a tenth of a step of 255 or less: codes stay."""


@quantizer_property("idempotence", any_weight)
def idempotence(subject: Subject, weight: Array) -> None:
    """Quantizing what was quantized changes nothing, where a group's codes span the range.

    Catches asymmetric ranges and wrong divisors, with which weights drift each time a model is
    saved and read. (A group whose codes stop short of the end, because its scale was rounded up,
    has a smaller range the second time, and is not compared.)
    """
    made = subject.quantize(weight)
    with np.errstate(over="ignore"):
        given = made.values.astype(np.float32).astype(subject.dtype)
    assume(bool(np.all(np.isfinite(given.astype(np.float32)))))
    again = subject.quantize(given)
    kept = np.all(subject.groups(given.astype(np.float64) == made.values), axis=-1)
    spanning = is_spanning(subject.groups(made.codes), subject.scheme)
    unit = unit_roundoff(subject.dtype)
    if unit > _FINE_ENOUGH:
        spanning &= kept
    # Values that the type of weights rounds come back so near.
    slack = np.where(made.wide(kept), 0.0, 4 * unit * np.abs(made.values))
    same = (np.abs(made.values - again.values) <= slack) | ~made.wide(spanning)
    require_each(
        same,
        lambda i: f"{at(made.values, i)} at {list(i)} becomes {at(again.values, i)}",
    )


def _grid(subject: Subject) -> st.SearchStrategy[Case]:
    shape = matrix_shapes(subject.scheme).filter(lambda s: s[1] > 1)
    return on_grid(shape, subject.scheme, dtype=subject.dtype)


@quantizer_property("exact-on-the-grid", _grid)
def exact_on_the_grid(subject: Subject, weight: Array, codes: Array, zero: Array) -> None:
    """A weight that codes hold exactly, with a scale of a power of two, gets these codes.

    Catches division by 127.5 or 128, multiplication with a rounded reciprocal, zero points that are
    off by one, scales that are rounded up although they are exact.
    """
    made = subject.quantize(weight)
    require_close(weight, made, np.zeros(weight.shape))
    steps = codes - made.wide(zero)
    require_each(
        (made.steps == steps) | (steps == 0),
        lambda i: f"w{list(i)} = {at(weight, i)}: {at(made.steps, i)} steps, not {at(steps, i)}",
    )


@quantizer_property("monotone-codes", any_weight)
def monotone_codes(subject: Subject, weight: Array) -> None:
    """Of two weights of a group, the larger one never has the smaller code.

    Catches codes that wrap around instead of being clamped, and float tricks that fail for some
    exponents.
    """
    made = subject.quantize(weight)
    groups, codes = subject.groups(weight.astype(np.float64)), subject.groups(made.codes)
    order = np.argsort(groups, axis=-1, kind="stable")
    rising = np.diff(np.take_along_axis(codes, order, axis=-1), axis=-1)
    ascending = np.diff(np.take_along_axis(groups, order, axis=-1), axis=-1)
    require_each(
        rising * np.sign(ascending) >= 0, lambda i: f"codes of group {list(i[:2])} go down"
    )
    require_each(
        (rising == 0) | (ascending > 0),
        lambda i: f"equal weights of group {list(i[:2])} have different codes",
    )


def _tie(subject: Subject) -> st.SearchStrategy[Case]:
    shape = matrix_shapes(subject.scheme).filter(lambda s: s[1] > 3)
    return st.tuples(ties(shape, subject.scheme, dtype=subject.dtype))


@quantizer_property("ties", _tie, applies=only_integers)
def tie_rule(subject: Subject, weight: Array) -> None:
    """A weight halfway between two codes gets one of them, by one rule for all weights: away from
    zero, or to even.

    Catches floor(x + 0.5) (up, whatever the sign), truncation, mixtures of rules between a
    vectorised loop and its remainder, reciprocals that miss ties.
    """
    made = subject.quantize(weight)
    exact = weight.astype(np.float64) / made.wide(made.scale)
    tie = (exact != np.trunc(exact)) & (exact * 2 == np.trunc(exact * 2))
    require_each(
        ~tie | (np.abs(made.steps - exact) == 0.5),
        lambda i: f"{at(exact, i)} steps have code {at(made.steps, i)}",
    )
    # At the ends of the range of a scheme with zero points, the clamp decides.
    low, high = code_range(subject.scheme)
    tie &= (made.codes > low) & (made.codes < high)
    away = np.abs(made.steps) > np.abs(exact)
    even = made.codes % 2 == 0
    relative_even = made.steps % 2 == 0
    consistent = [bool(np.all(rule | ~tie)) for rule in (away, even, relative_even)]
    require(any(consistent), f"ties go neither away from zero nor to even: {weight.tolist()}")
