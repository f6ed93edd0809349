"""The static check: a right kernel passes; each broken rule is named with its command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tilewright.backends.simulator.check import check_kernel
from tilewright.dialects.errors import SimulationError

GOOD = """
gdma 1 load 70x32xi8 local=0/64 global=0+0/32
gdma 2 load 70x1xf16 local=128/64 global=1+0/2
gdma 3 load_replicated 1x32xf16 local=256/64 global=2+0/64
gdma 4 gather 5x32xf16 local=320/64 global=2+0/64 index=3+0 table=6
bdc 1 dequant 70x32 dst=f16:16384/64 a=i8:0/64 b=f16:128/64 wait=2
bdc 2 add 70x32 dst=f16:32768/64 a=f16:16384/64 b=f16:256/64 row wait=3
bdc 3 mm 70x5x32 dst=f32:49152/64 a=f16:32768/64 b=f16:320/64 transpose_right wait=4
bdc 4 mm 70x5x32 dst=f32:49152/64 a=f16:32768/64 b=f16:320/64 transpose_right accumulate
bdc 5 rotate 70x5 dst=f32:65536/64 a=f32:49152/64 turned=4
bdc 6 exp 70x5 dst=f32:65536/64 a=f32:65536/64
gdma 5 store 70x5xf32 local=65536/64 global=4+0/20 wait=6
gdma 6 load 70x5xf32 local=65536/64 global=4+0/20
"""


def kernel(bench: Any, listing: str) -> Any:
    codes, scale = np.zeros((70, 32), np.int8), np.zeros((70, 1), np.float16)
    table, index = np.zeros((6, 32), np.float16), np.zeros((1, 5), np.int32)
    out = np.zeros((70, 5), np.float32)
    arrays = [codes, scale, table, index, out]
    arguments = [(array, "read") for array in arrays[:4]] + [(out, "write")]
    return bench.kernel(listing, arguments)


def test_a_right_kernel_passes(chip: Any, bench: Any) -> None:
    check_kernel(kernel(bench, GOOD), chip)


BROKEN = [
    # Both queues.
    ("gdma 2 load", "gdma 3 load", "ids are not 1, 2, 3, ..."),
    ("b=f16:128/64 wait=2", "b=f16:128/64 wait=7", "waits for a command that is not there, of 6"),
    # GDMA records.
    ("gdma 1 load", "gdma 1 op9", "unknown opcode"),
    ("70x32xi8", "70x32xe9", "unknown element code"),
    ("70x32xi8", "0x32xi8", "an empty transfer"),
    ("load_replicated 1x32", "load_replicated 2x32", "a replicated load takes one row"),
    ("local=0/64", "local=0/65", "the stride is not a multiple of 64 bytes"),
    ("f16 local=128/64", "f16 local=129/64", "misaligned: the offset is not a whole element"),
    ("local=0/64", "local=0/0", "the tile: its slots overlap"),
    ("local=0/64", "local=262144/64", "out of range: a lane has 262144 bytes"),
    ("global=0+0/32", "global=5+0/32", "there are only 5 arguments"),
    ("70x32xi8", "70x8xf32", "it does not have the element type of its argument"),
    ("global=1+0/2", "global=1+1/2", "the global offset is not a whole element"),
    ("global=0+0/32", "global=0+1/32", "it reaches beyond its argument"),
    ("global=0+0/32", "global=0+0/33", "it reaches beyond its argument"),
    ("global=0+0/32", "global=0+2000000000000/32", "the global offset is out of range"),
    ("global=0+0/32", "global=0+0/1152921504606846976", "the pitch is out of range"),
    ("index=3+0", "index=3+9223372036854775808", "the offset of its indices is out of range"),
    ("table=6", "table=7", "it reaches beyond its argument"),
    ("table=6", "table=0", "the table that it indexes has no rows"),
    ("index=3+0", "index=5+0", "there are only 5 arguments"),
    ("index=3+0", "index=2+0", "its indices are not i32"),
    ("index=3+0", "index=3+4", "its indices reach beyond their argument"),
    ("gdma 6 load 70x5xf32 local=65536/64 global=4+0/20",
     "gdma 6 store 5x32xf16 local=320/64 global=2+0/64",
     "it writes to an argument that is only read"),
    # BDC records.
    ("bdc 6 exp", "bdc 6 op3.99", "unknown opcode or function"),
    ("f16:256/64 row", "f16:256/64 raw.b_mode=09", "unknown mode of the right operand"),
    ("turned=4", "turned=4 accumulate", "a flag that this command does not have"),
    ("70x5x32 dst=f32:49152/64 a=f16:32768/64 b=f16:320/64 transpose_right wait",
     "70x5x0 dst=f32:49152/64 a=f16:32768/64 b=f16:320/64 transpose_right wait", "an empty tile"),
    ("a=f32:65536/64", "a=f32:65536/64 replicated", "a replicated tile has one row"),
    ("turned=4", "turned=3", "it turns a number of columns that is odd or too large"),
    ("turned=4", "turned=6", "it turns a number of columns that is odd or too large"),
    ("dst=f16:16384/64", "dst=i8:16384/64", "the result is not floating point"),
    ("a=f32:65536/64", "a=i32:65536/64", "operand a is not floating point"),
    ("a=i8:0/64", "a=f16:0/64", "codes are not int8"),
    ("b=f16:128/64", "b=i8:128/64", "operand b is not floating point"),
    ("a=f16:32768/64 b=f16:320/64 transpose_right wait",
     "a=f16:32768/64 b=bf16:320/64 transpose_right wait",
     "operands of a matrix multiply are of one type"),
    ("dst=f32:49152/64 a=f16:32768/64 b=f16:320/64 transpose_right acc",
     "dst=f16:49152/64 a=f16:32768/64 b=f16:320/64 transpose_right acc", "partial sums are f32"),
    ("dst=f16:16384/64", "dst=f16:16384/32", "operand dst: the stride is not a multiple of 64"),
    ("a=f32:49152/64", "a=f32:49154/64", "operand a: misaligned"),
    ("b=f16:128/64", "b=f16:262144/64", "operand b: out of range: a lane has 262144 bytes"),
    # Across records.
    ("dst=f16:16384/64", "dst=f16:0/64", "the result overlaps operand a"),
    ("dst=f16:32768/64", "dst=f16:256/64", "the result overlaps operand b"),
    ("a=f32:65536/64", "a=f32:65540/64", "the result overlaps operand a"),
    ("global=2+0/64\n", "global=2+0/64 wait=6\n", "deadlock: no engine can go on"),
    ("b=f16:128/64 wait=2", "b=f16:128/64 wait=1",
     "it reads byte 128 of lane 0, which no command has written"),
    ("70x32xi8", "69x32xi8", "it reads byte 64 of lane 5, which no command has written"),
    ("70x32xi8", "70x31xi8", "it reads byte 31 of lane 0, which no command has written"),
    ("load_replicated", "load", "it reads byte 256 of lane 1, which no command has written"),
    ("accumulate", "", None),
    ("wait=4\nbdc 4", "accumulate wait=4\nbdc 4",
     "it reads byte 49152 of lane 0, which no command has written"),
    ("gdma 5 store 70x5xf32", "gdma 5 store 69x5xf32",
     "it reads what has not been written of argument 4"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "message"), BROKEN, ids=lambda text: str(text)[:40])
def test_each_rule(chip: Any, bench: Any, right: str, wrong: str, message: str | None) -> None:
    assert GOOD.count(right) == 1
    broken = kernel(bench, GOOD.replace(right, wrong))
    if message is None:
        check_kernel(broken, chip)
        return
    with pytest.raises(SimulationError) as caught:
        check_kernel(broken, chip)
    assert message in caught.value.what
    assert caught.value.where is not None
    assert "kernel bench (test.Op)" in caught.value.where


def test_the_command_is_shown(chip: Any, bench: Any) -> None:
    with pytest.raises(SimulationError) as caught:
        check_kernel(
            kernel(bench, GOOD.replace("b=f16:128/64 wait=2", "b=f16:128/64 wait=1")), chip
        )
    assert str(caught.value) == (
        "it reads byte 128 of lane 0, which no command has written\n"
        "  where: kernel bench (test.Op), bdc 1 dequant 70x32 dst=f16:16384/64 a=i8:0/64 "
        "b=f16:128/64 wait=1"
    )


def test_local_memory_of_the_kernel(chip: Any, bench: Any) -> None:
    small = replace(kernel(bench, GOOD), local_bytes=65536 + 64)
    with pytest.raises(SimulationError, match="the kernel uses 65600 bytes of a lane"):
        check_kernel(small, chip)
    check_kernel(replace(small, local_bytes=65536 + 64 + 20), chip)
    with pytest.raises(SimulationError, match="300000 bytes of a lane, which has 262144"):
        check_kernel(replace(small, local_bytes=300000), chip)
