"""Permutations as moves of blocks, executed with NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from tilewright.passes.tiling.permutation import Side, block_move, collapse


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((1, 512, 32, 128), (0, 2, 1, 3), ((512, 32, 128), (1, 0, 2))),
        ((2, 3, 4), (0, 1, 2), ((24,), (0,))),
        ((2, 3, 4), (1, 2, 0), ((2, 12), (1, 0))),
        ((2, 3, 4), (2, 0, 1), ((6, 4), (1, 0))),
        ((2, 1, 4), (2, 1, 0), ((2, 4), (1, 0))),
        ((1, 1), (1, 0), ((1,), (0,))),
        ((), (), ((1,), (0,))),
    ],
)
def test_collapse(
    shape: tuple[int, ...],
    order: tuple[int, ...],
    expected: tuple[tuple[int, ...], tuple[int, ...]],
):
    assert collapse(shape, order) == expected


def test_a_last_axis_with_gaps_stays_alone():
    assert collapse((2, 3, 4), (0, 1, 2), keep_last=True) == ((6, 4), (0, 1))
    assert collapse((70, 1), (1, 0), keep_last=True) == ((70, 1), (1, 0))


def test_heads_in_front_of_tokens():
    """`[512, 32, 128]` to `[32, 512, 128]`: a block of all tokens a head, nothing transposed."""
    move = block_move((512, 32, 128), (1, 0, 2))
    assert (move.rows, move.cols, move.transposed) == (512, 128, False)
    assert move.counts == (32,)
    assert move.source == Side(512, 4096, 4096, ((0, 128),))
    assert move.target == Side(16384, 128, 128, ((512, 0),))


@st.composite
def permutations(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    return shape, order, draw(st.sampled_from([0, 0, 1, 7]))


@given(permutations())
@example(((4, 5, 1), (0, 2, 1), 3))
@example(((4, 5, 1), (1, 0, 2), 3))
def test_moves_are_the_transpose(case: tuple[tuple[int, ...], tuple[int, ...], int]):
    """Every element of the result is written once, and is the right one; gaps are not read."""
    shape, order, gap = case
    x = np.arange(prod(shape)).reshape(shape)
    memory = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, gap)], constant_values=-1).ravel()
    memory = memory[: memory.size - gap]
    result = np.full(prod(shape), -1)
    written = np.zeros(prod(shape), int)
    move = block_move(shape, order, shape[-1] + gap if gap else None)
    source, target, count = (
        view(memory, move.source),
        view(result, move.target),
        view(written, move.target),
    )
    rows, cols = (move.cols, move.rows) if move.transposed else (move.rows, move.cols)
    for block in np.ndindex(move.counts):
        x_row, x_col = place_of(block, move.source)
        y_row, y_col = place_of(block, move.target)
        part = source[x_row : x_row + move.rows, x_col : x_col + move.cols]
        assert part.shape == (move.rows, move.cols)
        place = np.s_[y_row : y_row + rows, y_col : y_col + cols]
        target[place] = part.T if move.transposed else part
        count[place] += 1
    assert (written == 1).all()
    assert np.array_equal(result.reshape([shape[axis] for axis in order]), x.transpose(order))


def place_of(block: Sequence[int], side: Side) -> tuple[int, int]:
    """Row and column where a block begins."""
    numbers = list(zip(block, side.steps, strict=True))
    return sum(n * row for n, (row, _) in numbers), sum(n * col for n, (_, col) in numbers)


def view(memory: np.ndarray[tuple[int], np.dtype[np.int_]], side: Side) -> np.ndarray:
    """`memory` as the side sees it; fails if it is shorter."""
    assert (side.rows - 1) * side.pitch + side.cols <= memory.size
    size = memory.itemsize
    return as_strided(memory, (side.rows, side.cols), (side.pitch * size, size))
