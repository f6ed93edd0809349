"""Local memory of the kernel reference against a memory of single bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.reference.balls import Ball
from tilewright.backends.reference.kernels.tiles import Buffer, LocalMemory, Tile

LANES = 4
SIZE = st.sampled_from([1, 2, 4])


@st.composite
def tiles(draw: st.DrawFn) -> tuple[int, int, int, int, int, bool]:
    """Offset, stride, rows, columns, element size, replicated."""
    size = draw(SIZE)
    cols = draw(st.integers(1, 6))
    replicated = draw(st.booleans())
    stride = draw(st.integers(-(-cols * size // 8), 4)) * 8
    rows = 1 if replicated else draw(st.integers(1, 11))
    return draw(st.integers(0, 8)) * 4, stride, rows, cols, size, replicated


def cells(tile: tuple[int, int, int, int, int, bool], row: int, col: int) -> set[tuple[int, int]]:
    """The lanes and bytes of an element."""
    offset, stride, _, _, size, replicated = tile
    start = offset + row // LANES * stride + col * size
    lanes = range(LANES) if replicated else [row % LANES]
    return {(lane, start + byte) for lane in lanes for byte in range(size)}


@settings(max_examples=400)
@given(first=tiles(), second=tiles(), third=tiles())
def test_what_is_overwritten_is_lost(
    first: tuple[int, int, int, int, int, bool],
    second: tuple[int, int, int, int, int, bool],
    third: tuple[int, int, int, int, int, bool],
) -> None:
    """Each element of a tile is lost exactly if a later tile has one of its bytes."""
    memory, made = LocalMemory(LANES), list[Tile]()
    for tile in (first, second, third):
        offset, stride, rows, cols, size, replicated = tile
        buffer = Buffer(Ball.exact(np.ones((rows, cols))))
        memory.put(buffer, offset, stride, size, replicated=replicated)
        made.append(Tile(buffer, 0, rows, cols, uniform=False))
    later = set[tuple[int, int]]()
    for tile, given_tile in zip(reversed((first, second, third)), reversed(made), strict=True):
        _, _, rows, cols, _, _ = tile
        own = [[cells(tile, row, col) for col in range(cols)] for row in range(rows)]
        expected = np.array([[bool(cell & later) for cell in row] for row in own])
        np.testing.assert_array_equal(np.isnan(given_tile.ball().value), expected)
        later = later.union(*(cell for row in own for cell in row))
