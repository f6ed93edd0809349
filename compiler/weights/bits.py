"""Floats as their bits and back, for loops that numba compiles.

The type of an element says what float its bits are: `uint16` f16, `int16` bf16, `uint32` f32.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_I32, _FLOAT = ir.IntType(32), ir.FloatType()


def build_float(builder: Any, element: Any, bits: Any, lanes: int = 0) -> Any:
    """The float32 of the bits of a weight (numba has no f16 on CPUs; LLVM has); of `lanes`, if it
    is a vector."""

    def shaped(scalar: Any) -> Any:
        return ir.VectorType(scalar, lanes) if lanes else scalar

    if element == types.uint16:
        return builder.fpext(builder.bitcast(bits, shaped(ir.HalfType())), shaped(_FLOAT))
    if element == types.int16:
        wide = builder.zext(bits, shaped(_I32))
        sixteen = ir.Constant(shaped(_I32), [16] * lanes if lanes else 16)
        bits = builder.shl(wide, sixteen)
    return builder.bitcast(bits, shaped(_FLOAT))


def _type_value_of(typingctx: Any, bits: Any) -> Any:
    """The float32 of a weight's bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return build_float(builder, bits, arguments[0])

    return types.float32(bits), generate


def _type_magnitude(typingctx: Any, bits: Any) -> Any:
    """The bits without the sign, as a signed integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = arguments[0].type
        return builder.and_(arguments[0], ir.Constant(integer, (1 << (integer.width - 1)) - 1))

    return types.Integer.from_bitwidth(bits.bitwidth, signed=True)(bits), generate


def _type_ordered(typingctx: Any, bits: Any) -> Any:
    """A signed integer that ascends with the value of the float; applied twice, the bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = arguments[0].type
        most = (1 << (integer.width - 1)) - 1
        sign = builder.ashr(arguments[0], ir.Constant(integer, integer.width - 1))
        flips = builder.and_(sign, ir.Constant(integer, most))
        return builder.xor(arguments[0], flips)

    return types.Integer.from_bitwidth(bits.bitwidth, signed=True)(bits), generate


def _type_float_from_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.uint32), generate


def _type_bits_from_float(typingctx: Any, value: Any) -> Any:
    """The bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _I32)

    return types.uint32(types.float32), generate


def _type_multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """`a * b + c` in float32, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


value_of: Any = intrinsic(_type_value_of)
magnitude: Any = intrinsic(_type_magnitude)
ordered: Any = intrinsic(_type_ordered)
float_from_bits: Any = intrinsic(_type_float_from_bits)
bits_from_float: Any = intrinsic(_type_bits_from_float)
multiply_add: Any = intrinsic(_type_multiply_add)
