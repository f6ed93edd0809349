"""Products of rows of codes with rows of f32, dequantized on the way, as LLVM vectors.

What DEQUANT and MM compute one after the other, without the tile between them: every weight is
rounded to the type of that tile, and sums have the order of `dot_products`, so the bits are the
same. Groups are multiples of 16 inputs, or the whole row.

There are but 16 weights to a group of 4-bit codes. They are computed once, and codes pick them from
a register, where the host can do that.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.backends.simulator.dot_products import (
    DIRECT_ROWS,
    VECTOR,
    fma,
    load_masked,
    load_vector,
    store_sums,
    tail_mask,
)

Codes: TypeAlias = Literal["i8", "nibbles", "f8e4m3", "f8e5m2"]
Element: TypeAlias = Literal["f16", "bf16"]

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()
_F32S = ir.VectorType(_F32, VECTOR)
_I32S = ir.VectorType(_I32, VECTOR)
_I16S = ir.VectorType(_I16, VECTOR)
_HALVES = ir.VectorType(ir.HalfType(), VECTOR)

_STEP_BYTES = {"i8": VECTOR, "nibbles": VECTOR // 2, "f8e4m3": VECTOR, "f8e5m2": VECTOR}
_FLOATS_STEP = 4 * VECTOR
_SCALE_BYTES = 2
_E4M3_BIAS = 256.0
"""The exponents of E4M3 are 8 less than those of an f16 with the same bits."""

_MAGIC, _MAGIC_BITS, _SIGNED = 2.0**23, 0x4B000000, 128
"""From 2^23 on, the last bit of an f32 is 1."""


def picks_from_registers(context: Any) -> bool:
    """Whether code is made for hosts that pick 16 floats from a register (AVX-512F)."""
    return "+avx512f" in context.codegen().magic_tuple()[2].split(",")


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(single, single, ir.Constant(_I32S, [0] * VECTOR))


def _constant(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * VECTOR)


def _scalar(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()), typ=kind)
    value.align = 1
    return value


def _scale_of(builder: Any, address: Any, element: Element) -> Any:
    """The f16 or bf16 at `address`, widened, in all lanes."""
    bits = _splat(builder, _scalar(builder, address, _I16), _I16S)
    if element == "f16":
        return builder.fpext(builder.bitcast(bits, _HALVES), _F32S)
    wide = builder.shl(builder.zext(bits, _I32S), _constant(_I32S, 16))
    return builder.bitcast(wide, _F32S)


def _rounded(builder: Any, value: Any, element: Element) -> Any:
    """f32 rounded to nearest even 16 bits, and widened again; a NaN stays one."""
    if element == "f16":
        return builder.fpext(builder.fptrunc(value, _HALVES), _F32S)
    bits = builder.bitcast(value, _I32S)
    odd = builder.and_(builder.lshr(bits, _constant(_I32S, 16)), _constant(_I32S, 1))
    bits = builder.add(builder.add(bits, _constant(_I32S, 0x7FFF)), odd)
    bits = builder.and_(bits, _constant(_I32S, 0xFFFF0000))
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(is_nan, value, builder.bitcast(bits, _F32S))


def _wide_nibbles(builder: Any, held: Any) -> Any:
    """Eight bytes as 16 numbers whose last four bits are the nibbles, the low one first."""
    pairs = ir.VectorType(_I64, VECTOR // 2)
    wide = builder.zext(held, pairs)
    high = builder.shl(wide, ir.Constant(pairs, [28] * (VECTOR // 2)))
    return builder.bitcast(builder.or_(wide, high), _I32S)


def _numbers(builder: Any, held: Any, codes: Codes) -> Any:
    """8-bit floats as f32; those of E4M3 divided by `_E4M3_BIAS`."""
    bits = builder.shl(builder.zext(held, _I16S), _constant(_I16S, 8))
    if codes == "f8e5m2":
        return builder.fpext(builder.bitcast(bits, _HALVES), _F32S)
    # One exponent bit is put between the sign and the others.
    half = builder.and_(builder.ashr(bits, _constant(_I16S, 1)), _constant(_I16S, 0xBFFF))
    value = builder.fpext(builder.bitcast(half, _HALVES), _F32S)
    magnitude = builder.and_(half, _constant(_I16S, 0x3F80))
    is_nan = builder.icmp_unsigned("==", magnitude, _constant(_I16S, 0x3F80))
    return builder.select(is_nan, _constant(_F32S, float("nan")), value)


class _Group:
    """What is known of a group of a row before its codes are: scale, zero point, or all weights."""

    def __init__(
        self,
        builder: Any,
        codes: Codes,
        element: Element,
        places: tuple[Any, Any],
        signed: Any,
        in_registers: bool,
    ) -> None:
        scale, zero = places
        self._codes: Codes = codes
        self._element: Element = element
        self._signed = signed
        self._scale = _scale_of(builder, scale, element)
        if codes == "f8e4m3" and element == "f16":
            # That is exact, and no f16 is so large that it overflows.
            self._scale = builder.fmul(self._scale, _constant(_F32S, _E4M3_BIAS))
        points = _splat(builder, _scalar(builder, zero, _I8), ir.VectorType(_I8, VECTOR))
        self._zero = builder.sext(points, _I32S)
        if codes == "i8":
            least = builder.sitofp(self._zero, _F32S)
            self._zero = builder.fadd(least, _constant(_F32S, _MAGIC + _SIGNED))
        self._weights: Any = None
        if codes == "nibbles" and in_registers:
            self._weights = self._of_nibbles(builder, ir.Constant(_I32S, list(range(VECTOR))))

    def _of_integers(self, builder: Any, integers: Any) -> Any:
        steps = builder.sitofp(builder.sub(integers, self._zero), _F32S)
        return _rounded(builder, builder.fmul(steps, self._scale), self._element)

    def _of_nibbles(self, builder: Any, nibbles: Any) -> Any:
        """Of 0 to 15: as they are, or in two's complement."""
        flipped = builder.xor(nibbles, self._signed)
        return self._of_integers(builder, builder.sub(flipped, self._signed))

    def weights(self, builder: Any, held: Any) -> Any:
        """The weights of 16 codes."""
        if self._codes == "i8":
            # The bits of 2^23 + 128 + code: no conversion.
            magic = _constant(_I32S, _MAGIC_BITS + _SIGNED)
            lifted = builder.bitcast(builder.xor(builder.zext(held, _I32S), magic), _F32S)
            steps = builder.fsub(lifted, self._zero)
            return _rounded(builder, builder.fmul(steps, self._scale), self._element)
        if self._codes != "nibbles":
            numbers = _numbers(builder, held, self._codes)
            if self._codes == "f8e4m3" and self._element == "bf16":
                numbers = builder.fmul(numbers, _constant(_F32S, _E4M3_BIAS))
            return _rounded(builder, builder.fmul(numbers, self._scale), self._element)
        wide = _wide_nibbles(builder, held)
        if self._weights is None:
            return self._of_nibbles(builder, builder.and_(wide, _constant(_I32S, 15)))
        name = "llvm.x86.avx512.permvar.sf.512"
        kind = ir.FunctionType(_F32S, [_F32S, _I32S])
        pick = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(pick, [self._weights, wide])


def _held_type(codes: Codes) -> Any:
    return ir.VectorType(_I8, _STEP_BYTES[codes])


def _loop(builder: Any, count: Any, carried: list[Any], body: Any) -> list[Any]:
    """`for i < count: carried = body(i, carried)`; returns what is carried out."""
    before = builder.block
    inside, after = (
        builder.append_basic_block("codes.body"),
        builder.append_basic_block("codes.end"),
    )
    builder.cbranch(builder.icmp_signed(">", count, _I64(0)), inside, after)
    builder.position_at_end(inside)
    index = builder.phi(_I64)
    values = [builder.phi(value.type) for value in carried]
    new = body(index, values)
    last = builder.block
    following = builder.add(index, _I64(1))
    builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
    index.add_incoming(_I64(0), before)
    index.add_incoming(following, last)
    builder.position_at_end(after)
    results: list[Any] = []
    for start, value, end in zip(carried, values, new, strict=True):
        value.add_incoming(start, before)
        value.add_incoming(end, last)
        result = builder.phi(start.type)
        result.add_incoming(start, before)
        result.add_incoming(end, last)
        results.append(result)
    return results


def make_codes_block(codes: Codes, element: Element) -> Any:
    """A compiled function of four rows of codes: their dot products with a row of f32, to `out`.

    Its arguments are addresses of the rows of codes, scales and zero points; bytes from a zero
    point to the next; 8 for nibbles in two's complement, else 0; the address of the f32 row;
    groups, steps of 16 codes in each; codes behind the last step (of one group); and `out`.
    """
    rows = DIRECT_ROWS

    @intrinsic
    def block(
        typing_context: Any,
        c0: Any,
        c1: Any,
        c2: Any,
        c3: Any,
        s0: Any,
        s1: Any,
        s2: Any,
        s3: Any,
        z0: Any,
        z1: Any,
        z2: Any,
        z3: Any,
        zero_step: Any,
        signed: Any,
        right: Any,
        groups: Any,
        steps: Any,
        rest: Any,
        out: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            held, scales, zeros = (arguments[i * rows : (i + 1) * rows] for i in range(3))
            zero_step, signed, right, groups, steps, rest, out = arguments[3 * rows :]
            in_registers = picks_from_registers(context)
            flip = _splat(builder, builder.trunc(signed, _I32), _I32S)
            kind, size = _held_type(codes), _STEP_BYTES[codes]

            def known(group: Any) -> list[_Group]:
                at = builder.mul(group, _I64(_SCALE_BYTES))
                zero_at = builder.mul(group, zero_step)
                pairs = zip(scales, zeros, strict=True)
                places = [(builder.add(s, at), builder.add(z, zero_at)) for s, z in pairs]
                return [
                    _Group(builder, codes, element, place, flip, in_registers) for place in places
                ]

            def group_body(group: Any, sums: list[Any]) -> list[Any]:
                of_rows, first = known(group), builder.mul(group, steps)

                def step_body(step: Any, sums: list[Any]) -> list[Any]:
                    place = builder.add(first, step)
                    at = builder.add(right, builder.mul(place, _I64(_FLOATS_STEP)))
                    column = load_vector(builder, at, _F32S, 4)
                    offset = builder.mul(place, _I64(size))
                    new: list[Any] = []
                    for row, of_row, total in zip(held, of_rows, sums, strict=True):
                        bytes_ = load_vector(builder, builder.add(row, offset), kind, 1)
                        new.append(fma(builder, of_row.weights(builder, bytes_), column, total))
                    return new

                return _loop(builder, steps, sums, step_body)

            def tail(_: Any, sums: list[Any]) -> list[Any]:
                place = builder.mul(groups, steps)
                mask = tail_mask(builder, rest)
                at = builder.add(right, builder.mul(place, _I64(_FLOATS_STEP)))
                column = load_masked(builder, at, _F32S, 4, mask)
                bytes_mask = mask
                if codes == "nibbles":
                    full = builder.lshr(builder.add(rest, _I64(1)), _I64(1))
                    bytes_mask = tail_mask(builder, full, size)
                offset = builder.mul(place, _I64(size))
                new: list[Any] = []
                for row, of_row, total in zip(held, known(_I64(0)), sums, strict=True):
                    bytes_ = load_masked(builder, builder.add(row, offset), kind, 1, bytes_mask)
                    weights = of_row.weights(builder, bytes_)
                    weights = builder.select(mask, weights, ir.Constant(_F32S, None))
                    new.append(fma(builder, weights, column, total))
                return new

            sums = _loop(builder, groups, [ir.Constant(_F32S, None)] * rows, group_body)
            has_tail = builder.zext(builder.icmp_signed(">", rest, _I64(0)), _I64)
            sums = _loop(builder, has_tail, sums, tail)
            store_sums(builder, [[value] for value in sums], out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * (3 * rows + 7)), generate

    return block


codes_block_i8_f16 = make_codes_block("i8", "f16")
codes_block_i8_bf16 = make_codes_block("i8", "bf16")
codes_block_nibbles_f16 = make_codes_block("nibbles", "f16")
codes_block_nibbles_bf16 = make_codes_block("nibbles", "bf16")
codes_block_f8e4m3_f16 = make_codes_block("f8e4m3", "f16")
codes_block_f8e4m3_bf16 = make_codes_block("f8e4m3", "bf16")
codes_block_f8e5m2_f16 = make_codes_block("f8e5m2", "f16")
codes_block_f8e5m2_bf16 = make_codes_block("f8e5m2", "bf16")
