"""The kernels of RMSNorm and LayerNorm: reductions in f32, one rounding at the end.

Whole rows where local memory holds one; else rows in pieces, which are read once for each sum and
once for the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc import BinaryFunction, ReduceFunction, UnaryFunction
from tilewright.dialects.element_types import F32, ElementType
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

Piece = Callable[[SSAValue], SSAValue]
"""Makes a tile of a range of columns, given its first column."""


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
    tiles = [TileBuffer(x.element, 2), TileBuffer(y.element, 2), TileBuffer(F32, 3)]
    columns = TileBuffer(F32, 8, "column")
    rows = [TileBuffer(vector.element, 1, "row") for vector in vectors]
    tile = whole_row_tile(x.rows, x.cols, [*tiles, columns, *rows], chip)
    if tile is None:
        again = [TileBuffer(vector.element, 2, "row") for vector in vectors]
        step = run_elements(x.element, chip)
        tile = split_tile(x.rows, x.cols, [*tiles, columns, *again], chip, step)
    views = [x.global_type(), *[vector.reshaped(1, x.cols) for vector in vectors]]
    b = KernelBuilder([*[(view, "read") for view in views], (y.global_type(), "write")])
    source, *row_views, target = b.arguments
    elements = [vector.element for vector in vectors]
    parameters = _Parameters(b, tile, x.cols, tuple(zip(row_views, elements, strict=True)))
    norm = _Norm(b, tile, x.cols, eps, layer_norm_bias is not None, y.element)
    functions = [BinaryFunction.MUL] * len(vectors)
    if layer_norm_bias:
        functions[-1] = BinaryFunction.ADD
    with over(b, x.rows, tile.rows) as row:

        def load(col: SSAValue, row: SSAValue = row) -> SSAValue:
            return b.load(source, row, col, LocalType.of(tile.rows, tile.cols, x.element))

        centred, factor = norm.centred_and_factor(load if tile.cols < x.cols else _once(b, load))
        with over(b, x.cols, tile.cols) as col:
            steps = zip(functions, parameters.at(col), strict=True)
            b.store(norm.scaled(centred(col), factor, list(steps)), target, row, col)
    return b.finish(name)


def _once(b: KernelBuilder, piece: Piece) -> Piece:
    """The one piece that there is, made now."""
    whole = piece(b.constant(0))
    return lambda col: whole


class _Parameters:
    """Weight and bias in every lane: loaded before all else if they are whole, or by pieces."""

    def __init__(
        self,
        builder: KernelBuilder,
        tile: Tile,
        cols: int,
        views: Sequence[tuple[SSAValue, ElementType]],
    ) -> None:
        self.builder, self.tile, self.views = builder, tile, views
        self.whole = self._load(builder.constant(0)) if tile.cols == cols else None

    def at(self, col: SSAValue) -> list[SSAValue]:
        return self._load(col) if self.whole is None else self.whole

    def _load(self, col: SSAValue) -> list[SSAValue]:
        b, cols = self.builder, self.tile.cols
        return [
            b.load(view, 0, col, LocalType.of(1, cols, element, replicated=True))
            for view, element in self.views
        ]


@dataclass(frozen=True)
class _Norm:
    """The arithmetic of a tile of rows of `cols` columns, `tile.cols` of them at a time."""

    builder: KernelBuilder
    tile: Tile
    cols: int
    eps: float
    centres: bool
    out: ElementType

    @property
    def wide(self) -> LocalType:
        return LocalType.of(self.tile.rows, self.tile.cols, F32)

    @property
    def column(self) -> LocalType:
        return LocalType.of(self.tile.rows, 1, F32)

    def mean(self, piece: Piece) -> SSAValue:
        """The mean of each row."""
        b, column = self.builder, self.column

        def partial(col: SSAValue) -> SSAValue:
            return b.reduce(ReduceFunction.SUM, piece(col), column)

        total = reduce_columns(b, self.cols, self.tile.cols, partial, BinaryFunction.ADD, column)
        return b.scalar(BinaryFunction.MUL, total, 1 / self.cols, column)

    def centred_and_factor(self, load: Piece) -> tuple[Piece, SSAValue]:
        """What is scaled, and `1 / sqrt(mean(its square) + eps)`."""
        b, piece = self.builder, load
        if self.centres:
            mean = self.mean(load)

            def centred(col: SSAValue) -> SSAValue:
                return b.binary(BinaryFunction.SUB, load(col), mean, self.wide)

            piece = centred if self.tile.cols < self.cols else _once(b, centred)

        def square(col: SSAValue) -> SSAValue:
            x = piece(col)
            return b.binary(BinaryFunction.MUL, x, x, self.wide)

        shifted = b.scalar(BinaryFunction.ADD, self.mean(square), self.eps, self.column)
        return piece, b.unary(UnaryFunction.RSQRT, shifted, self.column)

    def scaled(
        self, x: SSAValue, factor: SSAValue, steps: Sequence[tuple[BinaryFunction, SSAValue]]
    ) -> SSAValue:
        """`x * factor` and then `steps`; the last one rounds."""
        out = LocalType.of(self.tile.rows, self.tile.cols, self.out)
        every = [(BinaryFunction.MUL, factor), *steps]
        for number, (function, other) in enumerate(every, start=1):
            kind = out if number == len(every) else self.wide
            x = self.builder.binary(function, x, other, kind)
        return x
