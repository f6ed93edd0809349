"""The kernel of the squared ReLU: load a tile, two vector commands, store it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tilewright.backends.chip import Chip
from tilewright.dialects.bdc import BinaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.rows import TileBuffer, fold, run_elements, split_tile
from xdsl.dialects import func
from xdsl.ir import Operation

from acme_tilewright.dialect import TpuSquaredReluOp


@register(TpuSquaredReluOp)
def build(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Tiles of the tensor, folded to fill all lanes where its rows lie without gaps."""
    (x,), (y,) = operands, results
    rows, cols = fold(math.prod(x.shape), chip) if x.is_contiguous else (x.rows, x.cols)
    buffers = [TileBuffer(x.element, 2), TileBuffer(F32), TileBuffer(y.element, 2)]
    tile = split_tile(rows, cols, buffers, chip, run_elements(x.element, chip))
    b = KernelBuilder([(x.reshaped(rows, cols), "read"), (y.reshaped(rows, cols), "write")])
    source, target = b.arguments
    loaded = LocalType.of(tile.rows, tile.cols, x.element)
    wide = LocalType.of(tile.rows, tile.cols, F32)
    out = LocalType.of(tile.rows, tile.cols, y.element)
    with over(b, rows, tile.rows) as row, over(b, cols, tile.cols) as col:
        value = b.load(source, row, col, loaded)
        positive = b.scalar(BinaryFunction.MAX, value, 0.0, wide)
        square = b.binary(BinaryFunction.MUL, positive, positive, out)
        b.store(square, target, row, col)
    return b.finish(op.name)
