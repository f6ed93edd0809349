"""The kernels of softmax over the last axis, in f32: whole rows, or rows in pieces where local
memory does not hold one."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.dialects.bdc import BinaryFunction, ReduceFunction, UnaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over, reduce_columns
from tilewright.passes.tiling.rows import (
    Tile,
    TileBuffer,
    run_elements,
    split_tile,
    whole_row_tile,
)


def softmax_rows(b: KernelBuilder, x: SSAValue, out: LocalType) -> SSAValue:
    """`exp(x - max) / sum(exp(x - max))` of each row of a tile, rounded once to the type of `out`.

    The division is a product with the reciprocal of the sum, which is at least 1: a division takes
    several passes, here of one column instead of all.
    """
    wide = LocalType.of(out.rows, out.cols, F32)
    column = LocalType.of(out.rows, 1, F32)
    largest = b.reduce(ReduceFunction.MAX, x, column)
    shifted = b.binary(BinaryFunction.SUB, x, largest, wide)
    powers = b.unary(UnaryFunction.EXP, shifted, wide)
    total = b.reduce(ReduceFunction.SUM, powers, column)
    share = b.unary(UnaryFunction.RECIPROCAL, total, column)
    return b.binary(BinaryFunction.MUL, powers, share, out)


@register(tpu.SoftmaxOp)
def build_softmax(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """A tile of rows at a time."""
    x, y = operands[0], results[0]
    buffers = [
        TileBuffer(x.element, 2),
        TileBuffer(y.element, 2),
        TileBuffer(F32, 2),
        TileBuffer(F32, 8, "column"),
    ]
    tile = whole_row_tile(x.rows, x.cols, buffers, chip)
    if tile is None:
        step = run_elements(x.element, chip)
        return _in_pieces(op, x, y, split_tile(x.rows, x.cols, buffers, chip, step))
    b = KernelBuilder([(x.global_type(), "read"), (y.global_type(), "write")])
    source, target = b.arguments
    out = LocalType.of(tile.rows, tile.cols, y.element)
    with over(b, x.rows, tile.rows) as row:
        value = b.load(source, row, 0, LocalType.of(tile.rows, tile.cols, x.element))
        b.store(softmax_rows(b, value, out), target, row, 0)
    return b.finish(op.name)


def _in_pieces(op: Operation, x: View, y: View, tile: Tile) -> func.FuncOp:
    """The maximum, then the sum of powers, then the quotients: each reads the row once."""
    b = KernelBuilder([(x.global_type(), "read"), (y.global_type(), "write")])
    source, target = b.arguments
    wide = LocalType.of(tile.rows, tile.cols, F32)
    column = LocalType.of(tile.rows, 1, F32)
    out = LocalType.of(tile.rows, tile.cols, y.element)
    with over(b, x.rows, tile.rows) as row:

        def load(col: SSAValue, row: SSAValue = row) -> SSAValue:
            return b.load(source, row, col, LocalType.of(tile.rows, tile.cols, x.element))

        def piece_maximum(col: SSAValue) -> SSAValue:
            return b.reduce(ReduceFunction.MAX, load(col), column)

        width, combine = tile.cols, BinaryFunction.MAX
        largest = reduce_columns(b, x.cols, width, piece_maximum, combine, column)

        def powers(col: SSAValue, largest: SSAValue = largest) -> SSAValue:
            shifted = b.binary(BinaryFunction.SUB, load(col), largest, wide)
            return b.unary(UnaryFunction.EXP, shifted, wide)

        def piece_sum(col: SSAValue) -> SSAValue:
            return b.reduce(ReduceFunction.SUM, powers(col), column)

        total = reduce_columns(b, x.cols, width, piece_sum, BinaryFunction.ADD, column)
        share = b.unary(UnaryFunction.RECIPROCAL, total, column)
        with over(b, x.cols, width) as col:
            result = b.binary(BinaryFunction.MUL, powers(col), share, out)
            b.store(result, target, row, col)
    return b.finish(op.name)
