"""Steps of a walk for the `gdma` ops.

Each adds `(rows, cols, local_offset, local_stride, global_offset, index_offset)` to `walk.gdma`.
"""

from __future__ import annotations

from tilewright.dialects import gdma
from tilewright.dialects.element_types import I32
from tilewright.passes.kernels.commands import GdmaOp, global_type, local_type
from tilewright.passes.kernels.walk import Step, Walk, empty

FIELDS = ("rows", "cols", "local_offset", "local_stride", "global_offset", "index_offset")


def move(walk: Walk, op: GdmaOp, number: int) -> Step:
    """The step of `op`, which is command op `number` of its kernel."""
    match op:
        case gdma.LoadOp():
            return _load(walk, op, number)
        case gdma.GatherOp():
            return _gather(walk, op, number)
        case gdma.StoreOp():
            return _store(walk, op, number)
        case gdma.ScatterOp():
            return _scatter(walk, op, number)


def _load(walk: Walk, op: gdma.LoadOp, number: int) -> Step:
    values, emit, order = walk.values, walk.gdma.append, walk.order.append
    row, col, result = walk.slot(op.row), walk.slot(op.col), walk.slot(op.result)
    limit = None if op.limit is None else walk.slot(op.limit)
    view, tile = global_type(op.source), local_type(op.result)
    view_rows, view_cols, pitch = view.rows, view.cols, view.pitch_bytes
    tile_rows, tile_cols, stride = tile.rows, tile.cols, tile.slot_bytes
    size, take = tile.element.size_bytes, walk.taker(op)

    def step() -> None:
        at_row, at_col = values[row], values[col]
        last = view_rows if limit is None else min(view_rows, values[limit])
        rows, cols = min(tile_rows, last - at_row), min(tile_cols, view_cols - at_col)
        if rows < 1 or cols < 1 or at_row < 0 or at_col < 0:
            empty(op, rows, cols)
        ring, serial, offset = take()
        values[result] = (ring, serial, offset, stride, rows, cols, False)
        emit((rows, cols, offset, stride, at_row * pitch + at_col * size, 0))
        order(number)

    return step


def _gather(walk: Walk, op: gdma.GatherOp, number: int) -> Step:
    values, emit, order = walk.values, walk.gdma.append, walk.order.append
    col, at, result = walk.slot(op.col), walk.slot(op.at), walk.slot(op.result)
    index_count, view_cols = global_type(op.indices).cols, global_type(op.source).cols
    tile = local_type(op.result)
    tile_rows, tile_cols, stride = tile.rows, tile.cols, tile.slot_bytes
    size, take = tile.element.size_bytes, walk.taker(op)

    def step() -> None:
        at_col, first = values[col], values[at]
        rows, cols = min(tile_rows, index_count - first), min(tile_cols, view_cols - at_col)
        if rows < 1 or cols < 1 or first < 0 or at_col < 0:
            empty(op, rows, cols)
        ring, serial, offset = take()
        values[result] = (ring, serial, offset, stride, rows, cols, False)
        emit((rows, cols, offset, stride, at_col * size, I32.size_bytes * first))
        order(number)

    return step


def _store(walk: Walk, op: gdma.StoreOp, number: int) -> Step:
    values, emit, order = walk.values, walk.gdma.append, walk.order.append
    tile, row, col = walk.slot(op.tile), walk.slot(op.row), walk.slot(op.col)
    view, read = global_type(op.target), walk.reader(op)
    view_rows, view_cols, pitch = view.rows, view.cols, view.pitch_bytes
    size = view.element.size_bytes

    def step() -> None:
        at_row, at_col = values[row], values[col]
        offset, stride, rows, cols, _ = read(values[tile])
        rows, cols = min(rows, view_rows - at_row), min(cols, view_cols - at_col)
        if rows < 1 or cols < 1 or at_row < 0 or at_col < 0:
            empty(op, rows, cols)
        emit((rows, cols, offset, stride, at_row * pitch + at_col * size, 0))
        order(number)

    return step


def _scatter(walk: Walk, op: gdma.ScatterOp, number: int) -> Step:
    values, emit, order = walk.values, walk.gdma.append, walk.order.append
    tile, col, at = walk.slot(op.tile), walk.slot(op.col), walk.slot(op.at)
    view, read = global_type(op.target), walk.reader(op)
    index_count, view_cols, size = global_type(op.indices).cols, view.cols, view.element.size_bytes

    def step() -> None:
        at_col, first = values[col], values[at]
        offset, stride, rows, cols, _ = read(values[tile])
        rows, cols = min(rows, index_count - first), min(cols, view_cols - at_col)
        if rows < 1 or cols < 1 or first < 0 or at_col < 0:
            empty(op, rows, cols)
        emit((rows, cols, offset, stride, at_col * size, I32.size_bytes * first))
        order(number)

    return step
