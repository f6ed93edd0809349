"""Steps over whole groups of a row, in LLVM's vectors of `LANES` values.

The loops of numba would do, but for groups of 64 and less: LLVM gives such a loop a preamble and a
remainder that take longer than the loop. Here the lengths are multiples of `LANES`, every vector is
one or two registers, and LLVM makes of it what a machine has.

numba's cache of the loops looks at `loops.py` alone: touch it after a change here.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from tilewright.compiler.weights.bits import build_float

LANES = 32

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_FLOAT = ir.FloatType()


class _Row:
    """The values of a row from `start` on, as vectors."""

    def __init__(self, context: Any, builder: Any, array: Any, row: Any, start: Any) -> None:
        self.builder, self.element = builder, array.dtype
        self.scalar = ir.IntType(array.dtype.bitwidth)
        self.vector = ir.VectorType(self.scalar, LANES)
        data = context.make_array(array)(context, builder, row).data
        self.first = builder.gep(data, [start])

    def load(self, index: Any) -> Any:
        """Vector `index`."""
        place = self.builder.mul(index, ir.Constant(index.type, LANES))
        pointer = self.builder.gep(self.first, [place])
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        return self.builder.load(pointer, align=self.scalar.width // 8)

    def all_lanes(self, value: int) -> Any:
        """A vector of equal integers."""
        return ir.Constant(self.vector, [value] * LANES)

    def extreme(self, which: str, keys: Any) -> Any:
        """The least (`smin`) or the greatest (`smax`) lane of `keys`."""
        kind = ir.FunctionType(self.scalar, [self.vector])
        name = f"llvm.vector.reduce.{which}.v{LANES}i{self.scalar.width}"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), [keys]
        )


def _splat(builder: Any, value: Any) -> Any:
    """A scalar in every lane."""
    vector = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    lanes = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)


def _lesser(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _greater(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _type_greatest_magnitude(typingctx: Any, row: Any, start: Any, vectors: Any) -> Any:
    """The bits without the sign of the greatest magnitude of `vectors` times `LANES` values."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _Row(context, builder, signature.args[0], *arguments[:2])
        unsigned = values.all_lanes((1 << (values.scalar.width - 1)) - 1)
        top = cgutils.alloca_once_value(builder, values.all_lanes(0))
        with cgutils.for_range(builder, arguments[2]) as loop:
            magnitudes = builder.and_(values.load(loop.index), unsigned)
            builder.store(_greater(builder, builder.load(top), magnitudes), top)
        return values.extreme("smax", builder.load(top))

    signed = types.Integer.from_bitwidth(row.dtype.bitwidth, signed=True)
    return signed(row, types.intp, types.intp), generate


def _type_least_and_greatest(typingctx: Any, row: Any, start: Any, vectors: Any) -> Any:
    """The least and the greatest of `vectors` times `LANES` values, as signed integers that ascend
    with the value of a float."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _Row(context, builder, signature.args[0], *arguments[:2])
        width = values.scalar.width
        most = (1 << (width - 1)) - 1
        low = cgutils.alloca_once_value(builder, values.all_lanes(most))
        high = cgutils.alloca_once_value(builder, values.all_lanes(most + 1))
        with cgutils.for_range(builder, arguments[2]) as loop:
            bits = values.load(loop.index)
            signs = builder.ashr(bits, values.all_lanes(width - 1))
            keys = builder.xor(bits, builder.and_(signs, values.all_lanes(most)))
            builder.store(_lesser(builder, builder.load(low), keys), low)
            builder.store(_greater(builder, builder.load(high), keys), high)
        ends = [
            values.extreme("smin", builder.load(low)),
            values.extreme("smax", builder.load(high)),
        ]
        return context.make_tuple(builder, signature.return_type, ends)

    signed = types.Integer.from_bitwidth(row.dtype.bitwidth, signed=True)
    return types.UniTuple(signed, 2)(row, types.intp, types.intp), generate


def _codes_writer(packed: bool) -> Any:
    """Makes the step that writes codes, one a byte or two."""

    def type_write(
        typingctx: Any,
        row: Any,
        start: Any,
        vectors: Any,
        reciprocal: Any,
        zero: Any,
        most: Any,
        codes: Any,
    ) -> Any:
        """Writes the low byte (nibble) of `min(row * reciprocal + zero, most)` for `vectors` times
        `LANES` values, from `start` on.

        `zero` and `most` lie so high that an ulp of them is 1: the low bits of the sum are its
        nearest integer. Asks for the same place of the next row, which lies behind this one.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, first, count, factor, offset, limit, target = arguments
            values = _Row(context, builder, signature.args[0], array, first)
            out = context.make_array(signature.args[6])(context, builder, target).data
            factors, offsets, limits = (_splat(builder, v) for v in (factor, offset, limit))
            depth = context.make_array(signature.args[0])(context, builder, array).nitems
            floats = ir.VectorType(_FLOAT, LANES)
            kind = ir.FunctionType(floats, [floats] * 3)
            fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
            with cgutils.for_range(builder, count) as loop:
                step = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
                place = builder.add(first, step)
                _prefetch(builder, builder.gep(values.first, [builder.add(step, depth)]))
                numbers = build_float(builder, values.element, values.load(loop.index), LANES)
                sums = builder.call(fma, [numbers, factors, offsets])
                sums = builder.select(builder.fcmp_ordered("<", sums, limits), sums, limits)
                integers = builder.bitcast(sums, ir.VectorType(_I32, LANES))
                made = builder.trunc(integers, ir.VectorType(_I8, LANES))
                if packed:
                    made = _pack(builder, made)
                    place = builder.lshr(place, ir.Constant(place.type, 1))
                pointer = builder.bitcast(builder.gep(out, [place]), made.type.as_pointer())
                builder.store(made, pointer, align=1)
            return context.get_dummy_value()

        number = types.float32
        where = (row, types.intp, types.intp)
        return types.none(*where, number, number, number, codes), generate

    return type_write


def _pack(builder: Any, codes: Any) -> Any:
    """The low nibbles of two codes a byte, the first in the low one."""
    pairs = ir.VectorType(_I16, LANES // 2)
    pair = builder.bitcast(codes, pairs)
    low = builder.and_(pair, ir.Constant(pairs, [0x000F] * (LANES // 2)))
    high = builder.lshr(pair, ir.Constant(pairs, [4] * (LANES // 2)))
    high = builder.and_(high, ir.Constant(pairs, [0x00F0] * (LANES // 2)))
    return builder.trunc(builder.or_(low, high), ir.VectorType(_I8, LANES // 2))


def _prefetch(builder: Any, pointer: Any) -> None:
    pointer = builder.bitcast(pointer, ir.PointerType(_I8))
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, keep, data = (ir.Constant(_I32, value) for value in (0, 3, 1))
    builder.call(ask, [pointer, read, keep, data])


greatest_magnitude: Any = intrinsic(_type_greatest_magnitude)
least_and_greatest: Any = intrinsic(_type_least_and_greatest)
write_bytes: Any = intrinsic(_codes_writer(False))
write_nibbles: Any = intrinsic(_codes_writer(True))
