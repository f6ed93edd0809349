"""Back from codes: dequantized, packed away in a file, and how good what comes back is."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tilewright.testing.bounds.noise import expected_snr_db, snr_db
from tilewright.testing.formats import spacing
from tilewright.testing.quantizer import Quantized, Subject
from tilewright.testing.strategies import GAUSSIAN, near_subnormal_scales, weights
from tilewright.testing.strategies.shapes import matrix_shapes
from tilewright.testing.suite.accuracy import any_weight, ordinary_weight
from tilewright.testing.suite.property import (
    Array,
    Case,
    at,
    only_integers,
    quantizer_property,
    require,
    require_each,
)
from tilewright.testing.suite.structure import require_equal


def _dequantize(subject: Subject, made: Quantized) -> Array:
    assert subject.quantizer.dequantize is not None
    with np.errstate(all="ignore"):
        values = np.asarray(subject.quantizer.dequantize(*made.parts))
    require(values.shape == made.codes.shape, f"dequantized, it has shape {list(values.shape)}")
    return values


@quantizer_property("dequantization", any_weight, needs=("dequantize",))
def dequantization(subject: Subject, weight: Array) -> None:
    """Dequantized weights are `(code - zero) * scale`, rounded once to their type.

    Catches zero points that are subtracted after scaling, products in f16 of codes that f16 rounds,
    scales that go through another type, double rounding.
    """
    made = subject.quantize(weight)
    values = _dequantize(subject, made)
    exact = made.values
    bound = spacing(exact, values.dtype) / 2 * (1 + 2.0**-12)
    if made.parts[1].dtype.itemsize <= 2 and values.dtype.itemsize >= 4:
        bound = np.zeros_like(exact)
    most = float(np.finfo(np.float16).max)
    fits = (np.abs(exact) <= most) | (values.dtype.name != "float16")
    error = np.abs(values.astype(np.float64) - exact)
    require_each(
        ~fits | (error <= bound),
        lambda i: (
            f"{at(made.steps, i)} steps of {at(made.wide(made.scale), i)} are {at(exact, i)}"
            f", not {at(values.astype(np.float64), i)}"
        ),
    )


@quantizer_property(
    "dequantization-is-linear", ordinary_weight, needs=("dequantize",), applies=only_integers
)
def dequantization_is_linear(subject: Subject, weight: Array) -> None:
    """Steps between dequantized weights are the steps between their codes, times the scale, but for
    rounding.

    Catches look-up tables with a wrong entry, codes that are read as another type.
    """
    made = subject.quantize(weight)
    values = _dequantize(subject, made)
    wide = values.astype(np.float64)
    groups, steps = subject.groups(wide), subject.groups(made.steps)
    expected = (steps - steps[..., :1]) * made.scale[..., None]
    unit = subject.groups(spacing(wide, values.dtype))
    error = np.abs(groups - groups[..., :1] - expected)
    require_each(
        error <= unit + unit[..., :1],
        lambda i: (
            f"weights 0 and {i[2]} of group {list(i[:2])} are {at(expected, i)} apart by "
            "their codes"
        ),
    )


def _any_scale(subject: Subject) -> st.SearchStrategy[Case]:
    """Ordinary weights, and such that scales may be stored in another type."""
    shape = matrix_shapes(subject.scheme)
    small = near_subnormal_scales(shape, subject.scheme, dtype=subject.dtype)
    return ordinary_weight(subject) | st.tuples(small)


@quantizer_property("serialization", _any_scale, needs=("serialize", "deserialize"))
def serialization(subject: Subject, weight: Array) -> None:
    """What is written and read again is the same, to the bit.

    Catches scales that are stored in another type, padding that comes back, bytes in another order.
    """
    made = subject.quantize(weight)
    assert subject.quantizer.serialize is not None
    assert subject.quantizer.deserialize is not None
    data = subject.quantizer.serialize(*made.parts)
    require_equal(made, subject.read(subject.quantizer.deserialize(data), weight.shape), "read")


@quantizer_property("serialization-is-reproducible", _any_scale, needs=("serialize",))
def serialization_is_reproducible(subject: Subject, weight: Array) -> None:
    """Equal weights are written as equal bytes.

    Catches dates, addresses, and memory that was never written in files.
    """
    assert subject.quantizer.serialize is not None
    once = subject.quantizer.serialize(*subject.quantize(weight).parts)
    again = subject.quantizer.serialize(*subject.quantize(weight.copy()).parts)
    require(once == again, "the bytes differ")


_SNR_ROWS = 192
_SNR_DEPTH = 256
_SNR_SLACK_DB = 0.6
"""Four standard deviations of the mean of 192 largest squares (0.09 dB), and scales that are stored
in bf16 (0.06 dB)."""


def _seeds(subject: Subject) -> st.SearchStrategy[Case]:
    del subject
    return st.tuples(st.integers(0, 2**32 - 1), st.integers(-6, 0))


@quantizer_property("expected-noise", _seeds, share=0.05)
def expected_noise(subject: Subject, seed: int, exponent: int) -> None:
    """The noise on Gaussian weights is no more than the closed formula says.

    Catches a bit that is not used, scales that are too large or too small on average, biased
    rounding: what is within all bounds and still costs decibels.
    """
    group = subject.scheme.group
    depth = _SNR_DEPTH if not group else group * max(1, _SNR_DEPTH // group)
    rng = np.random.default_rng(seed)
    weight = np.ldexp(rng.standard_normal((_SNR_ROWS, depth)), exponent)
    weight = weight.astype(np.float32).astype(subject.dtype)
    measured = snr_db(weight, subject.quantize(weight).values)
    expected = expected_snr_db(GAUSSIAN, subject.scheme, depth)
    require(
        measured >= expected - _SNR_SLACK_DB,
        f"Gaussian weights have {measured:.2f} dB, and {expected:.2f} dB are expected",
    )


def _clip_weight(subject: Subject) -> st.SearchStrategy[Case]:
    return st.tuples(
        weights(matrix_shapes(subject.scheme), subject.scheme, dtype=subject.dtype, ordinary=True)
    )


@quantizer_property("clip-search", _clip_weight, needs=("quantize_clipped",))
def clip_search(subject: Subject, weight: Array) -> None:
    """Scales that are searched for give no more squared error than those of the full range.

    Catches searches that do not try the full range, or measure another error than they lead to.
    """
    assert subject.quantizer.quantize_clipped is not None
    plain = subject.quantize(weight)
    clipped = subject.read(subject.quantizer.quantize_clipped(weight), weight.shape)
    exact = weight.astype(np.float64)
    before, after = (((made.values - exact) ** 2).sum(axis=1) for made in (plain, clipped))
    assume(bool(np.all(np.isfinite(before))))
    require_each(
        after <= before * (1 + 2.0**-20) + 2.0**-100,
        lambda i: f"squared error of channel {i[0]}: {at(before, i)}, and {at(after, i)} clipped",
    )
