"""Weights `[N, K]` made to break quantizers, each family for a fault of its own.

All families draw two bytes an element, whatever the distribution, so that matrices of hundreds of
elements cost no more than a few draws and shrink element by element to 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.testing.formats import (
    FLOAT_CODES,
    code_limit,
    code_range,
    code_spacing,
    code_steps,
    table,
)
from tilewright.testing.strategies.scalars import draw_positions
from tilewright.testing.strategies.shapes import Shape, ShapeLike, as_strategy, matrix_shapes
from tilewright.testing.strategies.tails import (
    GAUSSIAN,
    LAPLACE,
    STUDENT_T4,
    UNIFORM,
    Distribution,
    quantile_table,
)

Array = npt.NDArray[Any]

INT8 = Scheme(CodeFormat.I8)
SUBNORMAL_SCALE_ABSMAX = 127 * 2.0**-14
"""7.75e-3: the largest weight of a channel below which an int8 scale is subnormal in f16."""
ZERO_SCALE_ABSMAX = 127 * 2.0**-25
"""3.8e-6: below it, an int8 scale rounds to 0 in f16."""
LARGEST_F16 = 65504.0
_LEAST_EXPONENT, _MOST_EXPONENT = -2, 4
"""Largest weights of groups of ordinary weights are from 2^-3 to 2^4."""


@st.composite
def tailed(
    draw: st.DrawFn,
    shape: ShapeLike,
    distribution: Distribution | None = None,
    *,
    exponents: tuple[int, int] = (-6, 1),
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Matrices of a distribution (any of four, if none is given), channels times powers of two.

    Log-uniform scales between channels are what trained weights have.

        @given(tailed((4, 64), LAPLACE))
        def test_error(weight): ...
    """
    size = draw(as_strategy(shape))
    chosen = distribution or draw(st.sampled_from([UNIFORM, GAUSSIAN, LAPLACE, STUDENT_T4]))
    table = quantile_table(chosen)
    values = table[draw_positions(draw, size, len(table))]
    return _scaled(values, _exponents(draw, size, *exponents), dtype)


def _exponents(draw: st.DrawFn, shape: Shape, low: int, high: int) -> Array:
    """An exponent a channel, `[N, 1]`, that shrinks to 0 or to what is nearest."""
    simplest = min(max(low, 0), high)
    order = np.array(sorted(range(low, high + 1), key=lambda e: (abs(e - simplest), e)))
    rows = order[draw_positions(draw, (shape[0],), len(order))]
    return rows.reshape(-1, *[1] * (len(shape) - 1))


def _scaled(values: Array, exponents: Array, dtype: npt.DTypeLike) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        made = np.ldexp(values, exponents).astype(np.float32).astype(dtype)
    made[~np.isfinite(made.astype(np.float32))] = 1
    return made


def log_uniform(
    shape: ShapeLike,
    *,
    exponents: tuple[int, int] = (-30, 12),
    dtype: npt.DTypeLike = np.float32,
) -> st.SearchStrategy[Array]:
    """Uniform values, channels of magnitudes from 2^-30 to 2^12: scales of every size.

    Finds fixed floors of scales (1e-5), and results of one channel that depend on another.
    """
    return tailed(shape, UNIFORM, exponents=exponents, dtype=dtype)


@st.composite
def grid_steps(draw: st.DrawFn, shape: ShapeLike, scheme: Scheme = INT8) -> tuple[Array, Array]:
    """Codes `[N, K]` (values) and zero points `[N, G]` of the scheme, that span its whole range in
    every group of two or more: a quantizer that is right finds just these.

    Zero points lie within the range, so that the range of the weights holds 0.
    """
    rows, depth = draw(as_strategy(shape))
    low, high = code_range(scheme)
    symmetric = not scheme.zero_point
    if symmetric:
        low = -high
    if scheme.format.is_float:
        values = table(FLOAT_CODES[scheme.format], allow_nan=False, allow_infinity=False)
    else:
        values = np.array(sorted(range(int(low), int(high) + 1), key=lambda q: (abs(q), -q)))
    codes = values.astype(np.float64)[draw_positions(draw, (rows, depth), len(values))]
    groups = codes.reshape(rows, scheme.groups(depth), -1)
    first = draw(st.integers(0, 1)) if symmetric else 0
    groups[..., 0] = high if not first else low
    if not symmetric and groups.shape[-1] > 1:
        groups[..., 1] = low
    zero = np.zeros(groups.shape[:2])
    if not symmetric:
        zero = low + draw_positions(draw, groups.shape[:2], int(high - low) + 1).astype(np.float64)
        if groups.shape[-1] == 1:
            zero[:] = low
    return groups.reshape(rows, depth), zero


@st.composite
def on_grid(
    draw: st.DrawFn,
    shape: ShapeLike,
    scheme: Scheme = INT8,
    *,
    exponents: tuple[int, int] = (-9, 3),
    dtype: npt.DTypeLike = np.float32,
) -> tuple[Array, Array, Array]:
    """`(weight, codes, zero)`: weights that codes and a scale of a power of two hold exactly.

    Quantizing them must lose nothing. Finds wrong divisors (127.5, 128), off-by-one ranges, scales
    that are rounded in the wrong direction.
    """
    size = draw(as_strategy(shape))
    codes, zero = draw(grid_steps(size, scheme))
    wide_zero = np.repeat(zero, size[1] // zero.shape[1], axis=1)
    weight = _scaled(codes - wide_zero, _exponents(draw, size, *exponents), dtype)
    return weight, codes, zero


@st.composite
def ties(
    draw: st.DrawFn,
    shape: ShapeLike,
    scheme: Scheme = INT8,
    *,
    exponents: tuple[int, int] = (-9, 3),
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Weights `(k + 1/2) * 2^e` where 2^e is the scale: halfway between two codes, to the bit.

    The first element of a group (and the second, with zero points) is at the end of the range, so
    that the scale is the power of two; half of the others are ties, half of them on the grid.
    Finds rounding to even where away is promised, and division by a reciprocal.
    """
    size = draw(as_strategy(shape))
    codes, zero = draw(grid_steps(size, scheme))
    groups = codes.reshape(size[0], zero.shape[1], -1)
    ends = 2 if scheme.zero_point else 1
    inner = groups[..., ends:]
    raw = draw(st.binary(min_size=inner.size, max_size=inner.size))
    half = code_spacing(inner * (1 - 2.0**-20), scheme) / 2
    inside = np.where((inner > zero[..., None]) | (inner == code_range(scheme)[1]), -half, half)
    groups[..., ends:] += np.where(
        (np.frombuffer(raw, np.uint8).reshape(inner.shape) & 1) == 0, inside, 0.0
    )
    steps = (groups - zero[..., None]).reshape(size)
    return _scaled(steps, _exponents(draw, size, *exponents), dtype)


@st.composite
def outliers(
    draw: st.DrawFn,
    shape: ShapeLike,
    *,
    kind: str | None = None,
    factor: float = 32.0,
    exponents: tuple[int, int] = (-6, 1),
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Gaussian weights with values `factor` times as large: `kind` is `"single"` (one of all),
    `"column"` (an input), `"channel"` (an output), or any of them.

    Finds scales that are shared by what should not share them, and quantizers that clip.
    """
    weight = draw(tailed(shape, GAUSSIAN, exponents=exponents, dtype=np.float32))
    chosen = kind or draw(st.sampled_from(["single", "column", "channel"]))
    row = draw(st.integers(0, weight.shape[0] - 1))
    column = draw(st.integers(0, weight.shape[1] - 1))
    places = {"single": (row, column), "column": (slice(None), column), "channel": (row,)}[chosen]
    weight[places] *= np.float32(factor)
    return weight.astype(dtype)


@st.composite
def near_subnormal_scales(
    draw: st.DrawFn,
    shape: ShapeLike,
    scheme: Scheme = INT8,
    *,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Weights whose largest is about where f16 scales become subnormal or 0 (for int8: 7.75e-3 and
    3.8e-6), or somewhere between.

    Real checkpoints have such channels. Finds scales that lose their bits, and 0 / 0.
    """
    size = draw(as_strategy(shape))
    weight = draw(tailed(size, UNIFORM, exponents=(0, 0)))
    steps = code_steps(scheme)
    tops = 2.0 ** np.array([-14, -15, -20, -24, -25, -26])
    tops = tops[draw_positions(draw, (size[0],), len(tops))]
    nudge = draw(st.sampled_from([1.0, 1 - 2.0**-9, 1 + 2.0**-9, 1.3, 0.7]))
    largest = tops[:, None] * steps * nudge
    weight = weight * np.float32(1 / max(1.0, float(np.max(np.abs(weight)))))
    weight[:, 0] = 1
    return (weight * largest).astype(np.float32).astype(dtype)


@st.composite
def largest_f16(draw: st.DrawFn, shape: ShapeLike, *, dtype: npt.DTypeLike = np.float32) -> Array:
    """Weights up to 65504, the largest f16, which is in every channel, with either sign.

    Finds ranges that overflow (`max - min` of f16 is infinite) and codes that wrap.
    """
    weight = draw(tailed(shape, UNIFORM, exponents=(0, 0))).astype(np.float64) * LARGEST_F16
    columns = weight.shape[1]
    place = draw(st.integers(0, columns - 1))
    weight[:, place] = draw(st.sampled_from([1, -1])) * LARGEST_F16
    if columns > 1 and draw(st.booleans()):
        weight[:, (place + 1) % columns] = -weight[:, place]
    return weight.astype(np.float16).astype(dtype)


@st.composite
def one_sided(
    draw: st.DrawFn,
    shape: ShapeLike,
    *,
    offset: float = 0.0,
    exponents: tuple[int, int] = (-6, 1),
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Channels that are all positive or all negative, at least `offset` away from zero.

    Zero points gain a bit on them; a rule that does not widen the range to 0 clips on `offset > 0`.
    """
    size = draw(as_strategy(shape))
    values = np.abs(draw(tailed(size, GAUSSIAN, exponents=(0, 0)))) + offset
    values = values * (1 - 2 * draw_positions(draw, (size[0], 1), 2).astype(np.float64))
    return _scaled(values, _exponents(draw, size, *exponents), dtype)


@st.composite
def constant_channels(
    draw: st.DrawFn,
    shape: ShapeLike,
    *,
    exponents: tuple[int, int] = (-6, 3),
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Channels of one value each, which is not 0. The range `max - min` of each is 0."""
    size = draw(as_strategy(shape))
    values = draw(tailed((size[0], 1), UNIFORM, exponents=(0, 0)))
    values = np.where(values == 0, np.float32(1), values)
    made = _scaled(np.repeat(values, size[1], axis=1), _exponents(draw, size, *exponents), dtype)
    return np.where(made == 0, np.asarray(1, made.dtype), made)


@st.composite
def with_zero_channels(
    draw: st.DrawFn,
    shape: ShapeLike,
    scheme: Scheme = INT8,
    *,
    dtype: npt.DTypeLike = np.float32,
) -> Array:
    """Weights of which at least one channel, or one group, is all zeros (of either sign): pruned
    ones, and padding.
    """
    weight = draw(tailed(shape, dtype=dtype))
    groups = weight.reshape(weight.shape[0], scheme.groups(weight.shape[1]), -1)
    row = draw(st.integers(0, groups.shape[0] - 1))
    group = draw(st.integers(0, groups.shape[1] - 1))
    groups[row, slice(None) if draw(st.booleans()) else group] = draw(st.sampled_from([0.0, -0.0]))
    return weight


def weights(
    shape: ShapeLike | None = None,
    scheme: Scheme = INT8,
    *,
    dtype: npt.DTypeLike = np.float32,
    ordinary: bool = False,
) -> st.SearchStrategy[Array]:
    """Finite weights of any family; `shape` is one that fits the scheme, if none is given.

    With `ordinary`, only those whose scales are normal in f16: for properties that change of the
    scales' type may break (one subnormal scale turns the scales of a tensor to f32).

        @given(weights(scheme=parse_scheme("w4a16-g32")))
        def test_error(weight): ...
    """
    size = matrix_shapes(scheme) if shape is None else shape
    families: list[st.SearchStrategy[Array]] = [
        tailed(size, dtype=dtype, exponents=(0, 0)),
        tailed(size, dtype=dtype),
        ties(size, scheme, dtype=dtype),
        outliers(size, dtype=dtype),
        one_sided(size, dtype=dtype),
        constant_channels(size, dtype=dtype),
        on_grid(size, scheme, dtype=dtype).map(lambda made: made[0]),
    ]
    if not ordinary:
        families += [
            log_uniform(size, dtype=dtype),
            near_subnormal_scales(size, scheme, dtype=dtype),
            with_zero_channels(size, scheme, dtype=dtype),
            largest_f16(size, dtype=dtype),
        ]
    drawn = st.one_of(families)
    return _moderate(drawn, scheme) if ordinary else drawn


@st.composite
def _moderate(draw: st.DrawFn, drawn: st.SearchStrategy[Array], scheme: Scheme) -> Array:
    """`moderate` weights. (Of a strategy that is mapped, Hypothesis shows the call.)"""
    return moderate(draw(drawn), scheme)


def moderate(weight: Array, scheme: Scheme) -> Array:
    """Groups times powers of two, so that their largest weights are between 1/8 and 16 and their
    scales (and those of weights 8 times smaller) normal numbers in f16. (Scales of f8e5m2 ask for
    weights of at least 7.)"""
    groups = weight.astype(np.float64).reshape(len(weight), scheme.groups(weight.shape[1]), -1)
    _, exponent = np.frexp(np.abs(groups).max(axis=-1, keepdims=True))
    least = max(_LEAST_EXPONENT, int(np.ceil(np.log2(code_steps(scheme)))) - 9)
    most = max(_MOST_EXPONENT, least + 1)
    moved = np.ldexp(groups, np.clip(exponent, least, most) - exponent)
    with np.errstate(under="ignore"):
        return moved.reshape(weight.shape).astype(weight.dtype)


def is_spanning(codes: Array, scheme: Scheme) -> Array:
    """Of codes `[..., g]`, which groups reach the end of the range, with zero points both ends."""
    low, high = code_range(scheme)
    if scheme.zero_point:
        return (codes.min(axis=-1) == low) & (codes.max(axis=-1) == high)
    return np.abs(codes).max(axis=-1) == code_limit(scheme)
