"""Products with quantized weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tilewright.testing.bounds.products import dequantized_matmul_error_bound
from tilewright.testing.formats import spacing, unit_roundoff
from tilewright.testing.quantizer import Quantized, Subject
from tilewright.testing.strategies import on_grid, weights
from tilewright.testing.strategies.activations import activations, cancelling, integer_activations
from tilewright.testing.strategies.shapes import matrix_shapes
from tilewright.testing.suite.property import (
    Array,
    Case,
    Cases,
    at,
    only_integers,
    quantizer_property,
    require,
    require_each,
)

_NEEDS = ("matmul",)
_MOST_ROWS = 4


def _multiply(subject: Subject, x: Array, made: Quantized) -> Array:
    """The product as the quantizer computes it, in its own type."""
    assert subject.quantizer.matmul is not None
    with np.errstate(all="ignore"):
        y = np.asarray(subject.quantizer.matmul(x, *made.parts))
    shape = (len(x), len(made.codes))
    require(y.shape == shape, f"the product of {len(x)} rows has shape {list(y.shape)}")
    return y


def _product(subject: Subject, x: Array, weight: Array) -> Array:
    return _multiply(subject, x, subject.quantize(weight)).astype(np.float64)


@st.composite
def _draw_operands(draw: st.DrawFn, subject: Subject) -> tuple[Array, Array]:
    weight = draw(weights(scheme=subject.scheme, dtype=subject.dtype, ordinary=True))
    rows = draw(st.integers(1, _MOST_ROWS))
    x = draw(activations((rows, weight.shape[1]), dtype=subject.quantizer.activations))
    return x, weight


@st.composite
def _draw_integers(draw: st.DrawFn, subject: Subject) -> tuple[Array, Array]:
    shape = matrix_shapes(subject.scheme).filter(lambda s: s[1] > 1)
    weight, _, _ = draw(on_grid(shape, subject.scheme, exponents=(-6, 0), dtype=subject.dtype))
    rows = draw(st.integers(1, _MOST_ROWS))
    x = draw(integer_activations((rows, weight.shape[1]), dtype=subject.quantizer.activations))
    return x, weight


def _cancelling(subject: Subject) -> st.SearchStrategy[tuple[Any, ...]]:
    return cancelling(2, matrix_shapes(subject.scheme), dtype=subject.quantizer.activations)


_operands: Cases = _draw_operands
_integers: Cases = _draw_integers


def _either(subject: Subject) -> st.SearchStrategy[Case]:
    return _operands(subject) | _cancelling(subject)


@quantizer_property("matmul-error-bound", _either, needs=_NEEDS, share=0.5)
def matmul_bound(subject: Subject, x: Array, weight: Array) -> None:
    """A product is within `gamma(K) |x| |w|`, the rounding of the weights and of the result, of the
    exact product with what the codes mean.

    Catches sums in f16 (most of them: the bound allows weights that are rounded to the type of x),
    zero points that are left out, tiles of K that are added twice or never.
    """
    made = subject.quantize(weight.astype(subject.dtype))
    y = _multiply(subject, x, made)
    exact = x.astype(np.float64) @ made.values.T
    bound = dequantized_matmul_error_bound(x, made.steps, made.scale, y.dtype)
    error = np.abs(y.astype(np.float64) - exact)
    require_each(
        error <= bound,
        lambda i: (
            f"y{list(i)} = {at(y.astype(np.float64), i)}, exactly {at(exact, i)}: off by "
            f"{at(error, i)}, and {at(bound, i)} is allowed"
        ),
    )


@quantizer_property("matmul-of-integers", _integers, needs=_NEEDS, applies=only_integers, share=0.5)
def matmul_of_integers(subject: Subject, x: Array, weight: Array) -> None:
    """Where all sums are integers that f32 holds, the product is exact but for one rounding.

    Catches all that the error bound is too wide for: a single missing term, sums in f16, results
    that are rounded twice.
    """
    made, exact = _exact_product(subject, x, weight)
    y = _multiply(subject, x, made)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32).astype(y.dtype)
    require_each(y == rounded, lambda i: f"y{list(i)} = {float(y[i]):.9g}, exactly {at(exact, i)}")


def _exact_product(subject: Subject, x: Array, weight: Array) -> tuple[Quantized, Array]:
    """Parts with scales of powers of two, and the product, which f32 holds."""
    made = subject.quantize(weight)
    fraction, _ = np.frexp(made.scale)
    assume(bool(np.all(fraction == 0.5)))
    return made, x.astype(np.float64) @ made.values.T


@quantizer_property("matmul-one-hot", _operands, needs=_NEEDS, share=0.5)
def matmul_one_hot(subject: Subject, x: Array, weight: Array) -> None:
    """A product with a row of the unit matrix reads out a column of the dequantized weight.

    Catches wrong group or channel scales, swapped nibbles, columns out of order, by name of the
    weight that is wrong.
    """
    made = subject.quantize(weight)
    column = int(abs(float(x.flat[0])) * 64) % weight.shape[1]
    unit = np.zeros((1, weight.shape[1]), x.dtype)
    unit[0, column] = 1
    y = _multiply(subject, unit, made)
    exact = made.values[:, column]
    narrow = max(y.dtype, x.dtype, key=lambda d: float(spacing(np.ones(1), d)[0]))
    bound = spacing(exact, narrow) / 2 * (1 + 2.0**-10)
    error = np.abs(y[0].astype(np.float64) - exact)
    require_each(
        error <= bound,
        lambda i: f"weight [{i[0]}, {column}] reads as {float(y[0][i]):.9g}, not {at(exact, i)}",
    )


@quantizer_property("matmul-row-split", _operands, needs=_NEEDS, share=0.5)
def matmul_row_split(subject: Subject, x: Array, weight: Array) -> None:
    """Each row of activations alone gives the bits that it gives in a batch.

    Catches results that depend on the batch size: other kernels for one row, other orders of sums
    (a BLAS does that), a scale of activations for the whole batch.
    """
    made = subject.quantize(weight)
    whole = _multiply(subject, x, made).astype(np.float64)
    for row in range(len(x)):
        alone = _multiply(subject, x[row : row + 1].copy(), made).astype(np.float64)
        require_each(
            alone[0] == whole[row],
            lambda i, row=row, alone=alone: (
                f"y[{row}, {i[0]}] is {at(whole[row], i)}, and {at(alone[0], i)} alone"
            ),
        )


@quantizer_property("matmul-channel-split", _operands, needs=_NEEDS, share=0.5)
def matmul_channel_split(subject: Subject, x: Array, weight: Array) -> None:
    """Output channels alone give the bits that they give in their matrix.

    Catches tiles of N that write across their edge, and orders of sums that depend on N.
    """
    whole = _product(subject, x, weight)
    for row in {0, len(weight) - 1}:
        alone = _product(subject, x, weight[row : row + 1].copy())
        require_each(
            alone[:, 0] == whole[:, row],
            lambda i, row=row, alone=alone: (
                f"y[{i[0]}, {row}] is {at(whole[:, row], i)}, and {at(alone[:, 0], i)} alone"
            ),
        )


@quantizer_property("matmul-depth-split", _integers, needs=_NEEDS, applies=only_integers, share=0.5)
def matmul_depth_split(subject: Subject, x: Array, weight: Array) -> None:
    """The product is the sum of the products of the first and of the last inputs, where all of them
    are integers that f32 holds.

    Catches tiles of K that overlap or leave a gap, accumulators that are not cleared.
    """
    made, _ = _exact_product(subject, x, weight)
    whole = _multiply(subject, x, made).astype(np.float64)
    middle = weight.shape[1] // 2
    left, right = x.copy(), x.copy()
    left[:, middle:] = 0
    right[:, :middle] = 0
    first, last = (_multiply(subject, part, made).astype(np.float64) for part in (left, right))
    slack = sum(spacing(part, x.dtype) / 2 for part in (first, last, whole))
    exact = np.abs(x.astype(np.float64)) @ np.abs(made.values).T < made.scale.min() / unit_roundoff(
        x.dtype
    )
    difference = np.abs(first + last - whole)
    require_each(
        difference <= np.where(exact, 0, slack),
        lambda i: f"y{list(i)} is {at(whole, i)}, its parts {at(first, i)} and {at(last, i)}",
    )


@quantizer_property("matmul-padding", _integers, needs=_NEEDS, applies=only_integers, share=0.5)
def matmul_padding(subject: Subject, x: Array, weight: Array) -> None:
    """Zero channels and zero inputs that are added to a weight change nothing, and give zeros.

    Catches zero points that make padding count, ranges that padding changes, reads past the end.
    """
    extra = subject.scheme.group or 3
    padded = np.pad(weight, ((0, 2), (0, extra)))
    wide = np.pad(x, ((0, 0), (0, extra)), constant_values=2)
    _exact_product(subject, x, weight)
    before, after = _product(subject, x, weight), _product(subject, wide, padded)
    require_each(after[:, len(weight) :] == 0, lambda i: f"a channel of zeros gives {after[i]:.9g}")
    inner = after[:, : len(weight)]
    require_each(
        inner == before, lambda i: f"y{list(i)} is {at(before, i)}, and {at(inner, i)} padded"
    )


@quantizer_property("matmul-nan-stays", _operands, needs=_NEEDS, share=0.25)
def matmul_nan_stays(subject: Subject, x: Array, weight: Array) -> None:
    """A NaN in a row of activations makes its row NaN, and no other.

    Catches NaN that is quantized to a number, masks by multiplication, maxima that drop NaN.
    """
    made = subject.quantize(weight)
    spoilt = np.concatenate([x, x[:1]])
    spoilt[-1, -1] = np.nan
    y = _multiply(subject, spoilt, made).astype(np.float64)
    require(bool(np.all(np.isnan(y[-1]))), f"the row of the NaN gives {y[-1].tolist()}")
    require(bool(np.all(np.isfinite(y[:-1]))), "another row is not finite")
