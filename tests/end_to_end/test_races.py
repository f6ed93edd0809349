"""Every wait of every kernel is needed, and with all of them the timing of the engines is free.

The waits are removed one at a time, and lowered by one command: the vector clocks find a race, each
time. Whole models are run with DMA as early as possible and as late as legal: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import executable_of, language_model, model_of

from tilewright.backends.chip import Chip
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.check import check_kernel
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.schedule import Schedule
from tilewright.compiler.importers.synthetic import CHATGLM2_6B, CHATGLM_DEMO
from tilewright.compiler.pipeline import Built, CompileOptions, build_program, lower
from tilewright.compiler.runtime import LanguageModelSession, Session
from tilewright.dialects.errors import SimulationError

Array = npt.NDArray[Any]

PROMPT = [5, 64, 127, 790, 30, 1, 2]
STEPS = 4
FULL_SIZE = {**CHATGLM2_6B, "num_layers": 1}
"""All layers share their kernels."""


class Wait(NamedTuple):
    """A command that waits: its engine and place in the queue."""

    engine: str
    place: int


def waits_of(kernel: Kernel) -> list[Wait]:
    return [
        Wait(engine, int(index))
        for engine, records in (("gdma", kernel.gdma), ("bdc", kernel.bdc))
        for index in np.flatnonzero(records["wait"])
    ]


def without(kernel: Kernel, wait: Wait, lowered_by: int | None = None) -> Kernel:
    """The kernel without one wait, or with it for an earlier command."""
    records = (kernel.gdma if wait.engine == "gdma" else kernel.bdc).copy()
    records["wait"][wait.place] -= lowered_by or records["wait"][wait.place]
    return replace(kernel, **{wait.engine: records})


def is_found(kernel: Kernel, chip: Chip) -> bool:
    if find_races(kernel, chip):
        return True
    try:
        check_kernel(kernel, chip)
    except SimulationError:
        return True
    return False


def undetected(kernel: Kernel, chip: Chip, waits: list[Wait]) -> Iterator[str]:
    for wait in waits:
        for lowered_by in (None, 1):
            if not is_found(without(kernel, wait, lowered_by), chip):
                yield f"{kernel.name}: {wait} {lowered_by or 'removed'}"


def built(config: dict[str, Any], quant: str, seq: int) -> Built:
    module = model_of(config, seq).trace()
    return build_program(lower(module, CompileOptions(quant)), "bm1684x")


def waiting_kernels(program: Built) -> int:
    """Test all kernels of a program; how many waits they had."""
    count = 0
    for kernel in program.program.kernels:
        check_kernel(kernel, program.chip)
        assert find_races(kernel, program.chip) == []
        waits = waits_of(kernel)
        assert list(undetected(kernel, program.chip, waits)) == []
        assert waits or not (len(kernel.gdma) and len(kernel.bdc)), kernel.name
        count += len(waits)
    return count


@pytest.mark.parametrize("seq", [64, 512])
@pytest.mark.parametrize("quant", ["f16", "w8a16"])
def test_every_wait_is_needed_and_enough(quant: str, seq: int) -> None:
    assert waiting_kernels(built(CHATGLM_DEMO, quant, seq)) > 0


@pytest.mark.parametrize("quant", ["f16", "w8a16"])
def test_kernels_of_the_full_size(quant: str) -> None:
    """Rings come round many times."""
    few = waiting_kernels(built(CHATGLM_DEMO, quant, 64))
    assert waiting_kernels(built(FULL_SIZE, quant, 512)) > 5 * few


def test_a_wait_too_many_is_noticed() -> None:
    """One more wait, for what an earlier wait of the same queue implies."""
    program = built(CHATGLM_DEMO, "f16", 64)
    kernel = next(k for k in program.program.kernels if k.op == "tpu.Attention")
    bdc = kernel.bdc.copy()
    first = int(np.flatnonzero(bdc["wait"])[0])
    assert bdc["wait"][first + 1] == 0
    bdc["wait"][first + 1] = bdc["wait"][first]
    wait = Wait("bdc", first + 1)
    assert list(undetected(replace(kernel, bdc=bdc), program.chip, [wait]))


def generated(model: LanguageModelSession) -> tuple[list[int], list[Array]]:
    """Greedy tokens, and the logits of all steps."""
    logits = [model.prefill(PROMPT)]
    tokens: list[int] = []
    for position in range(len(PROMPT), len(PROMPT) + STEPS):
        tokens.append(int(np.argmax(logits[-1])))
        logits.append(model.decode(tokens[-1], position))
    return tokens, logits


@pytest.mark.parametrize("quant", ["f16", "w8a16"])
def test_both_extremes_of_timing_give_the_same_bits(quant: str) -> None:
    executable = executable_of(CHATGLM_DEMO, CompileOptions(quant), 64)
    schedules: tuple[Schedule, ...] = ("early", "late")
    runs: list[tuple[list[int], list[Array]]] = []
    for schedule in schedules:
        session = Session(
            executable.program, executable.chip, executable.weights.__getitem__, schedule=schedule
        )
        runs.append(generated(language_model(executable, session)))
    (tokens, logits), (late_tokens, late_logits) = runs
    assert tokens == late_tokens
    assert len(logits) == STEPS + 1
    for early, late in zip(logits, late_logits, strict=True):
        assert np.isfinite(early).all()
        assert early.tobytes() == late.tobytes()
