"""The timing model: starts and ends by hand, and that every cycle is accounted for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.cost import bdc_cycles, gdma_cycles
from tilewright.backends.simulator.schedule import execution_order
from tilewright.backends.simulator.timing import EngineTime, time_kernel
from tilewright.dialects.errors import SimulationError

TILES = 3
TILE_ROWS, DEPTH = 384, 4096


def pipelined(bench: Any) -> Any:
    """W8A16 with one row: load tile i + 1 while tile i is computed, store tile i - 1."""
    lines = ["gdma 1 load 1x4096xf16 local=0/8192 global=0+0/8192"]
    gdma, bdc = 1, 0
    for tile in range(TILES):
        at = 16384 + tile % 2 * 122880
        rows, codes = tile * TILE_ROWS, tile * TILE_ROWS * DEPTH
        lines.append(f"gdma {gdma + 1} load 384x4096xi8 local={at}/4096 global=1+{codes}/4096")
        lines.append(f"gdma {gdma + 2} load 384x1xf16 local={at + 24576}/64 global=2+{2 * rows}/2")
        wide, y, row = at + 32768, at + 25600, at + 26624
        lines += [
            f"bdc {bdc + 1} dequant 384x4096 dst=f16:{wide}/8192 a=i8:{at}/4096 "
            f"b=f16:{at + 24576}/64 wait={gdma + 2}",
            f"bdc {bdc + 2} mm 384x1x4096 dst=f16:{y}/64 a=f16:{wide}/8192 b=f16:0/8192 "
            "transpose_right",
            f"bdc {bdc + 3} transpose 384x1 dst=f16:{row}/768 a=f16:{y}/64",
        ]
        gdma, bdc = gdma + 2, bdc + 3
        target = f"global=3+{2 * rows}/{2 * TILES * TILE_ROWS}"
        lines.append(f"gdma {gdma + 1} store 1x384xf16 local={row}/768 {target} wait={bdc}")
        gdma += 1
    n = TILES * TILE_ROWS
    arguments = [
        (np.zeros((1, DEPTH), np.float16), "read"),
        (np.zeros((n, DEPTH), np.int8), "read"),
        (np.zeros((n, 1), np.float16), "read"),
        (np.zeros((1, n), np.float16), "write"),
    ]
    return bench.kernel("\n".join(lines), arguments)


def check_accounts(engine: EngineTime, cycles: int) -> None:
    assert engine.busy + engine.waiting + engine.idle == cycles
    assert min(engine.busy, engine.waiting, engine.idle) >= 0
    assert sum(engine.busy_by.values()) == engine.busy
    assert sum(engine.waiting_for.values()) == engine.waiting
    assert int((engine.end - engine.start).sum()) == engine.busy
    assert int(engine.waited.sum()) == engine.waiting
    assert np.all(engine.start[1:] >= engine.end[:-1])


def test_two_engines_by_hand(chip: Any, bench: Any) -> None:
    """A load of 23 cycles, vector commands of 4 (3 + 1), a store of 14."""
    listing = """
    gdma 1 load 1x512xf16 local=0/1024 global=0+0/1024
    bdc 1 fill 1x16 dst=f32:32768/64 immediate=0.0
    bdc 2 neg 1x16 dst=f32:65536/64 a=f16:0/64 wait=1
    gdma 2 store 1x16xf32 local=65536/64 global=1+0/64 wait=2
    """
    arguments = [(np.zeros((1, 512), np.float16), "read"), (np.zeros((1, 16), np.float32), "write")]
    time = time_kernel(bench.kernel(listing, arguments), chip)
    assert time.gdma.start.tolist() == [0, 27]
    assert time.gdma.end.tolist() == [23, 41]
    assert time.bdc.start.tolist() == [0, 23]
    assert time.bdc.end.tolist() == [4, 27]
    assert time.cycles == 41
    assert (time.gdma.busy, time.gdma.waiting, time.gdma.idle) == (37, 4, 0)
    assert (time.bdc.busy, time.bdc.waiting, time.bdc.idle) == (8, 19, 14)
    assert dict(time.gdma.busy_by) == {"load": 23, "store": 14}
    assert dict(time.gdma.waiting_for) == {"neg": 4}
    assert dict(time.bdc.waiting_for) == {"load": 19}
    assert (time.bytes_in, time.bytes_out) == (1024, 64)


def test_a_pipelined_kernel(chip: Any, bench: Any) -> None:
    kernel = pipelined(bench)
    time = time_kernel(kernel, chip)
    for engine in (time.gdma, time.bdc):
        check_accounts(engine, time.cycles)
    assert time.gdma.busy == gdma_cycles(kernel.gdma, kernel.arguments, chip).sum()
    assert time.bdc.busy == bdc_cycles(kernel.bdc, chip).sum()
    assert time.cycles == max(time.gdma.end[-1], time.bdc.end[-1])
    assert time.bytes_in == DEPTH * 2 + TILES * TILE_ROWS * (DEPTH + 2)
    assert time.bytes_out == TILES * TILE_ROWS * 2


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_every_cycle_is_accounted_for(chip: Any, bench: Any, data: Any) -> None:
    """Random waits: each command starts as soon as its engine and the awaited command allow."""
    kernel = pipelined(bench)
    for records, others in ((kernel.gdma, kernel.bdc), (kernel.bdc, kernel.gdma)):
        records["wait"] = [data.draw(st.integers(0, len(others))) for _ in range(len(records))]
    try:
        time = time_kernel(kernel, chip)
    except SimulationError:
        with pytest.raises(SimulationError, match="deadlock"):
            execution_order(kernel, "late")
        return
    pairs = ((time.gdma, time.bdc, kernel.gdma), (time.bdc, time.gdma, kernel.bdc))
    for engine, other, records in pairs:
        check_accounts(engine, time.cycles)
        for i, wait in enumerate(records["wait"].tolist()):
            free = engine.end[i - 1] if i else 0
            awaited = other.end[wait - 1] if wait else 0
            assert engine.start[i] == max(free, awaited)


def test_an_empty_kernel_takes_no_time(chip: Any, bench: Any) -> None:
    time = time_kernel(bench.kernel("", []), chip)
    assert (time.cycles, time.gdma.busy, time.bdc.idle) == (0, 0, 0)


def test_deadlock(chip: Any, bench: Any) -> None:
    kernel = pipelined(bench)
    kernel.gdma["wait"][0] = 1
    with pytest.raises(SimulationError, match="deadlock"):
        time_kernel(kernel, chip)
