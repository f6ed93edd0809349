"""The kernels of RMSNorm and LayerNorm: whole rows, reductions in f32, one rounding at the end."""

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
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.rows import Tile, TileBuffer, row_tile


@register(tpu.RMSNormOp)
def build_rms_norm(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`x / sqrt(mean(x^2) + eps) * weight`."""
    assert isinstance(op, graph.RMSNorm)
    return _normalize(op.name, operands, results[0], op.eps.value.data, None, chip)


@register(tpu.LayerNormOp)
def build_layer_norm(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, in two passes: the variance is that of
    the centred row."""
    assert isinstance(op, graph.LayerNorm)
    has_bias = op.bias is not None
    return _normalize(op.name, operands, results[0], op.eps.value.data, has_bias, chip)


def _normalize(
    name: str,
    operands: Sequence[View],
    y: View,
    eps: float,
    layer_norm_bias: bool | None,
    chip: Chip,
) -> func.FuncOp:
    """`layer_norm_bias` is `None` for RMSNorm, else whether the last operand is a bias."""
    x, vectors = operands[0], operands[1:]
    buffers = [
        TileBuffer(x.element, 2),
        TileBuffer(y.element, 2),
        TileBuffer(F32, 3),
        TileBuffer(F32, 5, "column"),
        *[TileBuffer(vector.element, 1, "row") for vector in vectors],
    ]
    tile = row_tile(x.rows, x.cols, buffers, chip)
    views = [x.global_type(), *[vector.reshaped(1, x.cols) for vector in vectors]]
    b = KernelBuilder([*[(view, "read") for view in views], (y.global_type(), "write")])
    source, *rows, target = b.arguments
    loaded = [
        b.load(row, 0, 0, LocalType.of(1, x.cols, vector.element, replicated=True))
        for row, vector in zip(rows, vectors, strict=True)
    ]
    bias = loaded.pop() if layer_norm_bias else None
    weight = loaded[0] if loaded else None
    with over(b, x.rows, tile.rows) as row:
        value = b.load(source, row, 0, LocalType.of(tile.rows, tile.cols, x.element))
        if layer_norm_bias is not None:
            value = _centred(b, value, tile)
        b.store(_scaled(b, value, tile, eps, weight, bias, y), target, row, 0)
    return b.finish(name)


def _mean(b: KernelBuilder, x: SSAValue, tile: Tile) -> SSAValue:
    column = LocalType.of(tile.rows, 1, F32)
    total = b.reduce(ReduceFunction.SUM, x, column)
    return b.scalar(BinaryFunction.MUL, total, 1 / tile.cols, column)


def _centred(b: KernelBuilder, x: SSAValue, tile: Tile) -> SSAValue:
    wide = LocalType.of(tile.rows, tile.cols, F32)
    return b.binary(BinaryFunction.SUB, x, _mean(b, x, tile), wide)


def _scaled(
    b: KernelBuilder,
    x: SSAValue,
    tile: Tile,
    eps: float,
    weight: SSAValue | None,
    bias: SSAValue | None,
    y: View,
) -> SSAValue:
    """`x / sqrt(mean(x^2) + eps) * weight + bias`; the last step rounds."""
    wide = LocalType.of(tile.rows, tile.cols, F32)
    column = LocalType.of(tile.rows, 1, F32)
    out = LocalType.of(tile.rows, tile.cols, y.element)
    mean = _mean(b, b.binary(BinaryFunction.MUL, x, x, wide), tile)
    shifted = b.scalar(BinaryFunction.ADD, mean, eps, column)
    factor = b.unary(UnaryFunction.RSQRT, shifted, column)
    steps = [(BinaryFunction.MUL, factor)]
    steps += [(BinaryFunction.MUL, weight)] if weight is not None else []
    steps += [(BinaryFunction.ADD, bias)] if bias is not None else []
    for number, (function, other) in enumerate(steps, start=1):
        x = b.binary(function, x, other, out if number == len(steps) else wide)
    return x
