"""Kernels of element-by-element ops: activations, broadcasts, constants, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import (
    FLOATS,
    Array,
    Build,
    Pitched,
    assert_same_bits,
    check,
    lowered,
    normal,
)
from xdsl.ir import Operation

from tilewright.backends.reference import typed
from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, I8, I32, ElementType

UNARY: dict[str, Callable[..., Operation]] = {
    "silu": tpu.SiLUOp,
    "gelu": tpu.GELUOp,
    "gelu_tanh": lambda x: tpu.GELUOp(x, "tanh"),
    "tanh": tpu.TanhOp,
    "sigmoid": tpu.SigmoidOp,
    "exp": tpu.ExpOp,
    "sqrt": tpu.SqrtOp,
    "rsqrt": tpu.RsqrtOp,
    "reciprocal": tpu.ReciprocalOp,
    "neg": tpu.NegOp,
    "abs": tpu.AbsOp,
    "erf": tpu.ErfOp,
    "relu": tpu.ReluOp,
    "add_const": lambda x: tpu.AddConstOp(x, -0.3125),
    "mul_const": lambda x: tpu.MulConstOp(x, 1.6875),
}
EXACT_UNARY = ("neg", "abs", "relu", "add_const", "mul_const")
"""One operation that IEEE 754 rounds correctly, in f32, and one rounding."""
BINARY: dict[str, Callable[..., Operation]] = {
    "add": tpu.AddOp,
    "sub": tpu.SubOp,
    "mul": tpu.MulOp,
    "div": tpu.DivOp,
    "max": tpu.MaxOp,
    "min": tpu.MinOp,
}
EXACT_BINARY = ("add", "sub", "mul", "max", "min")

SHAPES = [(1, 1), (1, 4096), (3, 7), (63, 65), (65, 33), (200, 1), (2, 3, 5, 11), (77,)]

elements = pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)


def special(element: ElementType) -> Array:
    """Numbers of all sizes, with zeros of both signs, subnormals, infinities and NaN."""
    magnitudes = np.logspace(-45, 38, 400)
    few = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 65504.0, 3.3e38, 6e-8]
    with np.errstate(over="ignore", under="ignore"):
        numbers = np.concatenate([magnitudes, -magnitudes, np.linspace(-20, 20, 300), few])
        return numbers.astype(element.dtype).reshape(1, -1)


@elements
@pytest.mark.parametrize("name", UNARY)
def test_unary_functions(name: str, element: ElementType):
    exact = name in EXACT_UNARY
    check(UNARY[name], special(element), exact=exact)
    for number, shape in enumerate(SHAPES):
        check(UNARY[name], normal(shape, element, number, 3.0), exact=exact)


@elements
@pytest.mark.parametrize("build", [tpu.AddConstOp, tpu.MulConstOp])
def test_constants_are_f32_in_every_mode(build: Build, element: ElementType):
    x = special(element)
    item = lowered(lambda v: build(v, 1.7), x)
    assert_same_bits(item.run(), typed.evaluate(item.op, [x])[0])


@elements
@pytest.mark.parametrize("name", ["neg", "silu", "gelu"])
@pytest.mark.parametrize("shape", [(1, 5), (130, 33), (3, 4, 70), (2, 40000)])
def test_unary_functions_of_column_ranges(name: str, shape: tuple[int, ...], element: ElementType):
    check(UNARY[name], Pitched(normal(shape, element), 3, 70), exact=name in EXACT_UNARY)


@elements
@pytest.mark.parametrize("name", BINARY)
def test_all_broadcasts(name: str, element: ElementType):
    """Same shape; suffixes of one and more axes, leading ones; one number; a column."""
    a = normal((6, 4, 33), element, 1, 3.0)
    for shape in [
        (6, 4, 33),
        (4, 33),
        (33,),
        (1, 33),
        (1, 1, 33),
        (1, 4, 33),
        (),
        (1,),
        (1, 1, 1),
        (6, 4, 1),
    ]:
        b = normal(shape, element, 2, 3.0)
        check(BINARY[name], a, b, exact=name in EXACT_BINARY)


BROADCASTS = [
    ((1, 4096), (4096,)),
    ((130, 70), (70,)),
    ((300, 4100), (4100,)),
    ((300, 4100), (1,)),
    ((130, 70), (130, 1)),
    ((300, 9000), (300, 1)),
    ((1, 7), (1, 1)),
    ((7, 1), (7, 1)),
    ((7, 1), (1,)),
    ((5, 130, 70), (130, 70)),
    ((3, 2, 40, 33), (2, 40, 33)),
    ((3, 2, 40, 33), (1, 40, 33)),
    ((2, 100001), (100001,)),
    ((64, 2), (2,)),
]


@elements
@pytest.mark.parametrize(("shape", "other"), BROADCASTS)
def test_broadcasts_of_odd_sizes(
    shape: tuple[int, ...], other: tuple[int, ...], element: ElementType
):
    check(tpu.MaxOp, normal(shape, element, 1), normal(other, element, 2), exact=True)
    check(tpu.DivOp, normal(shape, element, 1), normal(other, element, 2))


@pytest.mark.parametrize(("shape", "other"), BROADCASTS)
@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_broadcasts_of_column_ranges(shape: tuple[int, ...], other: tuple[int, ...], which: str):
    a: Any = normal(shape, F16, 1)
    b: Any = normal(other, F16, 2)
    if which != "b":
        a = Pitched(a, 5, 6)
    if which != "a":
        b = Pitched(b, 1, 9)
    check(tpu.MinOp, a, b, exact=True)


def test_special_values_of_two_operands():
    for element in FLOATS:
        a = special(element)
        b = np.random.default_rng(1).permutation(a[0])[None, :]
        for name, build in BINARY.items():
            check(build, a, b, exact=name in EXACT_BINARY)


@pytest.mark.parametrize("source", FLOATS, ids=lambda e: e.name)
@pytest.mark.parametrize("target", FLOATS, ids=lambda e: e.name)
def test_casts(source: ElementType, target: ElementType):
    def build(x: Any) -> Operation:
        return tpu.CastOp(x, target)

    check(build, special(source), exact=True)
    for shape in SHAPES:
        check(build, normal(shape, source), exact=True)
    check(build, Pitched(normal((70, 33), source), 1, 2), exact=True)


@pytest.mark.parametrize("element", [I8, I32], ids=lambda e: e.name)
def test_casts_of_integers_to_themselves_are_copies(element: ElementType):
    codes = np.arange(-100, 100).reshape(5, 40).astype(element.dtype)
    check(lambda x: tpu.CastOp(x, element), codes, exact=True)
    check(lambda x: tpu.CastOp(x, element), Pitched(codes, 3, 4), exact=True)


@st.composite
def broadcast_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 70), min_size=1, max_size=3)))
    kind = draw(st.sampled_from(["same", "suffix", "ones", "column"]))
    if kind == "same":
        return shape, shape
    if kind == "column":
        return shape, (*shape[:-1], 1)
    cut = draw(st.integers(0, len(shape)))
    suffix = shape[cut:]
    return shape, suffix if kind == "suffix" else ((1,) * cut + suffix)


@given(broadcast_shapes(), st.sampled_from(FLOATS), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_broadcast(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    element: ElementType,
    pitched_a: bool,
    pitched_b: bool,
):
    a: Any = normal(shapes[0], element, 1)
    b: Any = normal(shapes[1], element, 2)
    a = Pitched(a, 2, 3) if pitched_a else a
    b = Pitched(b, 4, 1) if pitched_b and b.ndim else b
    check(tpu.MaxOp, a, b, exact=True)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=4), st.sampled_from(FLOATS))
@settings(deadline=None, max_examples=40)
def test_any_shape(shape: list[int], element: ElementType):
    sizes = tuple(min(size, 30) for size in shape) if len(shape) > 2 else tuple(shape)
    check(tpu.NegOp, normal(sizes, element), exact=True)


def test_one_token_fills_all_lanes():
    """4096 numbers are 64 rows of 64 to the vector unit, whatever their shape."""
    kernel = lowered(tpu.NegOp, normal((1, 4096), BF16)).kernel
    assert kernel.bdc["rows"].tolist() == [64]


def test_one_number_meets_a_prime_number_of_rows():
    """The last rows have a column of their own; they do not make all tiles one row high."""
    item = check(tpu.AddOp, normal((100_003,), F16), normal((1,), F16), exact=True)
    assert len(item.kernel.gdma) < 60
    item = check(tpu.AddOp, Pitched(normal((131, 70), F16), 1, 3), normal((), F16), exact=True)
    assert len(item.kernel.gdma) < 10
