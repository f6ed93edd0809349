"""Listings: exact inverses for any record, readable ones for records that make sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.encoding.assembler import assemble, bdc_text, disassemble, gdma_text
from tilewright.backends.encoding.records import BDC_RECORD, GDMA_RECORD, Records
from tilewright.backends.program import Kernel, KernelArgument
from tilewright.dialects.element_types import F16, I8
from tilewright.dialects.errors import SimulationError

LISTING = """\
// w8a16: tpu.W8A16MatMul
// 0: 1x4096xf16 pitch 8192 read
// 1: 384x4096xi8 pitch 4096 update
gdma 1 load 384x4096xi8 local=0/4096 global=1+0/4096
gdma 2 load_replicated 1x4096xf16 local=65536/0 global=0+0/8192
gdma 3 gather 16x4096xf16 local=0/8192 global=0+0/8192 index=2+64 table=65024 wait=3
gdma 4 scatter 16x4096xf16 local=0/8192 global=0+0/8192 index=2+64 table=65024
gdma 5 store 1x384xbf16 local=128/768 global=3+27392/768
bdc 1 dequant 384x4096 dst=f16:65536/8192 a=i8:0/4096 b=f16:24576/64 wait=1
bdc 2 mm 384x1x4096 dst=f32:0/64 a=f16:65536/8192 b=f16:131072/8192 transpose_right accumulate
bdc 3 exp 64x512 dst=f32:0/2048 a=f16:16384/1024
bdc 4 mul 64x512 dst=f32:0/2048 a=f32:16384/2048 immediate=0.125
bdc 5 add 64x512 dst=f32:0/2048 a=f32:16384/2048 b=f16:32768/1024
bdc 6 sub 64x512 dst=f32:0/2048 a=f32:16384/2048 b=f16:32768/1024 row
bdc 7 max 64x512 dst=f32:0/2048 a=f32:16384/2048 b=f16:32768/64 column
bdc 8 reduce_max 64x512 dst=f32:0/64 a=f32:16384/2048
bdc 9 transpose 64x512 dst=f32:0/256 a=f32:16384/2048
bdc 10 fill 1x512 dst=f16:0/1024 immediate=-inf replicated
bdc 11 rotate 64x128 dst=f32:0/512 a=f16:16384/256 turned=64 interleaved
bdc 12 dequant_u4 64x256 dst=f16:0/512 a=i8:16384/128 b=f16:32768/64 c=i8:32832/64 group=64
bdc 13 dequant_f8e5m2 64x256 dst=bf16:0/512 a=i8:16384/256 b=bf16:32768/64
"""


def kernel(gdma: Records, bdc: Records) -> Kernel:
    arguments = (
        KernelArgument(1, 4096, F16, 8192, "read"),
        KernelArgument(384, 4096, I8, 4096, "update"),
    )
    return Kernel("w8a16", "tpu.W8A16MatMul", arguments, gdma, bdc, 262144)


def test_a_listing_is_its_own_disassembly() -> None:
    assert disassemble(kernel(*assemble(LISTING))) == LISTING


def record_of(dtype: np.dtype[Any]) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize)


@given(
    data=st.lists(record_of(GDMA_RECORD), max_size=3),
    more=st.lists(record_of(BDC_RECORD), max_size=3),
)
def test_any_bytes_round_trip(data: list[bytes], more: list[bytes]) -> None:
    gdma = np.frombuffer(b"".join(data), GDMA_RECORD)
    bdc = np.frombuffer(b"".join(more), BDC_RECORD)
    again = assemble(disassemble(kernel(gdma, bdc)))
    assert again[0].tobytes() == gdma.tobytes()
    assert again[1].tobytes() == bdc.tobytes()


@given(
    opcode=st.integers(0, 9),
    function=st.integers(0, 12),
    flags=st.integers(0, 31),
    mode=st.integers(0, 5),
    bits=st.integers(0, 2**32 - 1),
    depth=st.integers(0, 3),
)
def test_plausible_bdc_records_round_trip(
    opcode: int, function: int, flags: int, mode: int, bits: int, depth: int
) -> None:
    record = np.zeros(1, BDC_RECORD)
    values = {"opcode": opcode, "function": function, "flags": flags, "b_mode": mode}
    for name, value in (values | {"id": 7, "depth": depth, "rows": 3, "cols": 5}).items():
        record[name] = value
    record["immediate"] = np.array([bits], np.uint32).view(np.float32)
    assert assemble(bdc_text(record[0]))[1].tobytes() == record.tobytes()


def test_unused_fields_that_are_set_are_shown() -> None:
    record = assemble("gdma 1 load 1x2xf32 local=0/64 global=0+0/8")[0]
    record["table_rows"] = 258
    expected = "gdma 1 load 1x2xf32 local=0/64 global=0+0/8 raw.table_rows=02010000"
    assert gdma_text(record[0]) == expected


def test_comments_and_blank_lines() -> None:
    gdma, bdc = assemble("\n  // nothing\n gdma 1 load 1x2xf32 local=0/64 global=0+0/8 // one\n")
    assert len(gdma) == 1
    assert len(bdc) == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("tpu 1 load", "'tpu' is no engine: gdma or bdc"),
        ("gdma", "not enough values to unpack (expected 3, got 0)"),
        ("gdma 1 lod 1x2xf32", r"'lod' is not of the form op(\d+)"),
        ("gdma 1 load 1xf32", "'1xf32' is no shape"),
        ("gdma 1 load 1x2xf64", "'f64' is no element type"),
        ("gdma 1 load 1x2xf32 local=0", r"'0' is not of the form (\d+)/(\d+)"),
        ("gdma 1 load 1x2xf32 depth=0", "'depth' is no field of this command"),
        ("gdma 1 load 1x2xf32 raw.wait=00", "buffer size must be a multiple of element size"),
        ("bdc 1 neg 1x2 dst=f32/0", "'dst=f32/0' is no operand: element:offset/stride"),
        ("bdc 1 neg 1x99999999999", "Python integer 99999999999 out of bounds for uint32"),
    ],
)
def test_what_is_no_command(line: str, why: str) -> None:
    with pytest.raises(SimulationError, match="not a command") as caught:
        assemble(f"\n{line}")
    assert caught.value.where == f"line 2: {line}"
    assert caught.value.why == why
