"""Permutations of axes as moves of two-dimensional blocks. Pure mathematics, no IR.

Axes of size 1 are dropped and neighbours that stay neighbours are joined, so that `[1, 512, 32, 128]` to `[1, 32, 512, 128]`
is `(A, B, C)` to `(B, A, C)`. A block then runs over two axes: `rows` (the axis next to the innermost of the result, or
the result's innermost) and `cols` (the innermost axis of the source).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Side:
    """One side of the move: a two-dimensional view, and where each block begins in it."""

    view: tuple[int, int]
    starts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class BlockMove:
    """`[rows, cols]` blocks go from `source` to `target`, each transposed on the way if `transposed`."""

    rows: int
    cols: int
    transposed: bool
    source: Side
    target: Side


def collapse(shape: Sequence[int], order: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape and order of the same permutation with as few axes as possible (at least one)."""
    kept = [axis for axis in order if shape[axis] != 1]
    groups: list[list[int]] = []
    axes_left = [axis for axis in range(len(shape)) if shape[axis] != 1]
    following = dict(zip(axes_left, axes_left[1:], strict=False))
    for axis in kept:
        if groups and following.get(groups[-1][-1]) == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    ranked = sorted(groups, key=lambda group: group[0])
    sizes = tuple(math.prod(shape[axis] for axis in group) for group in ranked)
    return sizes or (1,), tuple(ranked.index(group) for group in groups) or (0,)


def block_move(shape: Sequence[int], order: Sequence[int]) -> BlockMove:
    """The move that makes `result[i] = source[i permuted]`, `result.shape[j] = shape[order[j]]`."""
    sizes, axes = collapse(shape, order)
    if len(sizes) == 1:
        whole = Side((1, sizes[0]), ((0, 0),))
        return BlockMove(1, sizes[0], False, whole, whole)
    last = len(sizes) - 1
    transposed = axes[-1] != last
    row_axis = axes[-1] if transposed else axes[-2]
    others = [axis for axis in axes if axis not in (row_axis, last)]
    indices = list(product(*(range(sizes[axis]) for axis in others)))
    places = [dict(zip(others, index, strict=True)) for index in indices]
    source = _side(sizes, range(len(sizes)), row_axis, last, places)
    if transposed:
        target = _side(sizes, axes, last, row_axis, places)
    else:
        target = _side(sizes, axes, row_axis, last, places)
    return BlockMove(sizes[row_axis], sizes[last], transposed, source, target)


def _side(
    sizes: Sequence[int],
    axes: Sequence[int],
    row_axis: int,
    col_axis: int,
    places: Sequence[dict[int, int]],
) -> Side:
    """Memory in the order of `axes`, of which `col_axis` is the innermost, seen as rows of `row_axis` and all
    axes within it."""
    axes = list(axes)
    at = axes.index(row_axis)
    outer, inner = axes[:at], axes[at + 1 :]
    rows = math.prod(sizes[axis] for axis in axes[: at + 1])
    cols = math.prod(sizes[axis] for axis in inner)
    starts: list[tuple[int, int]] = []
    for place in places:
        row = col = 0
        for axis in outer:
            row = row * sizes[axis] + place[axis]
        for axis in inner:
            col = col * sizes[axis] + (0 if axis == col_axis else place[axis])
        starts.append((row * sizes[row_axis], col))
    return Side((rows, cols), tuple(starts))
