"""Steps of the `bdc` ops, on balls.

Ops work on the actual extents of their operands; a uniform tile meets a smaller one in the size of
that one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from tilewright.backends.reference import primitives
from tilewright.backends.reference.balls import EXACT, Ball
from tilewright.backends.reference.composition import dequantized, rotated
from tilewright.backends.reference.constants import constant, factor
from tilewright.backends.reference.int8_ops import (
    added,
    dequantized_by_one,
    quantized,
    requantized,
    summed,
    transposed,
)
from tilewright.backends.reference.kernels.state import (
    Result,
    State,
    Step,
    empty,
    local_type,
    meet,
)
from tilewright.backends.reference.kernels.tiles import Place, Tile
from tilewright.backends.reference.numerics import plain_codes
from tilewright.dialects import bdc
from tilewright.dialects.errors import IRError
from tilewright.dialects.scopes import where_of


def view(op: bdc.ViewOp) -> Step:
    """A range of columns of the same buffer."""
    source, col, result, width = op.tile, op.col, op.result, local_type(op.result).cols

    def step(state: State) -> None:
        tile: Tile = state.values[source]
        at = state.values[col]
        if at < 0 or tile.cols - at < 1:
            empty(op, tile.rows, tile.cols - at)
        cols = min(tile.cols - at, width)
        state.values[result] = Tile(tile.buffer, tile.col + at, tile.rows, cols, tile.uniform)

    return step


def fill(op: bdc.FillOp) -> Step:
    """A uniform tile."""
    result, value = Result(op), op.value.value.data
    shape = result.rows, result.cols

    def step(state: State) -> None:
        state.make(result, (), lambda: Ball(np.full(shape, value), EXACT), uniform=True)

    return step


def mm(op: bdc.MmOp) -> Step:
    """A product; a uniform operand's depth is the other's."""
    one, other, result = op.left, op.right, Result(op)
    turned, integers = op.transpose_right is not None, not Result(op).element.is_float

    def step(state: State) -> None:
        left: Tile = state.values[one]
        right: Tile = state.values[other]
        depth = _depth(op, left, right, turned=turned)
        state.make(
            result,
            (left, right),
            lambda: _product(state, left, right, depth, turned=turned, integers=integers),
            uniform=left.uniform and right.uniform,
        )

    return step


def _depth(op: bdc.MmOp | bdc.MmAccumulateOp, left: Tile, right: Tile, *, turned: bool) -> int:
    depth = right.cols if turned else right.rows
    return meet(op, left.cols, depth, uniform=left.uniform or right.uniform)


def _product(
    state: State, left: Tile, right: Tile, depth: int, *, turned: bool, integers: bool
) -> Ball:
    """A product of floats, or of int8 codes, which is exact."""
    wide = right.ball(right.rows, depth) if turned else right.ball(depth, right.cols)
    if integers:
        return summed(left.ball(left.rows, depth), wide, transpose_right=turned)
    return primitives.matmul(
        state.arithmetic, left.ball(left.rows, depth), wide, transpose_right=turned
    )


def mm_accumulate(op: bdc.MmAccumulateOp) -> Step:
    """Adds a product to the tile of sums, in its memory.

    The sums shrink to the left operand's rows and, if the right one was cut, end with it.
    """
    sums_value, col, one, other, result = op.sums, op.col, op.left, op.right, op.result
    turned, kind = op.transpose_right is not None, local_type(op.right)
    full, element = kind.rows if turned else kind.cols, local_type(op.sums).element
    integers = not element.is_float

    def step(state: State) -> None:
        values, m = state.values, state.arithmetic
        sums: Tile = values[sums_value]
        left: Tile = values[one]
        right: Tile = values[other]
        at = values[col]
        rows, cols = left.rows, right.rows if turned else right.cols
        depth = _depth(op, left, right, turned=turned)
        if rows > sums.rows or at < 0 or at + cols > sums.cols:
            raise IRError(
                f"{op.name}: {rows}x{cols} products at column {at} do not fit sums of "
                f"{sums.rows}x{sums.cols}",
                where=where_of(op),
            )
        if rows != sums.rows:
            meet(op, rows, sums.rows, uniform=sums.uniform)
        part = Tile(sums.buffer, sums.col + at, rows, cols, sums.uniform)
        product = _product(state, left, right, depth, turned=turned, integers=integers)
        total = added(part.ball(), product) if integers else primitives.add(m, part.ball(), product)
        total = primitives.store(m, total, element)
        _overwrite(state, part, element.size_bytes)
        if not sums.buffer.lost:
            sums.buffer.write(slice(0, rows), slice(part.col, part.col + cols), total)
        width = at + cols if cols < full else sums.cols
        values[result] = Tile(sums.buffer, sums.col, rows, width, sums.uniform)

    return step


def _overwrite(state: State, part: Tile, size: int) -> None:
    """What else lies where `part` is written is destroyed."""
    place = part.buffer.place
    if state.memory is not None and place is not None:
        start = place.offset + part.col * size
        written = Place(start, part.cols * size, place.stride, part.rows, place.lanes, False)
        state.memory.overwrite(written, part.buffer)


def dequant(op: bdc.DequantOp) -> Step:
    """Codes times their group's scale, rounded to the result's type in every arithmetic."""
    codes_value, scale_value, zero_value, result = op.codes, op.scale, op.zero, Result(op)
    code_format, group = op.format.data, op.group

    def step(state: State) -> None:
        codes: Tile = state.values[codes_value]
        scale: Tile = state.values[scale_value]
        uniform = codes.uniform or scale.uniform
        rows = meet(op, codes.rows, scale.rows, uniform=uniform)
        cols = min(codes.cols * 8 // code_format.bits, result.cols)
        groups = cols // group if group else 1
        if group:
            cols = group * meet(op, groups, scale.cols, uniform=uniform)
        zero: Tile | None = None if zero_value is None else state.values[zero_value]

        def compute() -> Ball:
            held = codes.ball(rows).value
            points = None if zero is None else zero.ball(rows, groups).value
            plain = plain_codes(held.astype(np.int8), code_format, cols)
            made = dequantized(
                plain,
                scale.ball(rows, groups),
                result.element,
                None if points is None else points.astype(np.int8),
                code_format,
            )
            # What is lost is NaN, also where bytes are meant: the codes in them are lost.
            lost = np.repeat(np.isnan(held), 8 // code_format.bits, axis=1)[:, :cols]
            if points is not None:
                lost = lost | np.repeat(np.isnan(points), cols // groups, axis=1)
            return Ball(np.where(lost, np.nan, made.value), made.radius)

        tiles = (codes, scale) if zero is None else (codes, scale, zero)
        state.make(result, tiles, compute, uniform=codes.uniform and scale.uniform)

    return step


def quantize(op: bdc.QuantizeOp) -> Step:
    """Floats to codes, by one scale that all lanes have."""
    return _with_one_scale(op, quantized)


def dequantize(op: bdc.DequantizeOp) -> Step:
    """Codes to floats, by one scale that all lanes have."""
    return _with_one_scale(op, dequantized_by_one)


def _with_one_scale(
    op: bdc.QuantizeOp | bdc.DequantizeOp, function: Callable[[Ball, Ball], Ball]
) -> Step:
    source, one, result = op.x, op.scale, Result(op)

    def step(state: State) -> None:
        x: Tile = state.values[source]
        scale: Tile = state.values[one]
        state.make(
            result, (x, scale), lambda: function(x.ball(), scale.ball(1, 1)), uniform=x.uniform
        )

    return step


def requant(op: bdc.RequantOp) -> Step:
    """Rows of sums to codes, each by its row of the table."""
    source, numbers, result = op.sums, op.table, Result(op)

    def step(state: State) -> None:
        sums: Tile = state.values[source]
        table: Tile = state.values[numbers]
        rows = meet(op, sums.rows, table.rows, uniform=sums.uniform or table.uniform)
        state.make(
            result,
            (sums, table),
            lambda: transposed(requantized(transposed(sums.ball(rows)), table.ball(rows))),
            uniform=sums.uniform and table.uniform,
        )

    return step


def binary(op: bdc.BinaryOp) -> Step:
    """Two tiles; the right one may be one row for all, or one column for all."""
    one, other, result = op.left, op.right, Result(op)
    function = primitives.BINARY[op.function.data]
    same = _layout(one) == _layout(other)
    row = not same and local_type(other).replicated
    column = not same and not row

    def step(state: State) -> None:
        left: Tile = state.values[one]
        right: Tile = state.values[other]
        rows, cols, either = left.rows, left.cols, left.uniform or right.uniform
        if not row:
            rows = meet(op, rows, right.rows, uniform=either)
        if not column:
            cols = meet(op, cols, right.cols, uniform=either)

        def compute() -> Ball:
            met = right.ball(1 if row else rows, 1 if column else cols)
            return function(state.arithmetic, left.ball(rows, cols), met)

        state.make(result, (left, right), compute, uniform=left.uniform and right.uniform)

    return step


def _layout(value: SSAValue) -> tuple[int, int, bool]:
    kind = local_type(value)
    return kind.rows, kind.cols, kind.replicated


def unary(op: bdc.UnaryOp) -> Step:
    """A function of each element."""
    function = primitives.UNARY[op.function.data]
    return _one_operand(op, lambda state, ball: function(state.arithmetic, ball))


def scalar(op: bdc.ScalarOp) -> Step:
    """Each element and a constant."""
    name, value = str(op.function.data), op.value.value.data
    function, known = primitives.BINARY[name], factor if name == "mul" else constant

    def combine(state: State, ball: Ball) -> Ball:
        return function(state.arithmetic, ball, known(state.arithmetic, value))

    return _one_operand(op, combine)


def reduce(op: bdc.ReduceOp) -> Step:
    """Each row to one element."""
    function = primitives.REDUCE[op.function.data]
    return _one_operand(op, lambda state, ball: function(state.arithmetic, ball))


def transpose(op: bdc.TransposeOp) -> Step:
    """Rows to columns."""

    def turned(state: State, ball: Ball) -> Ball:
        del state
        radius = ball.radius if ball.is_exact else ball.radii.T.copy()
        return Ball(ball.value.T.copy(), radius)

    return _one_operand(op, turned)


def rotate(op: bdc.RotateOp) -> Step:
    """Pairs of columns by a quarter turn."""
    width, interleaved = op.rotary_dim.value.data, bool(op.interleaved.value.data)

    def turned(state: State, ball: Ball) -> Ball:
        del state
        if ball.value.shape[1] < width:
            raise IRError(
                f"{op.name}: {ball.value.shape[1]} columns are left of the {width} that turn",
                where=where_of(op),
            )
        return rotated(ball, rotary_dim=width, interleaved=interleaved)

    return _one_operand(op, turned)


def _one_operand(
    op: bdc.UnaryOp | bdc.ScalarOp | bdc.ReduceOp | bdc.TransposeOp | bdc.RotateOp,
    function: Callable[[State, Ball], Ball],
) -> Step:
    source, result = op.x, Result(op)

    def step(state: State) -> None:
        tile: Tile = state.values[source]
        state.make(result, (tile,), lambda: function(state, tile.ball()), uniform=tile.uniform)

    return step
