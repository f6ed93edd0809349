"""Products of rows of codes with rows of f32, dequantized on the way, as LLVM vectors.

What DEQUANT and MM compute one after the other, without the tile between them: every weight is
rounded to the type of that tile, and sums have the order of `dot_products`, so the bits are the
same. Groups are multiples of 16 inputs, or the whole row.

There are but 16 weights to a group of 4-bit codes. They are computed once, and codes pick them from
a register, where the host can do that.

Rows are read four at a time, and a row is often a page of memory: the next four are asked for
meanwhile, as hosts look ahead within a page only.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.backends.simulator.conversions import look_ahead
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
_FLOAT_BYTES = 4
_RUN = 4
"""Steps that are done one after the other without a branch, and looked ahead for once."""

_E4M3_BIAS = 256.0
"""The exponents of E4M3 are 8 less than those of an f16 with the same bits."""

_MAGIC, _MAGIC_BITS, _SIGNED = 2.0**23, 0x4B000000, 128
"""From 2^23 on, the last bit of an f32 is 1."""

_EXPONENT_BITS, _LIFT = 0x7F800000, 1.5 * 2**13


def picks_from_registers(context: Any) -> bool:
    """Whether code is made for hosts that pick 16 floats from a register (AVX-512F)."""
    return "+avx512f" in _features(context)


def picks_bytes(context: Any) -> bool:
    """Whether they also pick 64 bytes from a register (AVX-512 VBMI)."""
    return "+avx512vbmi" in _features(context)


def _features(context: Any) -> list[str]:
    return context.codegen().magic_tuple()[2].split(",")


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(single, single, ir.Constant(_I32S, [0] * VECTOR))


def _constant(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * VECTOR)


def _f32_at(builder: Any, address: Any) -> Any:
    """The f32 at `address`, in all lanes."""
    value = builder.load(builder.inttoptr(address, _F32.as_pointer()), typ=_F32)
    return _splat(builder, value, _F32S)


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


def _rounded_product(builder: Any, value: Any) -> Any:
    """As `_rounded` to f16, of the product of an integer and an f16 that is less than 65504.

    In the sum with 1.5 * 2^13 times its power of two, the last bit is that of an f16; a subnormal
    result is exact without. -0 becomes 0, which no sum shows: sums begin with 0, and a product of
    two f16 is not so small that it vanishes. It takes less time than two conversions.
    """
    exponent = builder.and_(builder.bitcast(value, _I32S), _constant(_I32S, _EXPONENT_BITS))
    power = builder.bitcast(exponent, _F32S)
    lifted = fma(builder, power, _constant(_F32S, _LIFT), value)
    return fma(builder, power, _constant(_F32S, -_LIFT), lifted)


def _pick_bytes(builder: Any, held: Any, places: list[int]) -> Any:
    kind = ir.FunctionType(held.type, [held.type, held.type])
    name = "llvm.x86.avx512.permvar.qi.512"
    pick = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.bitcast(builder.call(pick, [held, ir.Constant(held.type, places)]), _I32S)


def _wide_run(builder: Any, held: Any) -> list[Any]:
    """As `_wide_nibbles`, of 32 bytes: four vectors."""
    count = _RUN * VECTOR // 2
    both = ir.Constant(ir.VectorType(_I32, 2 * count), 2 * list(range(count)))
    words = ir.VectorType(_I64, 2 * count // 8)
    twice = builder.bitcast(builder.shuffle_vector(held, held, both), words)
    halves = ir.Constant(words, [0] * (words.count // 2) + [4] * (words.count // 2))
    low_and_high = builder.bitcast(builder.lshr(twice, halves), ir.VectorType(_I8, 2 * count))
    wide: list[Any] = []
    for step in range(_RUN):
        lanes = [step * VECTOR // 2 + lane // 2 + lane % 2 * count for lane in range(VECTOR)]
        wide.append(_pick_bytes(builder, low_and_high, [p for p in lanes for _ in range(4)]))
    return wide


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
        nibbles: Any,
        small: bool,
    ) -> None:
        scale, zero = places
        self._small = small
        self._codes: Codes = codes
        self._element: Element = element
        self._scale = _f32_at(builder, scale)
        if codes == "f8e4m3" and element == "f16":
            # That is exact, and no f16 is so large that it overflows.
            self._scale = builder.fmul(self._scale, _constant(_F32S, _E4M3_BIAS))
        self._zero = _f32_at(builder, zero)
        if codes == "i8":
            self._zero = builder.fadd(self._zero, _constant(_F32S, _MAGIC + _SIGNED))
        self._weights: Any = None
        if nibbles is not None:
            self._weights = self._of_integers(builder, nibbles)

    def _of_integers(self, builder: Any, integers: Any) -> Any:
        product = builder.fmul(builder.fsub(integers, self._zero), self._scale)
        if self._small:
            return _rounded_product(builder, product)
        return _rounded(builder, product, self._element)

    def weights(self, builder: Any, held: Any, signed: Any) -> Any:
        """The weights of 16 codes."""
        if self._codes == "i8":
            # The bits of 2^23 + 128 + code: no conversion.
            magic = _constant(_I32S, _MAGIC_BITS + _SIGNED)
            lifted = builder.bitcast(builder.xor(builder.zext(held, _I32S), magic), _F32S)
            return self._of_integers(builder, lifted)
        if self._codes != "nibbles":
            numbers = _numbers(builder, held, self._codes)
            if self._codes == "f8e4m3" and self._element == "bf16":
                numbers = builder.fmul(numbers, _constant(_F32S, _E4M3_BIAS))
            return _rounded(builder, builder.fmul(numbers, self._scale), self._element)
        wide = _wide_nibbles(builder, held)
        if self._weights is not None:
            return self.picked(builder, wide)
        nibbles = builder.and_(wide, _constant(_I32S, 15))
        return self._of_integers(builder, _of_nibbles(builder, nibbles, signed))

    def picked(self, builder: Any, wide: Any) -> Any:
        """Of the 16 weights of nibbles, those that the last four bits of numbers say."""
        name = "llvm.x86.avx512.permvar.sf.512"
        kind = ir.FunctionType(_F32S, [_F32S, _I32S])
        pick = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(pick, [self._weights, wide])


def _of_nibbles(builder: Any, nibbles: Any, signed: Any) -> Any:
    """0 to 15 as f32: as they are, or in two's complement."""
    flipped = builder.xor(nibbles, signed)
    return builder.sitofp(builder.sub(flipped, signed), _F32S)


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


def make_codes_block(codes: Codes, element: Element, *, small: bool = False) -> Any:
    """A compiled function of four rows of codes: their dot products with a row of f32, to `out`.

    Its arguments are addresses of the rows of codes; of four rows of scales and of zero points,
    f32, one a group; bytes to the rows of codes that come next; 8 for nibbles in two's complement,
    else 0; the address of the f32 row; groups, steps of 16 codes in each; codes behind the last
    step (of one group); and `out`. `small`: scales are less than 2^8.
    """
    rows = DIRECT_ROWS

    @intrinsic
    def block(
        typing_context: Any,
        c0: Any,
        c1: Any,
        c2: Any,
        c3: Any,
        scales: Any,
        zeros: Any,
        ahead: Any,
        signed: Any,
        right: Any,
        groups: Any,
        steps: Any,
        rest: Any,
        out: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            held = arguments[:rows]
            scales, zeros, ahead, signed, right, groups, steps, rest, out = arguments[rows:]
            flip = _splat(builder, builder.trunc(signed, _I32), _I32S)
            kind, size = _held_type(codes), _STEP_BYTES[codes]
            nibbles: Any = None
            if codes == "nibbles" and picks_from_registers(context):
                every = ir.Constant(_I32S, list(range(VECTOR)))
                nibbles = _of_nibbles(builder, every, flip)
            runs_of_nibbles = nibbles is not None and picks_bytes(context)

            def known(group: Any) -> list[_Group]:
                places: list[tuple[Any, Any]] = []
                for row in range(rows):
                    of_row = builder.mul(groups, _I64(row))
                    at = builder.mul(builder.add(of_row, group), _I64(_FLOAT_BYTES))
                    places.append((builder.add(scales, at), builder.add(zeros, at)))
                return [_Group(builder, codes, element, at, nibbles, small) for at in places]

            def column_at(place: Any) -> Any:
                at = builder.add(right, builder.mul(place, _I64(_FLOATS_STEP)))
                return load_vector(builder, at, _F32S, 4)

            def one_step(place: Any, of_rows: list[_Group], sums: list[Any]) -> list[Any]:
                column = column_at(place)
                offset = builder.mul(place, _I64(size))
                new: list[Any] = []
                for row, of_row, total in zip(held, of_rows, sums, strict=True):
                    bytes_ = load_vector(builder, builder.add(row, offset), kind, 1)
                    weights = of_row.weights(builder, bytes_, flip)
                    new.append(fma(builder, weights, column, total))
                return new

            def run_of_nibbles(place: Any, of_rows: list[_Group], sums: list[Any]) -> list[Any]:
                columns = [column_at(builder.add(place, _I64(i))) for i in range(_RUN)]
                offset = builder.mul(place, _I64(size))
                whole = ir.VectorType(_I8, _RUN * size)
                new: list[Any] = []
                for row, of_row, total in zip(held, of_rows, sums, strict=True):
                    bytes_ = load_vector(builder, builder.add(row, offset), whole, 1)
                    for wide, column in zip(_wide_run(builder, bytes_), columns, strict=True):
                        total = fma(builder, of_row.picked(builder, wide), column, total)
                    new.append(total)
                return new

            def group_body(group: Any, sums: list[Any]) -> list[Any]:
                of_rows, first = known(group), builder.mul(group, steps)
                runs = builder.lshr(steps, _I64(2))

                def run_body(run: Any, sums: list[Any]) -> list[Any]:
                    place = builder.add(first, builder.mul(run, _I64(_RUN)))
                    next_ones = builder.add(builder.mul(place, _I64(size)), ahead)
                    for row in held:
                        look_ahead(builder, builder.add(row, next_ones))
                    if runs_of_nibbles:
                        return run_of_nibbles(place, of_rows, sums)
                    for i in range(_RUN):
                        sums = one_step(builder.add(place, _I64(i)), of_rows, sums)
                    return sums

                def step_body(step: Any, sums: list[Any]) -> list[Any]:
                    done = builder.mul(runs, _I64(_RUN))
                    return one_step(builder.add(first, builder.add(done, step)), of_rows, sums)

                sums = _loop(builder, runs, sums, run_body)
                return _loop(builder, builder.and_(steps, _I64(_RUN - 1)), sums, step_body)

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
                    weights = of_row.weights(builder, bytes_, flip)
                    weights = builder.select(mask, weights, ir.Constant(_F32S, None))
                    new.append(fma(builder, weights, column, total))
                return new

            sums = _loop(builder, groups, [ir.Constant(_F32S, None)] * rows, group_body)
            has_tail = builder.zext(builder.icmp_signed(">", rest, _I64(0)), _I64)
            sums = _loop(builder, has_tail, sums, tail)
            store_sums(builder, [[value] for value in sums], out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * (rows + 9)), generate

    return block


codes_block_i8_f16 = make_codes_block("i8", "f16")
codes_block_i8_small_f16 = make_codes_block("i8", "f16", small=True)
codes_block_i8_bf16 = make_codes_block("i8", "bf16")
codes_block_nibbles_f16 = make_codes_block("nibbles", "f16")
codes_block_nibbles_bf16 = make_codes_block("nibbles", "bf16")
codes_block_f8e4m3_f16 = make_codes_block("f8e4m3", "f16")
codes_block_f8e4m3_bf16 = make_codes_block("f8e4m3", "bf16")
codes_block_f8e5m2_f16 = make_codes_block("f8e5m2", "f16")
codes_block_f8e5m2_bf16 = make_codes_block("f8e5m2", "bf16")
