"""Steps of a walk for the `bdc` ops.

Each adds `(rows, cols, depth, dst offset, dst stride, a offset, a stride, b offset, b stride)` to
`walk.bdc`, in the meaning of `backends.encoding.records`.
"""

from __future__ import annotations

from tilewright.backends.encoding.records import BMode
from tilewright.dialects import bdc
from tilewright.dialects.errors import InternalError
from tilewright.dialects.scopes import where_of
from tilewright.passes.kernels.commands import BdcOp, b_mode, local_type
from tilewright.passes.kernels.walk import Step, Walk, empty, meet


def compute(walk: Walk, op: BdcOp, number: int) -> Step:
    """The step of `op`, which is command op `number` of its kernel."""
    match op:
        case bdc.FillOp():
            return _fill(walk, op, number)
        case bdc.MmOp():
            return _mm(walk, op, number)
        case bdc.MmAccumulateOp():
            return _mm_accumulate(walk, op, number)
        case bdc.DequantOp():
            return _dequant(walk, op, number)
        case bdc.BinaryOp():
            return _binary(walk, op, number)
        case bdc.UnaryOp() | bdc.ScalarOp() | bdc.ReduceOp() | bdc.TransposeOp():
            return _one_operand(walk, op, number)
        case bdc.RotateOp():
            return _rotate(walk, op, number)
        case bdc.QuantizeOp() | bdc.DequantizeOp():
            return _one_scale(walk, op, number)
        case bdc.RequantOp():
            return _requant(walk, op, number)


def view(walk: Walk, op: bdc.ViewOp) -> Step:
    """The step of a `bdc.view`, which is no command: its tile moved by some columns."""
    values = walk.values
    tile, col, result = walk.slot(op.tile), walk.slot(op.col), walk.slot(op.result)
    width, size = local_type(op.result).cols, local_type(op.result).element.size_bytes

    def step() -> None:
        ring, serial, offset, stride, rows, cols, uniform = values[tile]
        at = values[col]
        if at < 0 or cols - at < 1:
            empty(op, rows, cols - at)
        narrow = min(cols - at, width)
        values[result] = (ring, serial, offset + at * size, stride, rows, narrow, uniform)

    return step


def _fill(walk: Walk, op: bdc.FillOp, number: int) -> Step:
    values, emit, order = walk.values, walk.bdc.append, walk.order.append
    result, take, tile = walk.slot(op.result), walk.taker(op), local_type(op.result)
    rows, cols, stride = tile.rows, tile.cols, tile.slot_bytes

    def step() -> None:
        ring, serial, offset = take()
        values[result] = (ring, serial, offset, stride, rows, cols, True)
        emit((rows, cols, 0, offset, stride, 0, 0, 0, 0))
        order(number)

    return step


def _mm(walk: Walk, op: bdc.MmOp, number: int) -> Step:
    values, emit, order = walk.values, walk.bdc.append, walk.order.append
    left, right, result = walk.slot(op.left), walk.slot(op.right), walk.slot(op.result)
    take, read = walk.taker(op), walk.reader(op)
    stride, transposed = local_type(op.result).slot_bytes, op.transpose_right is not None

    def step() -> None:
        ring, serial, offset = take()
        a, a_stride, rows, a_depth, a_uniform = read(values[left])
        b, b_stride, b_rows, b_cols, b_uniform = read(values[right])
        cols, depth = (b_rows, b_cols) if transposed else (b_cols, b_rows)
        if depth != a_depth:
            depth = meet(op, a_depth, depth, a_uniform or b_uniform)
        values[result] = (ring, serial, offset, stride, rows, cols, a_uniform and b_uniform)
        emit((rows, cols, depth, offset, stride, a, a_stride, b, b_stride))
        order(number)

    return step


def _mm_accumulate(walk: Walk, op: bdc.MmAccumulateOp, number: int) -> Step:
    """The sums shrink to the left operand's rows and, if the right one was cut, end with it."""
    values, emit, order = walk.values, walk.bdc.append, walk.order.append
    sums, col, result = walk.slot(op.sums), walk.slot(op.col), walk.slot(op.result)
    left, right, read = walk.slot(op.left), walk.slot(op.right), walk.reader(op)
    transposed, size = op.transpose_right is not None, local_type(op.sums).element.size_bytes
    right_type = local_type(op.right)
    full = right_type.rows if transposed else right_type.cols

    def step() -> None:
        tile, at = values[sums], values[col]
        dst, stride, sum_rows, sum_cols, uniform = read(tile)
        a, a_stride, rows, a_depth, a_uniform = read(values[left])
        b, b_stride, b_rows, b_cols, b_uniform = read(values[right])
        cols, depth = (b_rows, b_cols) if transposed else (b_cols, b_rows)
        if depth != a_depth:
            depth = meet(op, a_depth, depth, a_uniform or b_uniform)
        if rows > sum_rows or at < 0 or at + cols > sum_cols:
            raise InternalError(
                f"{op.name}: {rows}x{cols} products at column {at} do not fit sums of "
                f"{sum_rows}x{sum_cols}",
                where=where_of(op),
            )
        if rows != sum_rows:
            meet(op, rows, sum_rows, uniform)
        width = at + cols if cols < full else sum_cols
        values[result] = (*tile[:4], rows, width, uniform)
        emit((rows, cols, depth, dst + at * size, stride, a, a_stride, b, b_stride))
        order(number)

    return step


def _dequant(walk: Walk, op: bdc.DequantOp, number: int) -> Step:
    """A row of codes that was cut is as wide as what is left of it; so are its groups."""
    values, commands, order = walk.values, walk.bdc, walk.order.append
    codes, scale, result = walk.slot(op.codes), walk.slot(op.scale), walk.slot(op.result)
    zero = None if op.zero is None else walk.slot(op.zero)
    take, read, kind = walk.taker(op), walk.reader(op), local_type(op.result)
    stride, width, group = kind.slot_bytes, kind.cols, op.group
    a_byte = 8 // op.format.data.bits

    def step() -> None:
        ring, serial, offset = take()
        a, a_stride, rows, held, a_uniform = read(values[codes])
        b, b_stride, b_rows, groups, b_uniform = read(values[scale])
        either = a_uniform or b_uniform
        if rows != b_rows:
            rows = meet(op, rows, b_rows, either)
        cols = min(held * a_byte, width)
        if group and cols != groups * group:
            cols = meet(op, cols, groups * group, either)
        if zero is not None:
            c, c_stride, c_rows, c_cols, _ = read(values[zero])
            if (c_rows, c_cols) != (b_rows, groups):
                meet(op, c_rows * c_cols, b_rows * groups, False)
            walk.zero_points.append((len(commands), c, c_stride))
        values[result] = (ring, serial, offset, stride, rows, cols, a_uniform and b_uniform)
        commands.append((rows, cols, group, offset, stride, a, a_stride, b, b_stride))
        order(number)

    return step


def _binary(walk: Walk, op: bdc.BinaryOp, number: int) -> Step:
    values, emit, order, mode = walk.values, walk.bdc.append, walk.order.append, b_mode(op)
    left, right, result = walk.slot(op.left), walk.slot(op.right), walk.slot(op.result)
    take, read, stride = walk.taker(op), walk.reader(op), local_type(op.result).slot_bytes

    def step() -> None:
        ring, serial, offset = take()
        a, a_stride, rows, cols, a_uniform = read(values[left])
        b, b_stride, b_rows, b_cols, b_uniform = read(values[right])
        either = a_uniform or b_uniform
        if mode != BMode.ROW and rows != b_rows:
            rows = meet(op, rows, b_rows, either)
        if mode != BMode.COLUMN and cols != b_cols:
            cols = meet(op, cols, b_cols, either)
        values[result] = (ring, serial, offset, stride, rows, cols, a_uniform and b_uniform)
        emit((rows, cols, 0, offset, stride, a, a_stride, b, b_stride))
        order(number)

    return step


def _one_scale(walk: Walk, op: bdc.QuantizeOp | bdc.DequantizeOp, number: int) -> Step:
    """Every element meets the one scale, which each lane has."""
    values, emit, order = walk.values, walk.bdc.append, walk.order.append
    x, scale, result = walk.slot(op.x), walk.slot(op.scale), walk.slot(op.result)
    take, read, stride = walk.taker(op), walk.reader(op), local_type(op.result).slot_bytes

    def step() -> None:
        ring, serial, offset = take()
        a, a_stride, rows, cols, uniform = read(values[x])
        b, b_stride, *_ = read(values[scale])
        values[result] = (ring, serial, offset, stride, rows, cols, uniform)
        emit((rows, cols, 0, offset, stride, a, a_stride, b, b_stride))
        order(number)

    return step


def _requant(walk: Walk, op: bdc.RequantOp, number: int) -> Step:
    """A row of sums meets its row of the table."""
    values, emit, order = walk.values, walk.bdc.append, walk.order.append
    sums, table, result = walk.slot(op.sums), walk.slot(op.table), walk.slot(op.result)
    take, read, stride = walk.taker(op), walk.reader(op), local_type(op.result).slot_bytes

    def step() -> None:
        ring, serial, offset = take()
        a, a_stride, rows, cols, a_uniform = read(values[sums])
        b, b_stride, b_rows, _, b_uniform = read(values[table])
        if rows != b_rows:
            rows = meet(op, rows, b_rows, a_uniform or b_uniform)
        values[result] = (ring, serial, offset, stride, rows, cols, a_uniform and b_uniform)
        emit((rows, cols, 0, offset, stride, a, a_stride, b, b_stride))
        order(number)

    return step


def _one_operand(
    walk: Walk, op: bdc.UnaryOp | bdc.ScalarOp | bdc.ReduceOp | bdc.TransposeOp, number: int
) -> Step:
    values, emit, order = walk.values, walk.bdc.append, walk.order.append
    x, result = walk.slot(op.x), walk.slot(op.result)
    take, read, stride = walk.taker(op), walk.reader(op), local_type(op.result).slot_bytes
    reduced, turned = isinstance(op, bdc.ReduceOp), isinstance(op, bdc.TransposeOp)

    def step() -> None:
        ring, serial, offset = take()
        a, a_stride, rows, cols, uniform = read(values[x])
        if reduced:
            values[result] = (ring, serial, offset, stride, rows, 1, uniform)
        elif turned:
            values[result] = (ring, serial, offset, stride, cols, rows, uniform)
        else:
            values[result] = (ring, serial, offset, stride, rows, cols, uniform)
        emit((rows, cols, 0, offset, stride, a, a_stride, 0, 0))
        order(number)

    return step


def _rotate(walk: Walk, op: bdc.RotateOp, number: int) -> Step:
    values, emit, order = walk.values, walk.bdc.append, walk.order.append
    x, result, width = walk.slot(op.x), walk.slot(op.result), op.rotary_dim.value.data
    take, read, stride = walk.taker(op), walk.reader(op), local_type(op.result).slot_bytes

    def step() -> None:
        ring, serial, offset = take()
        a, a_stride, rows, cols, uniform = read(values[x])
        if cols < width:
            raise InternalError(
                f"{op.name}: {cols} columns are left of the {width} that turn", where=where_of(op)
            )
        values[result] = (ring, serial, offset, stride, rows, cols, uniform)
        emit((rows, cols, width, offset, stride, a, a_stride, 0, 0))
        order(number)

    return step
