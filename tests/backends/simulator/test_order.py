"""Races: random programs with exactly the waits that they need, and with one of them missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.accesses import bdc_accesses, conflict, gdma_accesses
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.machine import Machine
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.schedule import execution_order
from tilewright.dialects.errors import SimulationError

BUFFERS = 5
ROWS, COLS = 70, 8
"""Buffer `i` is 64 bytes of every slot: the slots of all buffers interleave."""


class Step(NamedTuple):
    """A command on buffers, in the order in which they are meant to run."""

    kind: str
    source: int
    target: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["load", "store", "neg", "add"]),
        st.integers(0, BUFFERS - 1),
        st.integers(0, BUFFERS - 1),
    ).filter(lambda step: step.kind in ("load", "store") or step.source != step.target),
    min_size=1,
    max_size=25,
)


def place(buffer: int) -> str:
    return f"{64 * buffer}/{64 * BUFFERS}"


def program(bench: Any, body: list[Step]) -> tuple[Kernel, list[int]]:
    """A kernel of `body` without waits, and its sequential order (`execution_order`'s form)."""
    gdma = bdc = 0
    lines: list[str] = []
    order: list[int] = []
    every = [Step("load", i, i) for i in range(BUFFERS)] + body
    every += [Step("store", i, i) for i in range(BUFFERS)]
    for number, step in enumerate(every):
        if step.kind in ("load", "store"):
            gdma += 1
            order.append(gdma)
            argument, row = (0, step.source) if step.kind == "load" else (1, number)
            where = f"global={argument}+{row * ROWS * COLS * 4}/{COLS * 4}"
            lines.append(
                f"gdma {gdma} {step.kind} {ROWS}x{COLS}xf32 local={place(step.target)} {where}"
            )
        else:
            bdc += 1
            order.append(-bdc)
            operands = f"dst=f32:{place(step.target)} a=f32:{place(step.source)}"
            if step.kind == "add":
                operands += f" b=f32:{place(step.target)}"
            lines.append(f"bdc {bdc} {step.kind} {ROWS}x{COLS} {operands}")
    source = np.zeros((ROWS * BUFFERS, COLS), np.float32)
    target = np.zeros((ROWS * len(every), COLS), np.float32)
    kernel = bench.kernel("\n".join(lines), [(source, "read"), (target, "write")])
    return kernel, order


def set_minimal_waits(kernel: Kernel, order: list[int], lanes: int) -> None:
    """Each command waits for the last conflicting one before it, unless its queue has already."""
    gdma, bdc = gdma_accesses(kernel.gdma, lanes), bdc_accesses(kernel.bdc, lanes)
    clock = {"gdma": 0, "bdc": 0}
    for position, command in enumerate(order):
        mine = gdma.of(command - 1) if command > 0 else bdc.of(-command - 1)
        needed = 0
        for other in order[:position]:
            if (other > 0) == (command > 0):
                continue
            theirs = gdma.of(other - 1) if other > 0 else bdc.of(-other - 1)
            if any(conflict(one, two) for one in mine for two in theirs):
                needed = max(needed, abs(other))
        engine = "gdma" if command > 0 else "bdc"
        if needed > clock[engine]:
            clock[engine] = needed
            records = kernel.gdma if command > 0 else kernel.bdc
            records["wait"][abs(command) - 1] = needed


@given(body=steps)
@settings(max_examples=60, deadline=None)
def test_minimal_waits_suffice_and_every_one_is_needed(
    chip: Any, bench: Any, body: list[Step]
) -> None:
    kernel, order = program(bench, body)
    set_minimal_waits(kernel, order, chip.lanes)
    assert find_races(kernel, chip) == []
    for records in (kernel.gdma, kernel.bdc):
        for index in np.flatnonzero(records["wait"]):
            kept = records["wait"][index]
            records["wait"][index] = 0
            ids = [(race.gdma, race.bdc) for race in find_races(kernel, chip)]
            pair = (index + 1, kept) if records is kernel.gdma else (kept, index + 1)
            assert pair in ids
            records["wait"][index] = kept


@given(body=steps)
@settings(max_examples=30, deadline=None)
def test_both_schedules_compute_the_sequential_result(
    chip: Any, bench: Any, body: list[Step]
) -> None:
    kernel, order = program(bench, body)
    set_minimal_waits(kernel, order, chip.lanes)
    results = [execute(chip, kernel, schedule) for schedule in ("early", "late")]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], interpret(body))


def execute(chip: Any, kernel: Kernel, schedule: Any) -> Any:
    base = chip.global_base
    span = kernel.arguments[1]
    target = np.zeros((span.rows, span.cols), np.float32)
    machine = Machine(chip, threads=1)
    machine.map(base, source(), writable=False)
    machine.map(base + (1 << 30), target, writable=True)
    machine.run(kernel, [base, base + (1 << 30)], schedule=schedule)
    return target


def source() -> Any:
    values = np.random.default_rng(0).integers(-99, 99, (ROWS * BUFFERS, COLS))
    return values.astype(np.float32)


def interpret(body: list[Step]) -> Any:
    """The program in numpy."""
    inputs = source().reshape(BUFFERS, ROWS, COLS)
    buffers = inputs.copy()
    every = [Step("load", i, i) for i in range(BUFFERS)] + body
    every += [Step("store", i, i) for i in range(BUFFERS)]
    result = np.zeros((len(every), ROWS, COLS), np.float32)
    for number, (kind, first, second) in enumerate(every):
        if kind == "load":
            buffers[second] = inputs[first]
        elif kind == "store":
            result[number] = buffers[second]
        elif kind == "neg":
            buffers[second] = -buffers[first]
        else:
            buffers[second] = buffers[first] + buffers[second]
    return result.reshape(-1, COLS)


@given(body=steps, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_agrees_with_all_pairs(chip: Any, bench: Any, body: list[Step], seed: int) -> None:
    """Against the definition, on programs with random waits."""
    kernel, order = program(bench, body)
    set_minimal_waits(kernel, order, chip.lanes)
    random = np.random.default_rng(seed)
    for records in (kernel.gdma, kernel.bdc):
        records["wait"] *= random.integers(0, 2, len(records)).astype(np.uint32)
    gdma, bdc = gdma_accesses(kernel.gdma, chip.lanes), bdc_accesses(kernel.bdc, chip.lanes)
    expected: list[tuple[int, int]] = []
    for b in range(len(kernel.bdc)):
        for g in range(len(kernel.gdma)):
            ordered = max(kernel.bdc["wait"][: b + 1]) > g or max(kernel.gdma["wait"][: g + 1]) > b
            pairs = [(one, two) for one in gdma.of(g) for two in bdc.of(b)]
            if not ordered and any(conflict(one, two) for one, two in pairs):
                expected.append((g + 1, b + 1))
    found = {(race.gdma, race.bdc) for race in find_races(kernel, chip)}
    assert found == set(expected)


def test_a_race_is_described(chip: Any, bench: Any) -> None:
    listing = """
    gdma 1 load 1x8xf32 local=0/64 global=0+0/32
    bdc 1 neg 1x8 dst=f32:64/64 a=f32:0/64
    """
    kernel = bench.kernel(listing, [(np.zeros((1, 8), np.float32), "read")])
    (race,) = find_races(kernel, chip)
    assert str(race) == (
        "kernel bench (test.Op): nothing orders gdma 1 load 1x8xf32 local=0/64 global=0+0/32 "
        "and bdc 1 neg 1x8 dst=f32:64/64 a=f32:0/64, which both touch local byte 0"
    )


def test_tiles_side_by_side_in_the_same_slots_do_not_race(chip: Any, bench: Any) -> None:
    listing = """
    gdma 1 load 130x8xf32 local=0/128 global=0+0/32
    bdc 1 fill 130x8 dst=f32:{offset}/128 immediate=1.0
    """
    arguments = [(np.zeros((130, 8), np.float32), "read")]
    for offset, count in [(32, 0), (64, 0), (28, 1), (96, 0), (100, 1), (384, 0)]:
        kernel = bench.kernel(listing.format(offset=offset), arguments)
        assert len(find_races(kernel, chip)) == count, offset


def test_both_engines_waiting_for_each_other(bench: Any) -> None:
    listing = """
    gdma 1 load 1x8xf32 local=0/64 global=0+0/32 wait=1
    bdc 1 neg 1x8 dst=f32:64/64 a=f32:0/64 wait=1
    """
    kernel = bench.kernel(listing, [(np.zeros((1, 8), np.float32), "read")])
    with pytest.raises(SimulationError, match="deadlock") as caught:
        execution_order(kernel)
    assert caught.value.why == (
        "gdma 1 load 1x8xf32 local=0/64 global=0+0/32 wait=1; "
        "bdc 1 neg 1x8 dst=f32:64/64 a=f32:0/64 wait=1"
    )
