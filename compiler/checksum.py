"""CRC-32 of a whole from the CRC-32s of its parts, so that parts can be written in any order.

Source: zlib's `crc32_combine` (Mark Adler): appending n zero bytes multiplies a CRC by x**(8n)
modulo the polynomial.
"""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0xEDB88320
_X0 = 1 << 31
"""The polynomial 1, in the reflected bit order of CRC-32."""
_PERIOD = 32
"""x**(2**k) repeats with this period in k (modulo this polynomial)."""


def combine_crc32(first: int, second: int, second_bytes: int) -> int:
    """The CRC-32 of two pieces of data in a row, `second` being that of `second_bytes` bytes."""
    return _multiply(_power_of_x(second_bytes, 3), first) ^ second


def _multiply(a: int, b: int) -> int:
    product, bit = 0, _X0
    while bit:
        if a & bit:
            product ^= b
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product


def _power_of_x(count: int, exponent: int) -> int:
    """x**(count * 2**exponent) modulo the polynomial."""
    power = _X0
    while count:
        if count & 1:
            power = _multiply(_squares()[exponent % _PERIOD], power)
        count >>= 1
        exponent += 1
    return power


@cache
def _squares() -> tuple[int, ...]:
    """x**(2**k) for each k."""
    squares = [_X0 >> 1]
    for _ in range(_PERIOD - 1):
        squares.append(_multiply(squares[-1], squares[-1]))
    return tuple(squares)
