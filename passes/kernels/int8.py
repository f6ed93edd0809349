"""Kernels of `tpu.Quantize`, `tpu.Int8MatMul` and `tpu.Dequantize`.

The multiplication has output channels over the lanes (`passes.tiling.int8_matmul`):

    for m { x = load x[m]; for n {
      sums = codes[n] @ x^T; y[m, n] = store(transpose(requant(sums, table[n]))) } }

and may split k: the first part makes int32 partial sums, the others are added to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.int8_matmul import Int8Problem, Int8Tiling, buffers, choose_tiling
from tilewright.passes.tiling.rows import TileBuffer, fold, run_elements, split_tile

_ONE_SCALE = LocalType.of(1, 1, F32, replicated=True)


@register(tpu.Int8MatMulOp)
def build_int8_matmul(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`tpu.Int8MatMul`, tiled."""
    x, codes, table = operands
    problem = Int8Problem(x.rows, codes.rows, x.cols, x.pitch_bytes)
    return build(x, codes, table, results[0], choose_tiling(problem, chip))


def build(x: View, codes: View, table: View, result: View, tiling: Int8Tiling) -> func.FuncOp:
    """The kernel with that tiling."""
    builder = KernelBuilder(
        [
            (x.global_type(), "read"),
            (codes.global_type(), "read"),
            (table.global_type(), "read"),
            (result.global_type(), "write"),
        ]
    )
    source, weight, requant, target = builder.arguments
    tiles, splits = buffers(tiling), tiling.tk < x.cols
    with over(builder, x.rows, tiling.tm) as m:
        resident = None if splits else builder.load(source, m, 0, tiles.x)
        with over(builder, codes.rows, tiling.tn) as n:
            numbers = builder.load(requant, n, 0, tiles.table)
            first = builder.load(source, m, 0, tiles.x) if resident is None else resident
            left = builder.load(weight, n, 0, tiles.codes)
            sums = builder.mm(left, first, tiles.sums, transpose_right=True)
            if splits:
                with builder.loop(x.cols, tiling.tk, start=tiling.tk, carried=[sums]) as loop:
                    right = builder.load(source, m, loop.index, tiles.x)
                    left = builder.load(weight, n, loop.index, tiles.codes)
                    loop.carry(
                        builder.mm_accumulate(loop.carried[0], 0, left, right, transpose_right=True)
                    )
                sums = loop.results[0]
            requantized = builder.requant(sums, numbers, tiles.requantized)
            builder.store(builder.transpose(requantized, tiles.output), target, m, n)
    return builder.finish("int8_matmul")


@register(tpu.QuantizeOp)
def build_quantize(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`tpu.Quantize`: element by element, with one scale that every lane has."""
    return _with_one_scale(op, operands, results[0], KernelBuilder.quantize, chip)


@register(tpu.DequantizeOp)
def build_dequantize(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`tpu.Dequantize`: element by element, with one scale that every lane has."""
    return _with_one_scale(op, operands, results[0], KernelBuilder.dequantize, chip)


def _with_one_scale(
    op: Operation,
    operands: Sequence[View],
    y: View,
    emit: Callable[[KernelBuilder, SSAValue, SSAValue, LocalType], SSAValue],
    chip: Chip,
) -> func.FuncOp:
    x, scale = operands
    rows, cols = x.rows, x.cols
    if x.is_contiguous and y.is_contiguous:
        rows, cols = fold(rows * cols, chip)
    sizes = [TileBuffer(x.element, 2), TileBuffer(y.element, 2), TileBuffer(F32, 1, "column")]
    step = max(run_elements(view.element, chip) for view in (x, y))
    tile = split_tile(rows, cols, sizes, chip, step)
    builder = KernelBuilder(
        [
            (x.reshaped(rows, cols), "read"),
            (scale.reshaped(1, 1), "read"),
            (y.reshaped(rows, cols), "write"),
        ]
    )
    source, one, target = builder.arguments
    number = builder.load(one, 0, 0, _ONE_SCALE)
    loaded, made = (LocalType.of(tile.rows, tile.cols, view.element) for view in (x, y))
    with over(builder, rows, tile.rows) as row, over(builder, cols, tile.cols) as col:
        value = builder.load(source, row, col, loaded)
        builder.store(emit(builder, value, number, made), target, row, col)
    return builder.finish(op.name)
