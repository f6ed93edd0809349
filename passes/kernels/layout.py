"""The kernels that only move data: permute, concat, and slices that cannot be views.

Everything is a list of blocks: ranges of rows and columns of one two-dimensional view that go to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.tiling.permutation import block_move
from tilewright.passes.tiling.rows import Tile, TileBuffer, run_elements, split_tile

TRANSPOSED_SLOTS = 4
"""Slots of a lane that the rows of a transposed tile take, and its columns after it."""


@register(tpu.SliceOp)
def build_slice(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """A copy of the box that the slice takes."""
    assert isinstance(op, graph.Slice)
    x, y = operands[0], results[0]
    offsets = [int(offset) for offset in op.offsets.get_values()]
    b = KernelBuilder([(x.global_type(), "read"), (y.global_type(), "write")])
    tile = _tile(y, chip, op.name)
    for corner in _rows_of_box(y.shape):
        start = [o + i for o, i in zip(offsets, corner, strict=True)]
        _copy(b, b.arguments[0], x, start, y, corner, _extent(y.shape), tile)
    return b.finish(op.name)


@register(tpu.ConcatOp)
def build_concat(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Each operand is copied to its place."""
    assert isinstance(op, graph.Concat)
    y, axis = results[0], op.axis.value.data
    b = KernelBuilder([*[(x.global_type(), "read") for x in operands], (y.global_type(), "write")])
    tile = _tile(y, chip, op.name)
    offset = 0
    for x, argument in zip(operands, b.arguments, strict=False):
        for corner in _rows_of_box(x.shape):
            place = list(corner)
            place[axis] += offset
            _copy(b, argument, x, corner, y, place, _extent(x.shape), tile)
        offset += x.shape[axis]
    return b.finish(op.name)


@register(tpu.PermuteOp)
def build_permute(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Blocks over two axes; transposed where the innermost axis moves."""
    assert isinstance(op, graph.Permute)
    x, y = operands[0], results[0]
    move = block_move(x.shape, [int(axis) for axis in op.order.get_values()])
    b = KernelBuilder(
        [(x.reshaped(*move.source.view), "read"), (y.reshaped(*move.target.view), "write")]
    )
    source, target = b.arguments
    side = TRANSPOSED_SLOTS * chip.lanes
    tile = Tile(side, side) if move.transposed else _tile(y, chip, op.name)
    for (x_row, x_col), (y_row, y_col) in zip(
        move.source.starts, move.target.starts, strict=True
    ):
        for row, rows in _pieces(move.rows, tile.rows):
            for col, cols in _pieces(move.cols, tile.cols):
                value = b.load(source, x_row + row, x_col + col, _local(rows, cols, x.element))
                if move.transposed:
                    value = b.transpose(value, _local(cols, rows, x.element))
                    b.store(value, target, y_row + col, y_col + row)
                else:
                    b.store(value, target, y_row + row, y_col + col)
    return b.finish(op.name)


def _local(rows: int, cols: int, element: ElementType) -> LocalType:
    return LocalType.of(rows, cols, element)


def _tile(y: View, chip: Chip, where: str) -> Tile:
    step = run_elements(y.element, chip)
    return split_tile(y.rows, y.cols, [TileBuffer(y.element, 2)], chip, step, where=where)


def _pieces(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Start and length of each piece of a range."""
    for start in range(0, size, step):
        yield start, min(step, size - start)


def _extent(sizes: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a box, its leading axes taken one index at a time."""
    return (sizes[-2] if len(sizes) > 1 else 1), sizes[-1]


def _rows_of_box(sizes: Sequence[int]) -> Iterator[list[int]]:
    """The corner of each two-dimensional part of a box."""
    tail = [0] * min(2, len(sizes))
    for index in product(*(range(size) for size in sizes[:-2])):
        yield [*index, *tail]


def _first_row(shape: Sequence[int], corner: Sequence[int]) -> int:
    row = 0
    for size, index in zip(shape[:-1], corner[:-1], strict=True):
        row = row * size + index
    return row


def _copy(
    b: KernelBuilder,
    source: SSAValue,
    x: View,
    x_corner: Sequence[int],
    y: View,
    y_corner: Sequence[int],
    extent: tuple[int, int],
    tile: Tile,
) -> None:
    """Copy `extent` rows and columns from a corner of `x` to a corner of `y`, the kernel's last argument."""
    target = b.arguments[-1]
    x_row, y_row = _first_row(x.shape, x_corner), _first_row(y.shape, y_corner)
    for row, rows in _pieces(extent[0], tile.rows):
        for col, cols in _pieces(extent[1], tile.cols):
            value = b.load(source, x_row + row, x_corner[-1] + col, _local(rows, cols, y.element))
            b.store(value, target, y_row + row, y_corner[-1] + col)
