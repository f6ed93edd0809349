"""The passes from kernels to commands, all together: numbers, races, waits, time."""

from __future__ import annotations

from dataclasses import replace
from time import process_time

import numpy as np
import pytest
from tests.passes.lowering import CHIP, KERNELS, PASSES, emitted, expected, inputs_of, matmul, run
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.program import Kernel
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.timing import time_kernel
from tilewright.dialects.context import make_context
from tilewright.passes import allocate_local_memory
from tilewright.passes.kernels.packing import pack


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("skip", [(), ("double-buffer",)], ids=["all", "plain"])
def test_numbers_are_right_at_any_timing(name: str, skip: tuple[str, ...]):
    kernel = emitted(KERNELS[name](), skip=skip)
    assert find_races(kernel, CHIP) == []
    arrays = inputs_of(kernel)
    early, late = (run(kernel, arrays, schedule) for schedule in ("early", "late"))
    for number, exact in expected(name, arrays).items():
        assert np.array_equal(early[number], late[number])
        assert np.allclose(early[number].astype(np.float64), exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", KERNELS)
def test_pipelining_changes_no_bit(name: str):
    pipelined, plain = emitted(KERNELS[name]()), emitted(KERNELS[name](), skip=["double-buffer"])
    arrays = inputs_of(plain)
    for one, other in zip(
        run(pipelined, arrays, "early"), run(plain, arrays, "early"), strict=True
    ):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("skip", [(), ("double-buffer",)], ids=["all", "plain"])
def test_numbers_are_right_where_all_dead_space_is_used(
    name: str, skip: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    roomy = emitted(KERNELS[name](), skip=skip)
    monkeypatch.setattr(allocate_local_memory, "place", lambda wanted, *_: pack(wanted)[0])
    tight = emitted(KERNELS[name](), skip=skip)
    assert tight.local_bytes <= roomy.local_bytes
    assert find_races(tight, CHIP) == []
    arrays = inputs_of(roomy)
    exact = run(roomy, arrays, "early")
    for schedule in ("early", "late"):
        for one, other in zip(run(tight, arrays, schedule), exact, strict=True):
            assert np.array_equal(one, other)


def without_wait(kernel: Kernel, engine: str, command: int) -> Kernel:
    records = (kernel.gdma if engine == "gdma" else kernel.bdc).copy()
    records["wait"][command] = 0
    return replace(kernel, **{engine: records})


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("skip", [(), ("double-buffer",)], ids=["all", "plain"])
def test_no_wait_can_be_left_out(name: str, skip: tuple[str, ...]):
    kernel = emitted(KERNELS[name](), skip=skip)
    waits = [
        (engine, int(command))
        for engine, records in (("gdma", kernel.gdma), ("bdc", kernel.bdc))
        for command in np.flatnonzero(records["wait"])
    ]
    assert waits
    for engine, command in waits:
        assert find_races(without_wait(kernel, engine, command), CHIP), (engine, command)


def test_pipelining_overlaps_the_engines():
    pipelined = time_kernel(emitted(matmul(512, 512, 512)), CHIP).cycles
    plain = time_kernel(emitted(matmul(512, 512, 512), skip=["double-buffer"]), CHIP).cycles
    assert pipelined < plain


def test_the_passes_are_quick():
    """40 ops and 1000 commands take less than 60 ms on a quiet machine; here with room to spare."""
    seconds: list[float] = []
    for _ in range(3):
        module, context = ModuleOp([matmul(512, 320, 512)]), make_context()
        start = process_time()
        for each in PASSES:
            each.apply(context, module)
        seconds.append(process_time() - start)
    assert min(seconds) < 0.3
