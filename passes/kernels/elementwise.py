"""Kernels of the ops that work element by element: activations, two-operand ops with broadcasts,
constants, casts.

Where rows lie without gaps, their number does not matter: the tensor is folded to a shape that
fills all lanes, so that a single token takes as few cycles as its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc import BinaryFunction, UnaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import broadcast_sum, over, spans
from tilewright.passes.tiling.rows import (
    Tile,
    TileBuffer,
    fold,
    run_elements,
    split_tile,
    vectors,
)

_UNARY = {
    tpu.TanhOp.name: UnaryFunction.TANH,
    tpu.SigmoidOp.name: UnaryFunction.SIGMOID,
    tpu.ExpOp.name: UnaryFunction.EXP,
    tpu.SqrtOp.name: UnaryFunction.SQRT,
    tpu.RsqrtOp.name: UnaryFunction.RSQRT,
    tpu.ReciprocalOp.name: UnaryFunction.RECIPROCAL,
    tpu.NegOp.name: UnaryFunction.NEG,
    tpu.AbsOp.name: UnaryFunction.ABS,
    tpu.ErfOp.name: UnaryFunction.ERF,
}
_BINARY = {
    tpu.AddOp.name: BinaryFunction.ADD,
    tpu.SubOp.name: BinaryFunction.SUB,
    tpu.MulOp.name: BinaryFunction.MUL,
    tpu.DivOp.name: BinaryFunction.DIV,
    tpu.MaxOp.name: BinaryFunction.MAX,
    tpu.MinOp.name: BinaryFunction.MIN,
}

GELU_TANH_SCALE = math.sqrt(2 / math.pi)
GELU_TANH_CUBIC = 0.044715
"""Constants of the tanh form (Hendrycks and Gimpel, arXiv 1606.08415)."""


@dataclass(frozen=True)
class Elements:
    """What an element function is emitted with: the builder, types of f32 and of result tiles."""

    builder: KernelBuilder
    wide: LocalType
    out: LocalType


Emit = Callable[[Elements, SSAValue], SSAValue]


def silu(e: Elements, x: SSAValue) -> SSAValue:
    """`x * sigmoid(x)`."""
    gate = e.builder.unary(UnaryFunction.SIGMOID, x, e.wide)
    return e.builder.binary(BinaryFunction.MUL, gate, x, e.out)


def gelu_erf(e: Elements, x: SSAValue) -> SSAValue:
    """`x / 2 * (1 + erf(x / sqrt(2)))`."""
    b = e.builder
    argument = b.scalar(BinaryFunction.MUL, x, math.sqrt(0.5), e.wide)
    error = b.unary(UnaryFunction.ERF, argument, e.wide)
    above = b.scalar(BinaryFunction.ADD, error, 1.0, e.wide)
    half = b.scalar(BinaryFunction.MUL, x, 0.5, e.wide)
    return b.binary(BinaryFunction.MUL, half, above, e.out)


def gelu_tanh(e: Elements, x: SSAValue) -> SSAValue:
    """`x / 2 * (1 + tanh(u))`, `u = sqrt(2 / pi) * (x + 0.044715 x^3)`."""
    # x / 2 * (1 + tanh(u)) is x * sigmoid(2 u): one command less, and no cancellation for large
    # negative x.
    b = e.builder
    square = b.binary(BinaryFunction.MUL, x, x, e.wide)
    cubic = b.scalar(BinaryFunction.MUL, square, 2 * GELU_TANH_SCALE * GELU_TANH_CUBIC, e.wide)
    slope = b.scalar(BinaryFunction.ADD, cubic, 2 * GELU_TANH_SCALE, e.wide)
    argument = b.binary(BinaryFunction.MUL, slope, x, e.wide)
    gate = b.unary(UnaryFunction.SIGMOID, argument, e.wide)
    return b.binary(BinaryFunction.MUL, gate, x, e.out)


@register(tpu.SiLUOp)
def build_silu(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`x * sigmoid(x)`."""
    return _map(op, operands[0], results[0], silu, 1, chip)


@register(tpu.GELUOp)
def build_gelu(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Both forms of GELU."""
    assert isinstance(op, tpu.GELUOp)
    if op.approximate.data == graph.Approximation.TANH:
        return _map(op, operands[0], results[0], gelu_tanh, 5, chip)
    return _map(op, operands[0], results[0], gelu_erf, 4, chip)


@register(
    tpu.TanhOp,
    tpu.SigmoidOp,
    tpu.ExpOp,
    tpu.SqrtOp,
    tpu.RsqrtOp,
    tpu.ReciprocalOp,
    tpu.NegOp,
    tpu.AbsOp,
    tpu.ErfOp,
)
def build_unary(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """The functions that the vector unit has."""
    function = _UNARY[op.name]
    return _map(
        op, operands[0], results[0], lambda e, x: e.builder.unary(function, x, e.out), 0, chip
    )


@register(tpu.ReluOp)
def build_relu(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`max(x, 0)`."""
    return _scalar(op, operands[0], results[0], BinaryFunction.MAX, 0.0, chip)


@register(tpu.AddConstOp, tpu.MulConstOp)
def build_const(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`x + value` and `x * value`."""
    assert isinstance(op, graph.ConstGraphOp)
    function = BinaryFunction.ADD if isinstance(op, tpu.AddConstOp) else BinaryFunction.MUL
    return _scalar(op, operands[0], results[0], function, op.value.value.data, chip)


@register(tpu.CastOp)
def build_cast(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """One rounding to the result's type; a copy if that is the operand's."""
    x, y = operands[0], results[0]
    if x.element == y.element:
        return _map(op, x, y, lambda e, tile: tile, 0, chip)
    if not (x.element.is_float and y.element.is_float):
        raise UnsupportedError(f"{op.name} from {x.element.name} to {y.element.name}")
    return _map(op, x, y, lambda e, tile: e.builder.unary(UnaryFunction.CAST, tile, e.out), 0, chip)


@register(tpu.AddOp, tpu.SubOp, tpu.MulOp, tpu.DivOp, tpu.MaxOp, tpu.MinOp)
def build_binary(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Two operands; the second may be a suffix of the first (a row, a stack's element, one number)
    or a column."""
    a, b = operands
    plan = _Binary(op.name, a, b, results[0], _BINARY[op.name], chip)
    count, other = math.prod(a.shape), math.prod(b.shape)
    if other == count:
        return plan.stacked()
    if other == 1:
        return plan.by_scalar()
    if b.shape == (*a.shape[:-1], 1):
        return plan.by_column()
    if b.is_contiguous and (a.is_contiguous or other == a.cols):
        rows, cols = fold(other, chip)
        if vectors(count // other, other, chip) <= count // other * vectors(rows, cols, chip):
            return plan.by_row()
    return plan.stacked()


def _scalar(
    op: Operation, x: View, y: View, function: BinaryFunction, value: float, chip: Chip
) -> func.FuncOp:
    return _map(op, x, y, lambda e, t: e.builder.scalar(function, t, value, e.out), 0, chip)


def _shape(views: Sequence[View], chip: Chip) -> tuple[int, int]:
    """Rows and columns for views of one shape: folded where none has gaps."""
    if all(view.is_contiguous for view in views):
        return fold(math.prod(views[0].shape), chip)
    return views[0].rows, views[0].cols


def _step(views: Sequence[View], chip: Chip) -> int:
    return max(run_elements(view.element, chip) for view in views)


def _map(op: Operation, x: View, y: View, emit: Emit, temporaries: int, chip: Chip) -> func.FuncOp:
    """`y = emit(x)`, with so many f32 tiles on the way."""
    rows, cols = _shape([x, y], chip)
    buffers = [TileBuffer(x.element, 2), TileBuffer(y.element, 2), TileBuffer(F32, temporaries)]
    if temporaries == 0:
        buffers.pop()
    tile = split_tile(rows, cols, buffers, chip, _step([x, y], chip))
    b = KernelBuilder([(x.reshaped(rows, cols), "read"), (y.reshaped(rows, cols), "write")])
    source, target = b.arguments
    types = Elements(
        b, LocalType.of(tile.rows, tile.cols, F32), LocalType.of(tile.rows, tile.cols, y.element)
    )
    loaded = LocalType.of(tile.rows, tile.cols, x.element)
    with over(b, rows, tile.rows) as row, over(b, cols, tile.cols) as col:
        b.store(emit(types, b.load(source, row, col, loaded)), target, row, col)
    return b.finish(op.name)


@dataclass(frozen=True)
class _Binary:
    """`y = a function b`, as one of four loop nests; `y` lies without gaps."""

    name: str
    a: View
    b: View
    y: View
    function: BinaryFunction
    chip: Chip

    def kernel(self, a: GlobalType, b: GlobalType, y: GlobalType) -> KernelBuilder:
        return KernelBuilder([(a, "read"), (b, "read"), (y, "write")])

    def tile(self, rows: int, cols: int, right: TileBuffer) -> Tile:
        buffers = [TileBuffer(self.a.element, 2), TileBuffer(self.y.element, 2), right]
        step = _step([self.a, self.b, self.y], self.chip)
        return split_tile(rows, cols, buffers, self.chip, step)

    def tile_types(self, tile: Tile) -> tuple[LocalType, LocalType, LocalType]:
        return (
            LocalType.of(tile.rows, tile.cols, self.a.element),
            LocalType.of(tile.rows, tile.cols, self.b.element),
            LocalType.of(tile.rows, tile.cols, self.y.element),
        )

    def stacked(self) -> func.FuncOp:
        """`a` as a stack of tensors of the shape of `b`: a tile of `b` meets that of each."""
        count = math.prod(self.a.shape) // math.prod(self.b.shape)
        if all(view.is_contiguous for view in (self.a, self.b, self.y)):
            rows, cols = fold(math.prod(self.b.shape), self.chip)
        else:
            rows, cols = self.b.rows, self.b.cols
        tile = self.tile(rows, cols, TileBuffer(self.b.element, 2))
        left, right, out = self.tile_types(tile)
        b = self.kernel(
            self.a.reshaped(count * rows, cols),
            self.b.reshaped(rows, cols),
            self.y.reshaped(count * rows, cols),
        )
        x, w, y = b.arguments
        with over(b, rows, tile.rows) as row, over(b, cols, tile.cols) as col:
            if count == 1:
                value = b.load(x, row, col, left)
                other = b.load(w, row, col, right)
                b.store(b.binary(self.function, value, other, out), y, row, col)
            else:
                other = b.load(w, row, col, right)
                with over(b, count, 1) as item:
                    first = b.mul(item, rows)
                    place = b.add(first, row)
                    limit = b.add(first, rows) if rows % tile.rows else None
                    value = b.load(x, place, col, left, limit=limit)
                    b.store(b.binary(self.function, value, other, out), y, place, col)
        return b.finish(self.name)

    def by_row(self) -> func.FuncOp:
        """`b` is a row that meets every row of `a`."""
        cols = math.prod(self.b.shape)
        rows = math.prod(self.a.shape) // cols
        tile = self.tile(rows, cols, TileBuffer(self.b.element, 2, "row"))
        left, _, out = self.tile_types(tile)
        right = LocalType.of(1, tile.cols, self.b.element, replicated=True)
        b = self.kernel(
            self.a.reshaped(rows, cols), self.b.reshaped(1, cols), self.y.reshaped(rows, cols)
        )
        x, w, y = b.arguments
        with over(b, cols, tile.cols) as col:
            other = b.load(w, 0, col, right)
            with over(b, rows, tile.rows) as row:
                value = b.load(x, row, col, left)
                b.store(b.binary(self.function, value, other, out), y, row, col)
        return b.finish(self.name)

    def by_column(self) -> func.FuncOp:
        """`b` is a column that meets every column of `a`."""
        rows, cols = self.a.rows, self.a.cols
        tile = self.tile(rows, cols, TileBuffer(self.b.element, 2, "column"))
        left, _, out = self.tile_types(tile)
        right = LocalType.of(tile.rows, 1, self.b.element)
        b = self.kernel(self.a.global_type(), self.b.global_type(), self.y.global_type())
        x, w, y = b.arguments
        with over(b, rows, tile.rows) as row:
            other = b.load(w, row, 0, right)
            with over(b, cols, tile.cols) as col:
                value = b.load(x, row, col, left)
                b.store(b.binary(self.function, value, other, out), y, row, col)
        return b.finish(self.name)

    def by_scalar(self) -> func.FuncOp:
        """`b` is one number, brought to every lane as a column by the matrix unit."""
        rows, cols = _shape([self.a, self.y], self.chip)
        tile = self.tile(rows, cols, TileBuffer(F32, 5, "column"))
        b = self.kernel(
            self.a.reshaped(rows, cols), self.b.reshaped(1, 1), self.y.reshaped(rows, cols)
        )
        x, w, y = b.arguments
        number = b.load(w, 0, 0, LocalType.of(1, 1, self.b.element))
        if self.b.element != F32:
            number = b.unary(UnaryFunction.CAST, number, LocalType.of(1, 1, F32))
        # A column must be as high as the tiles that it meets: the last rows have one of their own.
        for start, stop, height in spans(rows, tile.rows):
            other = broadcast_sum(b, height, number, 1)
            left, _, out = self.tile_types(Tile(height, tile.cols))
            with (
                over(b, stop, height, start=start) as row,
                over(b, cols, tile.cols) as col,
            ):
                value = b.load(x, row, col, left)
                b.store(b.binary(self.function, value, other, out), y, row, col)
        return b.finish(self.name)
