"""Kernels that only move data: slices, concatenations, permutations."""

from __future__ import annotations

from itertools import permutations
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import Array, Build, Pitched, assert_same_bits, check
from xdsl.ir import Operation

from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType

ELEMENTS = (F16, BF16, F32, I8, I32)

elements = pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)


def numbered(shape: tuple[int, ...], element: ElementType) -> Array:
    """Neighbours differ in every axis; any element can be told from most others."""
    numbers = np.arange(prod(shape)).reshape(shape)
    return (numbers % (251 if element == I8 else 2039)).astype(element.dtype)


def permute(order: tuple[int, ...]) -> Build:
    return lambda x: tpu.PermuteOp(x, order)


def test_axes_of_size_1_cost_nothing():
    """A column made a row is a copy of a few large pieces, not one of each element."""
    item = check(permute((1, 0)), numbered((1, 100_000), F16), exact=True)
    assert len(item.kernel.gdma) <= 4
    item = check(permute((2, 0, 1)), numbered((300, 70, 1), F16), exact=True)
    assert len(item.kernel.gdma) <= 4


def test_whole_inner_axes_are_copied_together():
    parts = [numbered((40, 5, 8), F16), numbered((40, 5, 2), F16)]
    item = check(lambda *xs: tpu.ConcatOp(xs, 2), *parts, exact=True)
    assert len(item.kernel.gdma) == 4
    item = check(lambda *xs: tpu.ConcatOp(xs, 0), parts[0], parts[0], exact=True)
    assert len(item.kernel.gdma) == 4


@elements
def test_permutations_of_rank_2(element: ElementType):
    for shape in [(1, 1), (1, 9), (70, 33), (300, 3), (3, 300), (65, 1), (400, 270)]:
        check(permute((1, 0)), numbered(shape, element), exact=True)
        check(permute((0, 1)), numbered(shape, element), exact=True)


@elements
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_permutations_of_rank_3(order: tuple[int, ...], element: ElementType):
    for shape in [(5, 7, 9), (1, 7, 70), (5, 1, 70), (70, 3, 1), (2, 65, 300)]:
        check(permute(order), numbered(shape, element), exact=True)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_permutations_of_rank_4(order: tuple[int, ...]):
    check(permute(order), numbered((3, 4, 5, 6), F16), exact=True)
    check(permute(order), numbered((1, 9, 3, 5), F32), exact=True)


@pytest.mark.parametrize("order", [(1, 0), (0, 1)])
def test_permutations_of_column_ranges(order: tuple[int, ...]):
    check(permute(order), Pitched(numbered((70, 33), F16), 3, 5), exact=True)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_permutations_of_column_ranges_of_rank_3(order: tuple[int, ...]):
    check(permute(order), Pitched(numbered((4, 5, 33), F16), 3, 5), exact=True)


@elements
@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        ([(5,), (1,), (70,)], 0),
        ([(3, 9), (70, 9), (1, 9)], 0),
        ([(70, 9), (70, 1), (70, 65)], 1),
        ([(2, 3, 9), (1, 3, 9)], 0),
        ([(2, 3, 9), (2, 70, 9)], 1),
        ([(2, 3, 9), (2, 3, 40)], 2),
        ([(2, 3, 4, 5), (2, 3, 1, 5), (2, 3, 2, 5)], 2),
        ([(7, 20000), (7, 30001)], 1),
        ([(6, 6)], 1),
    ],
)
def test_concat(shapes: list[tuple[int, ...]], axis: int, element: ElementType):
    def build(*xs: Any) -> Operation:
        return tpu.ConcatOp(xs, axis)

    parts = [numbered(shape, element) for shape in shapes]
    check(build, *parts, exact=True)
    check(build, *[Pitched(part, i, 2) for i, part in enumerate(parts)], exact=True)


@elements
@pytest.mark.parametrize(
    ("shape", "offsets", "sizes"),
    [
        ((70, 33), (3, 7), (66, 9)),
        ((70, 33), (68, 32), (2, 1)),
        ((4, 5, 6), (1, 2, 3), (2, 2, 2)),
        ((4, 70, 6), (0, 1, 0), (4, 66, 6)),
        ((3, 4, 5, 6), (1, 0, 2, 0), (2, 4, 3, 6)),
        ((70, 3, 4, 6), (2, 0, 0, 1), (66, 3, 4, 4)),
        ((3, 4, 5, 6), (0, 3, 0, 1), (3, 1, 5, 4)),
        ((2, 2, 3, 30000), (0, 1, 1, 1), (2, 1, 2, 29001)),
    ],
)
def test_slice(
    shape: tuple[int, ...], offsets: tuple[int, ...], sizes: tuple[int, ...], element: ElementType
):
    """Boxes that are no views, or that a function returns: those are copied."""
    x = numbered(shape, element)
    check_slice(x, offsets, sizes)


def slicing(offsets: tuple[int, ...], sizes: tuple[int, ...]) -> Build:
    return lambda x: tpu.SliceOp(x, offsets, sizes)


def check_slice(x: Array | Pitched, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    check(slicing(offsets, sizes), x, exact=True)


def test_a_slice_of_a_column_range():
    x = numbered((4, 5, 30), F16)
    check_slice(Pitched(x, 2, 3), (1, 2, 3), (2, 2, 9))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    spans = [sorted((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1)))) for n in shape]
    spans[-2] = [0, shape[-2] - 1] if draw(st.booleans()) else spans[-2]
    sizes = [last - first + 1 for first, last in spans]
    return tuple(shape), tuple(first for first, _ in spans), tuple(sizes)


@given(boxes(), st.sampled_from(ELEMENTS))
@settings(deadline=None, max_examples=40)
def test_any_box(
    box: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], element: ElementType
):
    shape, offsets, sizes = box
    x = numbered(shape, element)
    build, wanted = slicing(offsets, sizes), x[tuple(map(slice, offsets, np.add(offsets, sizes)))]
    if not wanted.flags.c_contiguous:  # What is contiguous is a view, and has no kernel.
        assert_same_bits(check(build, x).run(), wanted)


@st.composite
def orders(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = draw(st.integers(1, 5))
    shape = draw(st.lists(st.integers(1, 40 // rank), min_size=rank, max_size=rank))
    return tuple(shape), tuple(draw(st.permutations(range(rank))))


@given(orders(), st.sampled_from(ELEMENTS))
@settings(deadline=None, max_examples=40)
def test_any_permutation(case: tuple[tuple[int, ...], tuple[int, ...]], element: ElementType):
    shape, order = case
    check(permute(order), numbered(shape, element), exact=True)
