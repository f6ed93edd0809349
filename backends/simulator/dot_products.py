"""Blocks of dot products as LLVM vectors: the inner loops of the matrix unit.

The sum over k has one fixed order, whatever the shapes and whichever loop computes it: 16 f32
partial sums, of which number `j` adds the products of all `k = j (mod 16)`, in ascending k, by
fused multiply-add; then `p[j] + p[j + 8]`, and so on by halves. A row whose length is no multiple
of 16 counts as followed by zeros. So a result does not depend on how rows and columns are split or
ordered, and scales exactly by powers of two. Products of 16-bit operands are exact in f32.
"""

from __future__ import annotations

from typing import Any, Literal

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR = 16
"""Partial sums of a dot product."""

BLOCK_ROWS, BLOCK_COLS = 6, 4
"""Dot products that `packed_block` computes at once: 24 sums and 5 operands fit 32 registers."""

DIRECT_ROWS = 4
"""Dot products that a `direct_block` computes at once."""

_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_F32 = ir.FloatType()
_SUMS = ir.VectorType(_F32, VECTOR)
_STORED = {
    "f32": _SUMS,
    "f16": ir.VectorType(ir.HalfType(), VECTOR),
    "bf16": ir.VectorType(_I16, VECTOR),
}
_SIZE = {"f32": 4, "f16": 2, "bf16": 2}
_LLVM_NAMES = {"float": "f32", "half": "f16", "i16": "i16", "i8": "i8"}


def load_vector(builder: Any, address: Any, vector: Any, align: int) -> Any:
    """The vector at `address`."""
    value = builder.load(builder.inttoptr(address, vector.as_pointer()), typ=vector)
    value.align = align
    return value


def load_masked(builder: Any, address: Any, vector: Any, align: int, mask: Any) -> Any:
    """The elements that `mask` names; zeros for the others, whose memory is not touched."""
    place = builder.inttoptr(address, vector.as_pointer())
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [place.type, _I32, mask.type, vector]),
        f"llvm.masked.load.v{vector.count}{_LLVM_NAMES[str(vector.element)]}.p0",
    )
    zeros = ir.Constant(vector, None)
    return builder.call(function, [place, _I32(align), mask, zeros])


def tail_mask(builder: Any, count: Any, width: int = VECTOR) -> Any:
    """A mask of `width` bits, of which the first `count` are set."""
    lane = ir.Constant(ir.VectorType(_I32, width), list(range(width)))
    single = builder.insert_element(
        ir.Constant(lane.type, ir.Undefined), builder.trunc(count, _I32), _I32(0)
    )
    spread = builder.shuffle_vector(
        single, single, ir.Constant(ir.VectorType(_I32, width), [0] * width)
    )
    return builder.icmp_unsigned("<", lane, spread)


def widen(builder: Any, value: Any, kind: str) -> Any:
    """A vector of `kind` as f32."""
    if kind == "f32":
        return value
    if kind == "f16":
        return builder.fpext(value, _SUMS)
    wide = builder.zext(value, ir.VectorType(_I32, VECTOR))
    return builder.bitcast(builder.shl(wide, ir.Constant(wide.type, [16] * VECTOR)), _SUMS)


def _widened(builder: Any, address: Any, kind: str) -> Any:
    return widen(builder, load_vector(builder, address, _STORED[kind], _SIZE[kind]), kind)


def fma(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """`left * right + addend`, rounded once."""
    kind = ir.FunctionType(_SUMS, [_SUMS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{VECTOR}f32")
    return builder.call(function, [left, right, addend])


def _sum_by_halves(builder: Any, value: Any) -> Any:
    width = VECTOR
    while width > 1:
        width //= 2
        kind = ir.VectorType(_I32, width)
        low = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(width))))
        high = builder.shuffle_vector(
            value, value, ir.Constant(kind, list(range(width, 2 * width)))
        )
        value = builder.fadd(low, high)
    return builder.extract_element(value, _I32(0))


def _dot_loop(
    builder: Any, lefts: list[Any], rights: list[Any], steps: Any, kind: str
) -> list[list[Any]]:
    """Partial sums of `steps` vectors from every left with every right address."""
    before = builder.block
    body = builder.append_basic_block("dot.body")
    after = builder.append_basic_block("dot.after")
    zero = ir.Constant(_SUMS, None)
    builder.cbranch(builder.icmp_signed(">", steps, _I64(0)), body, after)

    builder.position_at_end(body)
    step = builder.phi(_I64)
    sums = [[builder.phi(_SUMS) for _ in rights] for _ in lefts]
    left_at = builder.mul(step, _I64(VECTOR * _SIZE[kind]))
    right_at = builder.mul(step, _I64(VECTOR * _SIZE["f32"]))
    columns = [load_vector(builder, builder.add(right, right_at), _SUMS, 4) for right in rights]
    new: list[list[Any]] = []
    for left, row in zip(lefts, sums, strict=True):
        value = _widened(builder, builder.add(left, left_at), kind)
        pairs = zip(columns, row, strict=True)
        new.append([fma(builder, value, column, addend) for column, addend in pairs])
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


def store_sums(builder: Any, sums: list[list[Any]], out: Any) -> None:
    """The sums of each vector to f32 words from `out` on."""
    for i, value in enumerate(value for row in sums for value in row):
        place = builder.inttoptr(builder.add(out, _I64(4 * i)), _F32.as_pointer())
        builder.store(_sum_by_halves(builder, value), place).align = 4


@intrinsic
def packed_block(
    typing_context: Any, left: Any, right: Any, pitch: Any, steps: Any, out: Any
) -> Any:
    """`out[i, j] = dot(left row i, right row j)` for `BLOCK_ROWS` x `BLOCK_COLS` f32 rows.

    Rows are `pitch` bytes apart and `steps` vectors long.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, pitch, steps, out = arguments
        lefts = [builder.add(left, builder.mul(pitch, _I64(i))) for i in range(BLOCK_ROWS)]
        rights = [builder.add(right, builder.mul(pitch, _I64(j))) for j in range(BLOCK_COLS)]
        store_sums(builder, _dot_loop(builder, lefts, rights, steps, "f32"), out)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


def _direct_block(kind: Literal["f32", "f16", "bf16"]) -> Any:
    @intrinsic
    def block(
        typing_context: Any, r0: Any, r1: Any, r2: Any, r3: Any, right: Any, depth: Any, out: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lefts, (right, depth, out) = list(arguments[:DIRECT_ROWS]), arguments[DIRECT_ROWS:]
            steps = builder.lshr(depth, _I64(4))
            sums = _dot_loop(builder, lefts, [right], steps, kind)
            rest = builder.and_(depth, _I64(VECTOR - 1))
            # One more step over the tail, the missing elements zero.
            mask = tail_mask(builder, rest)
            whole = builder.sub(depth, rest)
            at = builder.add(right, builder.mul(whole, _I64(4)))
            column = load_masked(builder, at, _SUMS, 4, mask)
            has_tail = builder.icmp_signed("!=", rest, _I64(0))
            for i, left in enumerate(lefts):
                place = builder.add(left, builder.mul(whole, _I64(_SIZE[kind])))
                held = load_masked(builder, place, _STORED[kind], _SIZE[kind], mask)
                value = widen(builder, held, kind)
                added = fma(builder, value, column, sums[i][0])
                sums[i][0] = builder.select(has_tail, added, sums[i][0])
            store_sums(builder, sums, out)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return block


direct_block_f32 = _direct_block("f32")
direct_block_f16 = _direct_block("f16")
direct_block_bf16 = _direct_block("bf16")
