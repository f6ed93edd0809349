"""The matrix unit on int8: blocks of dot products in int32, which are exact.

Operands are widened to int16 in scratch rows (a few rows of the other operand where it lies), and
pairs of products added in int32: what an x86 `pmaddwd` does. Sums wrap at 32 bits, so that the
order of additions never shows. Functions take a range of rows, so that threads can share a command.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.backends.simulator.conversions import JIT, look_ahead, pointer, row_address

VECTOR = 32
"""Products of a step: as many int16 as are 64 bytes."""

BLOCK_ROWS, BLOCK_COLS = 6, 4
"""Dot products of a block: 24 sums and 5 operands fit 32 registers."""

DIRECT_ROWS = 4
"""Dot products of a block where the left operand lies in local memory."""

CACHED_ROWS = 4 * BLOCK_ROWS
"""Rows of the left operand that meet all of the right one while they are in the cache."""

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_CODES, _WIDE = ir.VectorType(_I8, VECTOR), ir.VectorType(_I16, VECTOR)
_SUMS = ir.VectorType(_I32, VECTOR // 2)


def has_native_pairs() -> bool:
    """Whether the compiled code may use the 512-bit `pmaddwd`; Numba may be told not to."""
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is not None:
        return "+avx512bw" in features.split(",")
    if os.environ.get("NUMBA_CPU_NAME") == "generic":
        return False
    return bool(get_host_cpu_features().get("avx512bw", False))


def _add_pairs(builder: Any, left: Any, right: Any, addend: Any, native: bool) -> Any:
    """`addend[i] + left[2 i] * right[2 i] + left[2 i + 1] * right[2 i + 1]`."""
    if native:
        kind = ir.FunctionType(_SUMS, [_WIDE, _WIDE])
        name = "llvm.x86.avx512.pmaddw.d.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.add(builder.call(function, [left, right]), addend)
    whole = ir.VectorType(_I32, VECTOR)
    products = builder.mul(builder.sext(left, whole), builder.sext(right, whole))
    even, odd = (
        builder.shuffle_vector(products, products, ir.Constant(_SUMS, list(range(i, VECTOR, 2))))
        for i in (0, 1)
    )
    return builder.add(builder.add(even, odd), addend)


def _load(builder: Any, address: Any, vector: Any) -> Any:
    value = builder.load(builder.inttoptr(address, vector.as_pointer()), typ=vector)
    value.align = 1
    return value


def _load_codes(builder: Any, address: Any) -> Any:
    return builder.sext(_load(builder, address, _CODES), _WIDE)


def _load_first_codes(builder: Any, address: Any, count: Any) -> Any:
    """The first `count` codes; zeros for the others, whose memory is not touched."""
    lane = ir.Constant(_CODES, list(range(VECTOR)))
    first = builder.insert_element(
        ir.Constant(_CODES, ir.Undefined), builder.trunc(count, _I8), _I32(0)
    )
    places = ir.Constant(ir.VectorType(_I32, VECTOR), [0] * VECTOR)
    mask = builder.icmp_unsigned("<", lane, builder.shuffle_vector(first, first, places))
    place = builder.inttoptr(address, _CODES.as_pointer())
    kind = ir.FunctionType(_CODES, [place.type, _I32, mask.type, _CODES])
    name = f"llvm.masked.load.v{VECTOR}i8.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    codes = builder.call(function, [place, _I32(1), mask, ir.Constant(_CODES, None)])
    return builder.sext(codes, _WIDE)


def _dot_loop(
    builder: Any,
    lefts: list[Any],
    rights: list[Any],
    steps: Any,
    native: bool,
    *,
    ahead: Any = None,
) -> list[list[Any]]:
    """Partial sums of `steps` vectors from every left with every right address.

    Rows are int16, but left ones codes where `ahead` says how far from each is one to look for.
    """
    codes = ahead is not None
    before = builder.block
    body = builder.append_basic_block("dot.body")
    after = builder.append_basic_block("dot.after")
    zero = ir.Constant(_SUMS, None)
    builder.cbranch(builder.icmp_signed(">", steps, _I64(0)), body, after)

    builder.position_at_end(body)
    step = builder.phi(_I64)
    sums = [[builder.phi(_SUMS) for _ in rights] for _ in lefts]
    wide_at = builder.mul(step, _I64(2 * VECTOR))
    left_at = builder.mul(step, _I64(VECTOR)) if codes else wide_at
    columns = [_load(builder, builder.add(right, wide_at), _WIDE) for right in rights]
    new: list[list[Any]] = []
    for left, row in zip(lefts, sums, strict=True):
        place = builder.add(left, left_at)
        value = _load_codes(builder, place) if codes else _load(builder, place, _WIDE)
        if codes:
            look_ahead(builder, builder.add(place, ahead))
        pairs = zip(columns, row, strict=True)
        new.append([_add_pairs(builder, value, c, addend, native) for c, addend in pairs])
    following = builder.add(step, _I64(1))
    builder.cbranch(builder.icmp_signed("<", following, steps), body, after)

    step.add_incoming(_I64(0), before)
    step.add_incoming(following, body)
    builder.position_at_end(after)
    result: list[list[Any]] = []
    for row, new_row in zip(sums, new, strict=True):
        result.append([])
        for old, value in zip(row, new_row, strict=True):
            old.add_incoming(zero, before)
            old.add_incoming(value, body)
            final = builder.phi(_SUMS)
            final.add_incoming(zero, before)
            final.add_incoming(value, body)
            result[-1].append(final)
    return result


def _store_sums(builder: Any, sums: list[list[Any]], out: Any) -> None:
    for i, value in enumerate(value for row in sums for value in row):
        total, width = value, VECTOR // 2
        while width > 1:
            width //= 2
            halves = ir.VectorType(_I32, width)
            low, high = (
                builder.shuffle_vector(
                    total, total, ir.Constant(halves, list(range(start, start + width)))
                )
                for start in (0, width)
            )
            total = builder.add(low, high)
        place = builder.inttoptr(builder.add(out, _I64(4 * i)), _I32.as_pointer())
        builder.store(builder.extract_element(total, _I32(0)), place).align = 4


def make_packed_block(*, native: bool) -> Any:
    """`packed_block(left, right, pitch, steps, out)`: `out[i, j] = dot(left row i, right row j)`.

    For `BLOCK_ROWS` x `BLOCK_COLS` int16 rows, `pitch` bytes apart and `steps` vectors long.
    """

    @intrinsic
    def block(typing_context: Any, left: Any, right: Any, pitch: Any, steps: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            left, right, pitch, steps, out = arguments
            lefts = [builder.add(left, builder.mul(pitch, _I64(i))) for i in range(BLOCK_ROWS)]
            rights = [builder.add(right, builder.mul(pitch, _I64(j))) for j in range(BLOCK_COLS)]
            _store_sums(builder, _dot_loop(builder, lefts, rights, steps, native), out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), generate

    return block


def make_direct_block(*, native: bool) -> Any:
    """`direct_block(r0, r1, r2, r3, ahead, right, depth, out)`: four rows of codes and an int16
    row, which has zeros from `depth` on to the end of a vector, of one more where it is at an end;
    rows that come next are `ahead` bytes behind.
    """

    @intrinsic
    def block(
        typing_context: Any,
        r0: Any,
        r1: Any,
        r2: Any,
        r3: Any,
        ahead: Any,
        right: Any,
        depth: Any,
        out: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lefts = list(arguments[:DIRECT_ROWS])
            ahead, right, depth, out = arguments[DIRECT_ROWS:]
            rest = builder.and_(depth, _I64(VECTOR - 1))
            whole = builder.sub(depth, rest)
            steps = builder.udiv(whole, _I64(VECTOR))
            sums = _dot_loop(builder, lefts, [right], steps, native, ahead=ahead)
            # One more step over the tail: the int16 row has zeros there.
            column = _load(builder, builder.add(right, builder.mul(whole, _I64(2))), _WIDE)
            for i, left in enumerate(lefts):
                codes = _load_first_codes(builder, builder.add(left, whole), rest)
                sums[i][0] = _add_pairs(builder, codes, column, sums[i][0], native)
            _store_sums(builder, sums, out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return block


packed_block = make_packed_block(native=has_native_pairs())
direct_block = make_direct_block(native=has_native_pairs())


@njit(**JIT)
def pack_code_rows(
    first: Any,
    last: Any,
    rows: Any,
    cols: Any,
    lane_pitch: Any,
    lanes: Any,
    tile: Any,
    stride: Any,
    scratch: Any,
    pitch: Any,
) -> None:
    """Rows `[first, last)` of codes to int16 rows of `pitch` bytes, filled up with zeros.

    Rows from `rows` on are zero.
    """
    for row in range(first, last):
        out = carray(pointer(scratch + row * pitch), pitch // 2, np.int16)
        filled = 0
        if row < rows:
            source = row_address(tile, lane_pitch, lanes, stride, row)
            codes = carray(pointer(source), cols, np.int8)
            for i in range(cols):
                out[i] = codes[i]
            filled = cols
        out[filled:] = np.int16(0)


@njit(**JIT)
def pack_code_columns(
    first: Any,
    last: Any,
    rows: Any,
    cols: Any,
    lane_pitch: Any,
    lanes: Any,
    tile: Any,
    stride: Any,
    scratch: Any,
    pitch: Any,
) -> None:
    """Columns `[first, last)` of codes to int16 rows of `pitch` bytes, filled up with zeros.

    Columns from `cols` on are zero.
    """
    for col in range(first, last):
        out = carray(pointer(scratch + col * pitch), pitch // 2, np.int16)
        out[:] = np.int16(0)
    for row in range(rows):
        source = row_address(tile, lane_pitch, lanes, stride, row)
        codes = carray(pointer(source), cols, np.int8)
        for col in range(first, min(last, cols)):
            carray(pointer(scratch + col * pitch + 2 * row), 1, np.int16)[0] = codes[col]


@njit(**JIT)
def multiply_codes(
    first: Any,
    last: Any,
    rows: Any,
    cols: Any,
    left: Any,
    right: Any,
    pitch: Any,
    accumulate: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
) -> None:
    """Rows `[first, last)` of the product of packed operands, `first` a multiple of `BLOCK_ROWS`.

    Packed operands have whole blocks of rows; what the filling yields is dropped.
    """
    sums = np.empty(BLOCK_ROWS * BLOCK_COLS, np.int32)
    out = sums.ctypes.data
    steps = pitch // (2 * VECTOR)
    for group in range(first, last, CACHED_ROWS):
        for col in range(0, cols, BLOCK_COLS):
            width = min(BLOCK_COLS, cols - col)
            for row in range(group, min(group + CACHED_ROWS, last), BLOCK_ROWS):
                packed_block(left + row * pitch, right + col * pitch, pitch, steps, out)
                for i in range(min(BLOCK_ROWS, rows - row)):
                    target = row_address(dst, lane_pitch, lanes, dst_stride, row + i) + 4 * col
                    cells = carray(pointer(target), width, np.int32)
                    for j in range(width):
                        before = cells[j] if accumulate else np.int32(0)
                        cells[j] = before + sums[i * BLOCK_COLS + j]


@njit(**JIT)
def multiply_codes_direct(
    first: Any,
    last: Any,
    depth: Any,
    large_is_right: Any,
    small: Any,
    small_rows: Any,
    pitch: Any,
    accumulate: Any,
    lane_pitch: Any,
    lanes: Any,
    dst: Any,
    dst_stride: Any,
    large: Any,
    large_stride: Any,
    large_lanes: Any,
) -> None:
    """Rows `[first, last)` of the large operand, in place, times the small one's packed rows.

    `large_lanes` is 1 where it is read from global memory, `large_stride` bytes from row to row.
    """
    sums = np.empty(DIRECT_ROWS, np.int32)
    out = sums.ctypes.data
    end = last - 1
    ahead = DIRECT_ROWS * large_stride if large_lanes == 1 else 0
    for row in range(first, last, DIRECT_ROWS):
        a0 = row_address(large, lane_pitch, large_lanes, large_stride, row)
        a1 = row_address(large, lane_pitch, large_lanes, large_stride, min(row + 1, end))
        a2 = row_address(large, lane_pitch, large_lanes, large_stride, min(row + 2, end))
        a3 = row_address(large, lane_pitch, large_lanes, large_stride, min(row + 3, end))
        for other in range(small_rows):
            direct_block(a0, a1, a2, a3, ahead, small + other * pitch, depth, out)
            for i in range(min(DIRECT_ROWS, last - row)):
                r, c = (other, row + i) if large_is_right else (row + i, other)
                target = row_address(dst, lane_pitch, lanes, dst_stride, r) + 4 * c
                cell = carray(pointer(target), 1, np.int32)
                before = cell[0] if accumulate else np.int32(0)
                cell[0] = before + sums[i]
