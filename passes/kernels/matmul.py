"""Kernels of `tpu.MatMul` and the layers with quantized weights (`tpu.W8A16MatMul`, ...), and the
loop nests that batched ones share.

`passes.tiling.matmul` says which operand lies over the lanes and how large the tiles are. With
channels left, for few rows of x:

    x = load x
    for n { w = load w[n]; y[m, n] = store(transpose(round(w @ x^T + bias column))) }

With rows left:

    for m { x = load x[m]; for n { w = load w[n]; y[m, n] = store(round(x @ w^T + bias row)) } }

Either may split k: the first part makes f32 partial sums, the others are added to them. Codes are
dequantized as soon as they are loaded; scales and zero points of all of k are loaded once a tile of
channels, and the parts take views of them. What an *epilogue* computes of the f32 sums comes before
they are rounded, so that a fused op costs no loads and stores of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import bdc, tpu
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.dialects.quantization import CodeFormat
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.commands import local_type
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.tiling.matmul import choose_tiling
from tilewright.passes.tiling.matmul_tiles import (
    NO_EPILOGUE,
    Buffers,
    Epilogue,
    Problem,
    Tiling,
    buffers,
    count,
)


@dataclass(frozen=True)
class MatMulViews:
    """The operands and result of a matrix multiplication in global memory."""

    x: View
    weight: View
    result: View
    scale: View | None = None
    zero: View | None = None
    bias: View | None = None


@dataclass(frozen=True)
class MatMulArguments:
    """The arguments of a kernel that are the views of a `MatMulViews`, scales and zero points as
    `[n, groups]`, the bias as a column or row.
    """

    x: SSAValue
    weight: SSAValue
    result: SSAValue
    scale: SSAValue | None = None
    zero: SSAValue | None = None
    bias: SSAValue | None = None


EmitEpilogue = Callable[[SSAValue], SSAValue]
"""Computes an f32 tile of an f32 tile of the same shape, element by element: with channels left the
tile is transposed."""


@register(tpu.MatMulOp)
def build_matmul(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`tpu.MatMul`: the weight is as wide as x."""
    assert isinstance(op, tpu.MatMulOp)
    x, weight, *bias = operands
    views = MatMulViews(x, weight, results[0], bias=bias[0] if bias else None)
    problem = problem_of(views, channels_are_rows=op.right_transpose is not None)
    return build(views, problem, choose_tiling(problem, chip))


@register(tpu.W8A16MatMulOp, tpu.W4A16MatMulOp, tpu.F8A16MatMulOp)
def build_a16_matmul(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """The layers with quantized weights: codes, and scales and zero points of groups."""
    assert isinstance(op, tpu.A16MatMul)
    x, codes, scale, *others = operands
    zero = None if op.zero is None else others.pop(0)
    bias = None if op.bias is None else others.pop(0)
    views = MatMulViews(x, codes, results[0], scale, zero, bias)
    problem = problem_of(views, channels_are_rows=True, code_format=op.code_format)
    return build(views, problem, choose_tiling(problem, chip))


def problem_of(
    views: MatMulViews,
    *,
    channels_are_rows: bool,
    batches: int = 1,
    epilogue: Epilogue = NO_EPILOGUE,
    code_format: CodeFormat = CodeFormat.I8,
) -> Problem:
    """The sizes and types of a multiplication, as the tilings see them."""
    x, weight = views.x, views.weight
    n = weight.rows // batches if channels_are_rows else weight.cols
    groups = 1 if views.scale is None else views.scale.rows * views.scale.cols // n
    return Problem(
        m=x.rows // batches,
        n=n,
        k=x.cols,
        element=x.element,
        result=views.result.element,
        x_pitch_bytes=x.pitch_bytes,
        scale=None if views.scale is None else views.scale.element,
        code_format=code_format,
        group=0 if groups == 1 else x.cols // groups,
        zero_point=views.zero is not None,
        bias=None if views.bias is None else views.bias.element,
        channels_are_rows=channels_are_rows,
        batches=batches,
        epilogue=epilogue,
    )


def build(views: MatMulViews, problem: Problem, tiling: Tiling) -> func.FuncOp:
    """The kernel with that tiling; a problem with batches has stacks of matrices as views."""
    optional: list[GlobalType] = []
    for groups in (views.scale, views.zero):
        if groups is not None:
            optional.append(groups.reshaped(problem.n, problem.groups(problem.k)))
    if views.bias is not None:
        optional.append(views.bias.reshaped(*bias_shape(problem, tiling)))
    builder = KernelBuilder(
        [
            (views.x.global_type(), "read"),
            (views.weight.global_type(), "read"),
            *((view, "read") for view in optional),
            (views.result.global_type(), "write"),
        ]
    )
    x, weight, *others, result = builder.arguments
    scale = others.pop(0) if views.scale is not None else None
    zero = others.pop(0) if views.zero is not None else None
    bias = others.pop(0) if views.bias is not None else None
    emit(builder, MatMulArguments(x, weight, result, scale, zero, bias), problem, tiling)
    return builder.finish("matmul")


def bias_shape(problem: Problem, tiling: Tiling) -> tuple[int, int]:
    """The shape that the kernel views the bias in: a column where channels are left, else a row."""
    return (problem.n, 1) if tiling.channels_left else (1, problem.n)


def emit(
    builder: KernelBuilder,
    arguments: MatMulArguments,
    problem: Problem,
    tiling: Tiling,
    epilogue: EmitEpilogue | None = None,
) -> None:
    """Append the loop nest of a multiplication; `problem.epilogue` says what `epilogue` costs."""
    _MatMulEmitter(builder, arguments, problem, tiling, epilogue).emit()


@dataclass(frozen=True)
class _Groups:
    """The scales, and zero points, of a tile of channels; none where the weight is dense."""

    scale: SSAValue | None
    zero: SSAValue | None


class _MatMulEmitter:
    """Writes the loop nest of one problem."""

    def __init__(
        self,
        builder: KernelBuilder,
        arguments: MatMulArguments,
        problem: Problem,
        tiling: Tiling,
        epilogue: EmitEpilogue | None,
    ) -> None:
        self.builder = builder
        self.problem = problem
        self.tiling = tiling
        self.epilogue = epilogue
        self.tiles: Buffers = buffers(problem, tiling)
        self.x, self.weight, self.result = arguments.x, arguments.weight, arguments.result
        self.scale, self.zero, self.bias = arguments.scale, arguments.zero, arguments.bias
        self.splits = tiling.tk < problem.k
        self.batch: int | SSAValue = 0

    def emit(self) -> None:
        with self._steps(self.problem.batches, 1) as self.batch:
            if self.tiling.channels_left:
                self._emit_channels_left()
            else:
                self._emit_rows_left()

    def _emit_channels_left(self) -> None:
        x = None if self.splits else self._load_x(0, 0)
        with self._steps(self.problem.n, self.tiling.tn) as n:
            self._emit_tile(0, n, x, None)

    def _emit_rows_left(self) -> None:
        weight = None
        if self.tiling.tn >= self.problem.n and not self.splits:
            weight = self._load_weight(0, 0, self._load_groups(0))
        with self._steps(self.problem.m, self.tiling.tm) as m:
            x = None if self.splits else self._load_x(m, 0)
            with self._steps(self.problem.n, self.tiling.tn) as n:
                self._emit_tile(m, n, x, weight)

    def _emit_tile(
        self,
        m: int | SSAValue,
        n: int | SSAValue,
        x: SSAValue | None,
        weight: SSAValue | None,
    ) -> None:
        """One tile of the result. `x` and `weight` are given where they are resident."""
        builder, tiles = self.builder, self.tiles
        bias = self._load_bias(n)
        x = self._load_x(m, 0) if x is None else x
        groups = self._load_groups(n) if weight is None else _Groups(None, None)
        weight = self._load_weight(n, 0, groups) if weight is None else weight
        left, right = self._sides(x, weight)
        product = builder.mm(left, right, tiles.product, transpose_right=self._transpose_right)
        if self.splits:
            # The loop counts in units of k, of which codes and scales have a whole number each.
            unit = self.problem.depth_unit
            first, last = self.tiling.tk // unit, count(self.problem.k, unit)
            with builder.loop(last, first, start=first, carried=[product]) as loop:
                x = self._load_x(m, builder.mul(loop.index, unit))
                left, right = self._sides(x, self._load_weight(n, loop.index, groups))
                sums = builder.mm_accumulate(
                    loop.carried[0], 0, left, right, transpose_right=self._transpose_right
                )
                loop.carry(sums)
            product = loop.results[0]
        tile = self._finish(product, bias)
        builder.store(tile, self.result, self._row(m, self.problem.m), n)

    def _load_bias(self, n: int | SSAValue) -> SSAValue | None:
        """The bias of channels from `n`: a column where channels are left, else a row."""
        if self.bias is None:
            return None
        assert self.tiles.bias is not None
        row, col = (n, 0) if self.tiling.channels_left else (0, n)
        return self.builder.load(self.bias, row, col, self.tiles.bias)

    def _finish(self, product: SSAValue, bias: SSAValue | None) -> SSAValue:
        """Add the bias, round once, and turn channels back into columns."""
        builder, tiles = self.builder, self.tiles
        rounded = product
        if self.epilogue is not None:
            if bias is not None:
                product = builder.binary(bdc.BinaryFunction.ADD, product, bias, tiles.product)
            rounded = self.epilogue(product)
            if rounded.type != tiles.rounded:
                rounded = builder.unary(bdc.UnaryFunction.CAST, rounded, tiles.rounded)
        elif bias is not None:
            rounded = builder.binary(bdc.BinaryFunction.ADD, product, bias, tiles.rounded)
        elif tiles.product != tiles.rounded:
            rounded = builder.unary(bdc.UnaryFunction.CAST, product, tiles.rounded)
        if self.tiling.channels_left:
            return builder.transpose(rounded, tiles.output)
        return rounded

    @property
    def _transpose_right(self) -> bool:
        return self.problem.channels_are_rows

    def _sides(self, x: SSAValue, weight: SSAValue) -> tuple[SSAValue, SSAValue]:
        return (weight, x) if self.tiling.channels_left else (x, weight)

    def _load_x(self, m: int | SSAValue, k: int | SSAValue) -> SSAValue:
        rows = self.problem.m
        limit = self._limit(rows, self.tiling.tm)
        return self.builder.load(self.x, self._row(m, rows), k, self.tiles.x, limit=limit)

    def _load_groups(self, n: int | SSAValue) -> _Groups:
        """The scales and zero points of channels from `n`, for all of k."""
        load, tiles = self.builder.load, self.tiles
        if self.scale is None or tiles.scale is None:
            return _Groups(None, None)
        scale = load(self.scale, n, 0, tiles.scale)
        if self.zero is None or tiles.zero is None:
            return _Groups(scale, None)
        return _Groups(scale, load(self.zero, n, 0, tiles.zero))

    def _load_weight(self, n: int | SSAValue, part: int | SSAValue, groups: _Groups) -> SSAValue:
        """The weight tile of channels from `n` and depths from `part * depth_unit`, dequantized."""
        builder, tiles, problem = self.builder, self.tiles, self.problem
        if groups.scale is not None:
            held = problem.code_format.row_bytes(problem.depth_unit)
            codes = builder.load(self.weight, n, builder.mul(part, held), tiles.stored)
            return builder.dequant(
                codes,
                self._groups_of(groups.scale, part),
                tiles.weight,
                code_format=problem.code_format,
                zero=None if groups.zero is None else self._groups_of(groups.zero, part),
            )
        if problem.channels_are_rows:
            row, col, rows, tile_rows = n, part, problem.n, self.tiling.tn
        else:
            row, col, rows, tile_rows = part, n, problem.k, self.tiling.tk
        limit = self._limit(rows, tile_rows)
        return builder.load(self.weight, self._row(row, rows), col, tiles.stored, limit=limit)

    def _groups_of(self, tile: SSAValue, part: int | SSAValue) -> SSAValue:
        """The columns of `tile`, scales or zero points, for depths from `part * depth_unit`."""
        builder, problem = self.builder, self.problem
        if not problem.group or not self.splits:
            return tile
        kind = local_type(tile)
        width = LocalType.of(kind.rows, problem.groups(self.tiling.tk), kind.element)
        return builder.view(tile, builder.mul(part, problem.groups(problem.depth_unit)), width)

    def _row(self, row: int | SSAValue, rows: int) -> SSAValue:
        """`row` of the current matrix in a stack of matrices of `rows` rows."""
        builder = self.builder
        if self.problem.batches == 1:
            return builder.index(row)
        return builder.add(builder.mul(self.batch, rows), row)

    def _limit(self, rows: int, tile_rows: int) -> SSAValue | None:
        """Where tiles of `tile_rows` must be cut so as not to reach into the next matrix."""
        if self.problem.batches == 1 or rows % tile_rows == 0:
            return None
        return self.builder.mul(self.builder.add(self.batch, 1), rows)

    @contextmanager
    def _steps(self, total: int, tile: int) -> Generator[int | SSAValue]:
        """`for index = 0 to total step tile`, or just 0 where one tile is all."""
        if tile >= total:
            yield 0
            return
        with self.builder.loop(total, tile) as loop:
            yield loop.index
