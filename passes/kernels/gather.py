"""The kernels that pick rows by index: embeddings, quantized or not, and updates of a KV cache."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.ir import Operation

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.rows import TileBuffer, run_elements, split_tile


@register(tpu.GatherOp)
def build_gather(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Rows come straight from the table, and go."""
    table, indices = operands
    y = results[0]
    step = run_elements(y.element, chip)
    tile = split_tile(y.rows, y.cols, [TileBuffer(y.element, 2)], chip, step)
    b = KernelBuilder(
        [
            (table.global_type(), "read"),
            (indices.reshaped(1, indices.rows * indices.cols), "read"),
            (y.global_type(), "write"),
        ]
    )
    table_arg, index_arg, y_arg = b.arguments
    with over(b, y.rows, tile.rows) as row, over(b, y.cols, tile.cols) as col:
        rows = b.gather(
            table_arg, col, index_arg, row, LocalType.of(tile.rows, tile.cols, y.element)
        )
        b.store(rows, y_arg, row, col)
    return b.finish(op.name)


@register(tpu.W8A16GatherOp)
def build_w8a16_gather(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Codes and scales of a row come from their tables; the row is dequantized."""
    codes, scale, indices = operands
    y = results[0]
    buffers = [
        TileBuffer(codes.element, 2),
        TileBuffer(y.element, 2),
        TileBuffer(scale.element, 2, "column"),
    ]
    tile = split_tile(y.rows, y.cols, buffers, chip, run_elements(codes.element, chip))
    b = KernelBuilder(
        [
            (codes.global_type(), "read"),
            (scale.global_type(), "read"),
            (indices.reshaped(1, indices.rows * indices.cols), "read"),
            (y.global_type(), "write"),
        ]
    )
    codes_arg, scale_arg, index_arg, y_arg = b.arguments
    with over(b, y.rows, tile.rows) as row, over(b, y.cols, tile.cols) as col:
        rows = b.gather(
            codes_arg, col, index_arg, row, LocalType.of(tile.rows, tile.cols, codes.element)
        )
        scales = b.gather(scale_arg, 0, index_arg, row, LocalType.of(tile.rows, 1, scale.element))
        b.store(
            b.dequant(rows, scales, LocalType.of(tile.rows, tile.cols, y.element)), y_arg, row, col
        )
    return b.finish(op.name)


@register(tpu.CacheUpdateOp)
def build_cache_update(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Rows go to their positions in the cache, which is the result's memory."""
    cache, rows, positions = operands
    step = run_elements(rows.element, chip)
    tile = split_tile(rows.rows, rows.cols, [TileBuffer(rows.element, 2)], chip, step)
    b = KernelBuilder(
        [
            (cache.global_type(), "update"),
            (rows.global_type(), "read"),
            (positions.reshaped(1, positions.rows * positions.cols), "read"),
        ]
    )
    cache_arg, rows_arg, index_arg = b.arguments
    with over(b, rows.rows, tile.rows) as row, over(b, rows.cols, tile.cols) as col:
        value = b.load(rows_arg, row, col, LocalType.of(tile.rows, tile.cols, rows.element))
        b.scatter(value, cache_arg, col, index_arg, row)
    return b.finish(op.name)
