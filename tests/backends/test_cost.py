"""Costs against figures worked out by hand, and the two forms of the formulas compared."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.chip import CHIP_NAMES, Chip, load_chip
from tilewright.backends.cost import (
    bank_conflicts,
    bdc_cycles,
    gdma_bytes,
    gdma_cycles,
    matrix_cycles,
    transfer_cycles,
    vector_cycles,
)
from tilewright.backends.encoding.assembler import assemble
from tilewright.dialects.element_types import BF16, F16, F32, I8, ElementType

CHIP = load_chip("bm1684x")
COMMAND = CHIP.bdc_command_cycles


def bdc(line: str, chip: Chip = CHIP) -> int:
    return int(bdc_cycles(assemble(f"bdc 1 {line}")[1], chip)[0])


def gdma(line: str, chip: Chip = CHIP) -> int:
    return int(gdma_cycles(assemble(f"gdma 1 {line}")[0], (), chip)[0])


def test_figures_of_the_machine() -> None:
    """The rates that the chip's published schedules show, for K = 4096, N = 13696."""
    # 8192 f16 MACs a cycle with at least 4 result columns, 64 x 32 with one.
    assert matrix_cycles(512, 13696, 4096, F16, CHIP) - COMMAND == 3_506_176
    assert matrix_cycles(13696, 1, 4096, F16, CHIP) - COMMAND == 13696 * 4096 // 2048
    assert matrix_cycles(512, 13696, 4096, I8, CHIP) - COMMAND == 3_506_176 // 2
    # A vector pass over n 16-bit elements takes n / 2048 cycles.
    assert vector_cycles(13696, 4096, 2, CHIP) - COMMAND == 27_392
    # Weights stream at 54.02 of 64 GiB/s.
    assert CHIP.dma_bytes_per_cycle == pytest.approx(58.0, abs=0.001)
    streamed = transfer_cycles(13696, 4096, F16, 8192, CHIP) - CHIP.gdma_command_cycles
    assert streamed == math.ceil(112_197_632 / CHIP.dma_bytes_per_cycle)
    assert 1_934_400 < streamed < 1_934_500


def test_matrix_commands_by_hand() -> None:
    tiles = "dst={}:0/64 a={}:16384/64 b={}:32768/64 transpose_right"
    # 2 waves x 3 column groups x 4 steps of 32 products.
    assert bdc("mm 65x9x100 " + tiles.format("f32", "f16", "f16")) == 3 + 2 * 3 * 4
    assert bdc("mm 65x9x100 " + tiles.format("f32", "f32", "f32")) == 3 + 2 * 3 * 25
    assert bdc("mm 1x1x1 " + tiles.format("f16", "bf16", "bf16")) == 3 + 1


def test_vector_commands_by_hand() -> None:
    # 2 waves x ceil(100 elements / 16 or 32 a cycle).
    assert bdc("neg 65x100 dst=f16:0/256 a=f16:16384/256") == 3 + 2 * 4
    assert bdc("neg 65x100 dst=f16:0/256 a=f32:16384/448") == 3 + 2 * 7
    assert bdc("add 65x100 dst=f16:0/256 a=f16:16384/256 b=f32:32768/448") == 3 + 2 * 7
    assert bdc("add 65x100 dst=f16:0/256 a=f16:16384/256 b=f32:32768/64 column") == 3 + 2 * 7
    assert bdc("add 65x100 dst=f16:0/256 a=f16:16384/256 immediate=1.0") == 3 + 2 * 4
    assert bdc("dequant 65x100 dst=f16:0/256 a=i8:16384/128 b=f32:32768/64") == 3 + 2 * 4
    groups = "a=i8:16384/64 b=f16:32768/64 c=i8:32832/64 group=20"
    assert bdc(f"dequant_u4 65x100 dst=f16:0/256 {groups}") == 3 + 2 * 4
    assert bdc(f"dequant_i4 65x100 dst=f32:0/448 {groups}") == 3 + 2 * 7
    assert bdc("reduce_sum 65x100 dst=f32:0/64 a=f16:16384/256") == 3 + 2 * 7
    assert bdc("fill 65x100 dst=f16:0/256 immediate=0.0") == 3 + 2 * 4
    assert bdc("rotate 65x100 dst=f32:0/448 a=f16:16384/256 turned=100") == 3 + 2 * 7
    assert bdc("transpose 65x100 dst=f16:0/192 a=f16:16384/256") == 3 + 2 * 4 * 2


@pytest.mark.parametrize(
    "function", ["rsqrt", "sqrt", "reciprocal", "exp", "sigmoid", "tanh", "erf"]
)
def test_special_functions_take_more_passes(function: str) -> None:
    assert bdc(f"{function} 65x100 dst=f16:0/256 a=f16:16384/256") == 3 + 2 * 4 * 4


def test_division_takes_more_passes() -> None:
    assert bdc("div 65x100 dst=f16:0/256 a=f16:16384/256 b=f16:32768/256") == 3 + 2 * 4 * 4


def test_transfers_by_hand() -> None:
    rate = CHIP.dma_bytes_per_cycle

    def cost(units: int) -> int:
        return math.ceil(5 + units * 512 / rate)

    # One run of 4000 bytes; 10 runs of 400, each charged 512; 10 of 600, each charged 1024.
    assert gdma("load 10x200xf16 local=0/448 global=0+0/400") == cost(8)
    assert gdma("load 10x200xf16 local=0/448 global=0+0/401") == cost(10)
    assert gdma("store 10x300xf16 local=0/640 global=0+0/1024") == cost(20)
    assert gdma("load_replicated 1x300xf16 local=0/640 global=0+0/999") == cost(2)
    # 10 rows of 2 units, and 40 bytes of indices.
    listing = "gather 10x300xf16 local=0/640 global=0+0/600 index=1+0 table=99"
    assert gdma(listing) == cost(21)


def test_bytes_moved() -> None:
    records, _ = assemble(
        """
        gdma 1 load 10x200xf16 local=0/448 global=0+0/400
        gdma 2 store 10x300xi8 local=0/640 global=0+0/1024
        gdma 3 gather 10x300xi8 local=0/640 global=0+0/600 index=1+0 table=99
        gdma 4 scatter 10x300xi8 local=0/640 global=0+0/600 index=1+0 table=99
        """
    )
    read, written = gdma_bytes(records)
    assert read.tolist() == [4000, 0, 3040, 40]
    assert written.tolist() == [0, 3000, 0, 3000]


@pytest.mark.parametrize(
    ("operands", "conflict"),
    [
        ("dst=f32:0/64 a=f32:16384/64 b=f32:32768/64", False),
        ("dst=f32:0/64 a=f32:8192/64 b=f32:32768/64", True),
        ("dst=f32:0/64 a=f32:32768/64 b=f32:40000/64", True),
        ("dst=f32:32768/64 a=f32:0/64 b=f32:40000/64", True),
        # Three slots, 130 rows: the last slot decides.
        ("dst=f32:0/8192 a=f32:16384/64 b=f32:32768/64", True),
        ("dst=f32:0/8128 a=f32:16384/64 b=f32:32768/64", False),
        # A view of a wide tile touches banks 0, 2 and 4.
        ("dst=f32:0/32768 a=f32:16384/64 b=f32:49152/64", False),
        ("dst=f32:0/32768 a=f32:16384/64 b=f32:65536/64", True),
    ],
)
def test_bank_conflicts(operands: str, conflict: bool) -> None:
    line = f"bdc 1 add 130x16 {operands}"
    records = assemble(line)[1]
    assert bank_conflicts(records, CHIP).tolist() == [conflict]
    assert bdc(line.removeprefix("bdc 1 ")) == 3 + 3 * (2 if conflict else 1)


def test_absent_operands_do_not_conflict() -> None:
    assert bdc("neg 130x16 dst=f32:0/64 a=f32:16384/64 raw.b.offset=00000000") == 3 + 3
    assert bdc("fill 130x16 dst=f32:0/64 immediate=0.0") == 3 + 3


shapes = st.integers(1, 5000)


@given(
    rows=shapes,
    cols=shapes,
    depth=shapes,
    element=st.sampled_from([F32, F16, BF16]),
    chip=st.sampled_from(CHIP_NAMES).map(load_chip),
)
def test_scalar_forms_agree(
    rows: int, cols: int, depth: int, element: ElementType, chip: Any
) -> None:
    name, bank = element.name, chip.bank_bytes
    apart = f"dst={name}:0/0 a={name}:{bank}/0 b={name}:{2 * bank}/0"
    line = f"mm {rows}x{cols}x{depth} {apart}"
    records = assemble(f"bdc 1 {line}")[1]
    factor = chip.bank_conflict_factor if bank_conflicts(records, chip)[0] else 1
    steps = matrix_cycles(rows, cols, depth, element, chip) - chip.bdc_command_cycles
    assert bdc(line, chip) == chip.bdc_command_cycles + math.ceil(steps * factor)
    expected = vector_cycles(rows, cols, element.size_bytes, chip, chip.special_function_passes)
    single = f"exp {rows}x{cols} dst={name}:0/0 a={name}:{8 * bank}/0"
    if not bank_conflicts(assemble(f"bdc 1 {single}")[1], chip)[0]:
        assert bdc(single, chip) == expected
    for pitch in (cols * element.size_bytes, cols * element.size_bytes + 2):
        transfer = f"load {rows}x{cols}x{name} local=0/0 global=0+0/{pitch}"
        assert gdma(transfer, chip) == transfer_cycles(rows, cols, element, pitch, chip)
