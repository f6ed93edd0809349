"""Permutations of axes as moves of two-dimensional blocks. Pure mathematics, no IR.

Axes of size 1 are dropped and neighbours that stay neighbours are joined, so that `[1, 512, 32,
128]` to `[1, 32, 512, 128]` is `(A, B, C)` to `(B, A, C)`. A block then runs over two axes: `rows`
(the axis next to the innermost of the result, or the result's innermost) and `cols` (the innermost
axis of the source).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Side:
    """One side of the move: a two-dimensional view of `rows` x `cols` elements, rows `pitch`
    elements apart, and how many rows and columns lie between blocks that follow each other along
    each axis of blocks."""

    rows: int
    cols: int
    pitch: int
    steps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class BlockMove:
    """`[rows, cols]` blocks go from `source` to `target`, transposed on the way if `transposed`.

    There are `counts` of them along each axis of blocks.
    """

    counts: tuple[int, ...]
    rows: int
    cols: int
    transposed: bool
    source: Side
    target: Side


def collapse(
    shape: Sequence[int], order: Sequence[int], *, keep_last: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape and order of the same permutation with as few axes as possible (at least one).

    `keep_last`: the last axis of `shape` stays an axis of its own.
    """
    last = len(shape) - 1
    kept = [axis for axis in order if shape[axis] != 1 or (keep_last and axis == last)]
    ascending = sorted(kept)
    following = dict(pairwise(ascending))
    groups: list[list[int]] = []
    for axis in kept:
        apart = keep_last and axis == last
        if groups and following.get(groups[-1][-1]) == axis and not apart:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    ranked = sorted(groups, key=lambda group: group[0])
    sizes = tuple(math.prod(shape[axis] for axis in group) for group in ranked)
    return sizes or (1,), tuple(ranked.index(group) for group in groups) or (0,)


def block_move(
    shape: Sequence[int], order: Sequence[int], row_pitch: int | None = None
) -> BlockMove:
    """The move that makes axis `i` of the result axis `order[i]` of the source.

    The source's rows (its last axis) lie `row_pitch` elements apart, without gaps if left out; the
    result has none.
    """
    sizes, axes = collapse(shape, order, keep_last=row_pitch is not None)
    if len(sizes) == 1:
        whole = Side(1, sizes[0], sizes[0], ())
        return BlockMove((), 1, sizes[0], False, whole, whole)
    last = len(sizes) - 1
    transposed = axes[-1] != last
    row_axis = axes[-1] if transposed else axes[-2]
    others = [axis for axis in axes if axis not in (row_axis, last)]
    source_strides = _strides(sizes, range(len(sizes)), row_pitch)
    target_strides = _strides(sizes, axes, None)
    return BlockMove(
        tuple(sizes[axis] for axis in others),
        sizes[row_axis],
        sizes[last],
        transposed,
        _side(sizes, source_strides, row_axis, others),
        _side(sizes, target_strides, last if transposed else row_axis, others),
    )


def _strides(sizes: Sequence[int], axes: Sequence[int], row_pitch: int | None) -> dict[int, int]:
    """Elements from one index to the next of each axis, in memory in the order of `axes`.

    The outermost axis comes first.
    """
    strides = {axes[-1]: 1}
    step = sizes[axes[-1]] if row_pitch is None else row_pitch
    for axis in reversed(axes[:-1]):
        strides[axis] = step
        step *= sizes[axis]
    return {axis: strides[axis] for axis in axes}


def _side(
    sizes: Sequence[int],
    strides: dict[int, int],
    row_axis: int,
    others: Sequence[int],
) -> Side:
    """Memory as rows of `row_axis`: the axes within it lie along a row, gaps and all; those around
    it are more rows."""
    axes, pitch = list(strides), strides[row_axis]
    outer, inner = axes[: axes.index(row_axis)], axes[axes.index(row_axis) + 1 :]
    rows = math.prod(sizes[axis] for axis in [*outer, row_axis])
    cols = 1 + sum((sizes[axis] - 1) * strides[axis] for axis in inner)
    steps = tuple(
        (strides[axis] // pitch, 0) if axis in outer else (0, strides[axis]) for axis in others
    )
    return Side(rows, cols, pitch, steps)
