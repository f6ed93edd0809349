"""Combined checksums are those of the whole."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from tilewright.compiler.checksum import combine_crc32


@given(st.binary(), st.binary())
def test_two_parts(first: bytes, second: bytes) -> None:
    combined = combine_crc32(zlib.crc32(first), zlib.crc32(second), len(second))
    assert combined == zlib.crc32(first + second)


def test_a_long_part() -> None:
    zeros = bytes(3_000_001)
    assert combine_crc32(zlib.crc32(b"x"), zlib.crc32(zeros), len(zeros)) == zlib.crc32(
        b"x" + zeros
    )
