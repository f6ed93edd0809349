"""Steps of the `gdma` ops: tiles between global and local memory, cut at the edges of views."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference.balls import Ball
from tilewright.backends.reference.kernels.state import GlobalView, Result, State, Step, empty
from tilewright.backends.reference.kernels.tiles import Tile
from tilewright.dialects import gdma
from tilewright.dialects.errors import OptionError
from tilewright.dialects.scopes import where_of


def load(op: gdma.LoadOp) -> Step:
    """A tile from `[row, col]` on, to the view's edge or the limit."""
    source, row, col, limit, result = op.source, op.row, op.col, op.limit, Result(op)

    def step(state: State) -> None:
        values = state.values
        view: GlobalView = values[source]
        at_row, at_col = values[row], values[col]
        last, width = view.value.shape
        last = last if limit is None else min(last, values[limit])
        rows, cols = min(result.rows, last - at_row), min(result.cols, width - at_col)
        if rows < 1 or cols < 1 or at_row < 0 or at_col < 0:
            empty(op, rows, cols)
        part = slice(at_row, at_row + rows), slice(at_col, at_col + cols)
        state.make(result, (), lambda: view.read(part), uniform=False)

    return step


def gather(op: gdma.GatherOp) -> Step:
    """Rows that indices name."""
    source, col, indices, at, result = op.source, op.col, op.indices, op.at, Result(op)

    def step(state: State) -> None:
        values = state.values
        view: GlobalView = values[source]
        at_col = values[col]
        cols = min(result.cols, view.value.shape[1] - at_col)
        picked = _picked(op, view, values[indices], values[at], result.rows)
        if len(picked) < 1 or cols < 1 or at_col < 0:
            empty(op, len(picked), cols)
        part = picked, slice(at_col, at_col + cols)
        state.make(result, (), lambda: view.read(part), uniform=False)

    return step


def store(op: gdma.StoreOp) -> Step:
    """A tile to `[row, col]`, cut at the view's edge."""
    source, target, row, col = op.tile, op.target, op.row, op.col

    def step(state: State) -> None:
        values = state.values
        tile: Tile = values[source]
        view: GlobalView = values[target]
        at_row, at_col = values[row], values[col]
        last, width = view.value.shape
        rows, cols = min(tile.rows, last - at_row), min(tile.cols, width - at_col)
        if rows < 1 or cols < 1 or at_row < 0 or at_col < 0:
            empty(op, rows, cols)
        part = slice(at_row, at_row + rows), slice(at_col, at_col + cols)
        view.write(part, tile.ball(rows, cols))

    return step


def scatter(op: gdma.ScatterOp) -> Step:
    """Rows to where indices say; of two for one row, the later."""
    source, target, col, indices, at = op.tile, op.target, op.col, op.indices, op.at

    def step(state: State) -> None:
        values = state.values
        tile: Tile = values[source]
        view: GlobalView = values[target]
        at_col = values[col]
        cols = min(tile.cols, view.value.shape[1] - at_col)
        picked = _picked(op, view, values[indices], values[at], tile.rows)
        if len(picked) < 1 or cols < 1 or at_col < 0:
            empty(op, len(picked), cols)
        ball = tile.ball(len(picked), cols)
        view.write((picked, slice(at_col, at_col + cols)), Ball(ball.value, ball.radius))

    return step


def _picked(
    op: Operation, view: GlobalView, indices: GlobalView, first: int, rows: int
) -> NDArray[Any]:
    """The row numbers from index `first` on, at most `rows`; raises for one that is no row."""
    picked = indices.value[0, max(first, 0) : max(first, 0) + rows] if first >= 0 else _NONE
    bad = (picked < 0) | (picked >= view.value.shape[0])
    if bool(bad.any()):
        number = int(np.argmax(bad))
        raise OptionError(
            f"{op.name}: index {int(picked[number])} is outside of the {view.value.shape[0]} rows",
            where=where_of(op),
            why=f"index number {first + number}",
        )
    return picked


_NONE = np.zeros(0, np.int32)
