"""The kernels that only move data: permute, concat, and slices that cannot be views.

Everything is a list of blocks: ranges of rows and columns of one two-dimensional view that go to
another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over, spans
from tilewright.passes.tiling.permutation import Side, block_move
from tilewright.passes.tiling.rows import Tile, TileBuffer, fold, run_elements, split_tile

TRANSPOSED_SLOTS = 4
"""Slots of a lane that the rows of a transposed tile take, and its columns after it."""


@register(tpu.SliceOp)
def build_slice(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """A copy of the box that the slice takes."""
    assert isinstance(op, graph.Slice)
    x, y = operands[0], results[0]
    b = KernelBuilder([(x.global_type(), "read"), (y.global_type(), "write")])
    source, target = b.arguments
    offsets = [int(offset) for offset in op.offsets.get_values()]
    _copy_box(b, _End(source, x, offsets), _End(target, y, [0] * len(offsets)), y.shape, chip)
    return b.finish(op.name)


@register(tpu.ConcatOp)
def build_concat(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Each operand is copied to its place."""
    assert isinstance(op, graph.Concat)
    y, axis = results[0], op.axis.value.data
    b = KernelBuilder([*[(x.global_type(), "read") for x in operands], (y.global_type(), "write")])
    *sources, target = b.arguments
    place = [0] * len(y.shape)
    for source, x in zip(sources, operands, strict=True):
        _copy_box(b, _End(source, x, [0] * len(place)), _End(target, y, list(place)), x.shape, chip)
        place[axis] += x.shape[axis]
    return b.finish(op.name)


@register(tpu.PermuteOp)
def build_permute(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Blocks over two axes; transposed where the innermost axis moves."""
    assert isinstance(op, graph.Permute)
    x, y = operands[0], results[0]
    pitch = None if x.is_contiguous else x.pitch_bytes // x.element.size_bytes
    move = block_move(x.shape, [int(axis) for axis in op.order.get_values()], pitch)
    if move.rows == 1 and not move.transposed:
        return _flat_copy(op, x, y, chip)
    b = KernelBuilder([(_side_type(move.source, x), "read"), (_side_type(move.target, y), "write")])
    source, target = b.arguments
    side = TRANSPOSED_SLOTS * chip.lanes
    tile = Tile(side, side) if move.transposed else _tile(move.rows, move.cols, y, chip)
    with ExitStack() as loops:
        blocks = [loops.enter_context(over(b, count, 1)) for count in move.counts]
        x_row, x_col = _place(b, blocks, move.source.steps)
        y_row, y_col = _place(b, blocks, move.target.steps)
        for row, col, rows, cols in _tiles(b, move.rows, move.cols, tile):
            value = b.load(
                source, b.add(x_row, row), b.add(x_col, col), _local(rows, cols, x.element)
            )
            if move.transposed:
                value = b.transpose(value, _local(cols, rows, x.element))
                row, col = col, row
            b.store(value, target, b.add(y_row, row), b.add(y_col, col))
    return b.finish(op.name)


def _flat_copy(op: Operation, x: View, y: View, chip: Chip) -> func.FuncOp:
    """A permutation that moves nothing but axes of size 1."""
    rows, cols = fold(math.prod(y.shape), chip)
    tile = _tile(rows, cols, y, chip)
    b = KernelBuilder([(x.reshaped(rows, cols), "read"), (y.reshaped(rows, cols), "write")])
    source, target = b.arguments
    with over(b, rows, tile.rows) as row, over(b, cols, tile.cols) as col:
        value = b.load(source, row, col, _local(tile.rows, tile.cols, y.element))
        b.store(value, target, row, col)
    return b.finish(op.name)


def _side_type(side: Side, view: View) -> GlobalType:
    return GlobalType.of(side.rows, side.cols, view.element, side.pitch * view.element.size_bytes)


def _local(rows: int, cols: int, element: ElementType) -> LocalType:
    return LocalType.of(rows, cols, element)


def _tile(rows: int, cols: int, y: View, chip: Chip) -> Tile:
    return split_tile(rows, cols, [TileBuffer(y.element, 2)], chip, run_elements(y.element, chip))


def _tiles(
    b: KernelBuilder, rows: int, cols: int, tile: Tile
) -> Iterator[tuple[SSAValue, SSAValue, int, int]]:
    """Loops over the tiles of a block: first row and column, and rows and columns, of each."""
    for first_row, last_row, height in spans(rows, tile.rows):
        for first_col, last_col, width in spans(cols, tile.cols):
            with (
                over(b, last_row, height, start=first_row) as row,
                over(b, last_col, width, start=first_col) as col,
            ):
                yield row, col, height, width


def _place(
    b: KernelBuilder, blocks: Sequence[SSAValue], steps: Sequence[tuple[int, int]]
) -> tuple[SSAValue, SSAValue]:
    """Row and column of a block, whose numbers along the axes of blocks are `blocks`."""
    row = col = b.constant(0)
    for block, (row_step, col_step) in zip(blocks, steps, strict=True):
        if row_step:
            row = b.add(row, b.mul(block, row_step))
        if col_step:
            col = b.add(col, b.mul(block, col_step))
    return row, col


@dataclass(frozen=True)
class _End:
    """One end of a copy: an argument of the kernel, its tensor, and the corner of the box in it."""

    argument: SSAValue
    view: View
    corner: Sequence[int]

    @property
    def row_steps(self) -> list[int]:
        """Rows from one index to the next of each axis but the last."""
        leading = self.view.shape[:-1]
        return [math.prod(leading[axis + 1 :]) for axis in range(len(leading))]

    @property
    def first_row(self) -> int:
        return sum(first * step for first, step in zip(self.corner, self.row_steps, strict=False))


def _copy_box(
    b: KernelBuilder, source: _End, target: _End, sizes: Sequence[int], chip: Chip
) -> None:
    """Copy a box of `sizes`: as many neighbouring axes as are whole at both ends go as rows."""
    axis = max(0, len(sizes) - 2)
    while axis > 0 and sizes[axis] == source.view.shape[axis] == target.view.shape[axis]:
        axis -= 1
    height = math.prod(sizes[axis:-1])
    tile = _tile(height, sizes[-1], target.view, chip)
    with ExitStack() as loops:
        blocks = [loops.enter_context(over(b, size, 1)) for size in sizes[:axis]]
        x_row, y_row = (
            b.add(_place(b, blocks, [(step, 0) for step in end.row_steps[:axis]])[0], end.first_row)
            for end in (source, target)
        )
        for row, col, rows, cols in _tiles(b, height, sizes[-1], tile):
            value = b.load(
                source.argument,
                b.add(x_row, row),
                b.add(col, source.corner[-1]),
                _local(rows, cols, target.view.element),
            )
            place = b.add(y_row, row), b.add(col, target.corner[-1])
            b.store(value, target.argument, *place)
