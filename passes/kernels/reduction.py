"""The kernel of reductions over the last axis, in f32; wide rows go in pieces."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc import BinaryFunction, ReduceFunction, UnaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over, reduce_columns
from tilewright.passes.tiling.rows import TileBuffer, run_elements, split_tile

_FUNCTIONS = {
    "sum": (ReduceFunction.SUM, BinaryFunction.ADD),
    "mean": (ReduceFunction.SUM, BinaryFunction.ADD),
    "max": (ReduceFunction.MAX, BinaryFunction.MAX),
    "min": (ReduceFunction.MIN, BinaryFunction.MIN),
}


@register(tpu.ReduceOp)
def build_reduce(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """A tile of rows at a time; the pieces of a row are reduced and combined."""
    assert isinstance(op, graph.Reduce)
    mode = str(op.mode.data)
    x, y = operands[0], results[0]
    buffers = [TileBuffer(x.element, 2), TileBuffer(F32, 3, "column")]
    tile = split_tile(x.rows, x.cols, buffers, chip, run_elements(x.element, chip))
    function, combine = _FUNCTIONS[mode]
    b = KernelBuilder([(x.global_type(), "read"), (y.global_type(), "write")])
    source, target = b.arguments
    column = LocalType.of(tile.rows, 1, F32)
    out = LocalType.of(tile.rows, 1, y.element)
    with over(b, x.rows, tile.rows) as row:

        def piece(col: SSAValue, row: SSAValue = row) -> SSAValue:
            value = b.load(source, row, col, LocalType.of(tile.rows, tile.cols, x.element))
            return b.reduce(function, value, column)

        total = reduce_columns(b, x.cols, tile.cols, piece, combine, column)
        if mode == "mean":
            result = b.scalar(BinaryFunction.MUL, total, 1 / x.cols, out)
        else:
            result = b.unary(UnaryFunction.CAST, total, out)
        b.store(result, target, row, 0)
    return b.finish(op.name)
