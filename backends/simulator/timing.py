"""When commands run: two in-order engines that wait for each other.

A command starts when its engine is free and the command of the other engine that it waits for has
finished; it takes what `backends.cost` says. Every cycle of an engine is accounted for: busy,
waiting for a command of the other engine, or idle after its last command. Times are whole cycles of
the compute clock, so the causes sum up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import Chip
from tilewright.backends.cost import bdc_cycles, gdma_bytes, gdma_cycles
from tilewright.backends.encoding.mnemonics import bdc_kinds, gdma_kinds
from tilewright.backends.encoding.operands import Int64Array
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.schedule import execution_order

_Kinds: TypeAlias = tuple[list[str], Int64Array]


@dataclass(frozen=True)
class EngineTime:
    """What one engine does, in cycles. `busy + waiting + idle` are the cycles of the kernel."""

    start: Int64Array
    """Cycle in which each command starts."""
    end: Int64Array
    """Cycle in which it has finished."""
    waited: Int64Array
    """Cycles that the engine stood still before it, for the command that it waits for."""
    busy: int
    waiting: int
    idle: int
    """Cycles after its last command."""
    busy_by: Mapping[str, int]
    """Cycles of commands, by their name."""
    waiting_for: Mapping[str, int]
    """Cycles of waiting, by the name of the awaited command."""


@dataclass(frozen=True)
class KernelTime:
    """The time of one launch of a kernel, and the bytes that it moves from and to global memory."""

    cycles: int
    gdma: EngineTime
    bdc: EngineTime
    bytes_in: int
    bytes_out: int


def time_kernel(kernel: Kernel, chip: Chip) -> KernelTime:
    """The time of one launch; raises `SimulationError` where the engines wait for each other."""
    gdma_costs = gdma_cycles(kernel.gdma, kernel.arguments, chip)
    bdc_costs = bdc_cycles(kernel.bdc, chip)
    gdma_end, bdc_end = _ends(kernel, gdma_costs.tolist(), bdc_costs.tolist())
    cycles = max([*gdma_end[-1:].tolist(), *bdc_end[-1:].tolist()], default=0)
    gdma_names, bdc_names = gdma_kinds(kernel.gdma), bdc_kinds(kernel.bdc)
    bytes_in, bytes_out = gdma_bytes(kernel.gdma)
    return KernelTime(
        cycles,
        _engine_time(gdma_end, gdma_costs, cycles, gdma_names, bdc_names, kernel.gdma["wait"]),
        _engine_time(bdc_end, bdc_costs, cycles, bdc_names, gdma_names, kernel.bdc["wait"]),
        int(bytes_in.sum()),
        int(bytes_out.sum()),
    )


def _ends(
    kernel: Kernel, gdma_costs: list[int], bdc_costs: list[int]
) -> tuple[Int64Array, Int64Array]:
    """The cycle in which each command of each engine has finished."""
    gdma_waits: list[int] = kernel.gdma["wait"].tolist()
    bdc_waits: list[int] = kernel.bdc["wait"].tolist()
    gdma_end, bdc_end = [0], [0]
    for command in execution_order(kernel):
        if command > 0:
            start = max(gdma_end[-1], bdc_end[gdma_waits[command - 1]])
            gdma_end.append(start + gdma_costs[command - 1])
        else:
            start = max(bdc_end[-1], gdma_end[bdc_waits[-command - 1]])
            bdc_end.append(start + bdc_costs[-command - 1])
    return np.array(gdma_end[1:], np.int64), np.array(bdc_end[1:], np.int64)


def _engine_time(
    end: Int64Array,
    costs: Int64Array,
    cycles: int,
    names: _Kinds,
    other_names: _Kinds,
    waits: npt.NDArray[np.uint32],
) -> EngineTime:
    start = end - costs
    waited = start - np.concatenate([[0], end])[:-1]
    held_up = waited > 0
    awaited = other_names[1][waits[held_up].astype(np.int64) - 1]
    busy, waiting = int(costs.sum()), int(waited.sum())
    return EngineTime(
        start,
        end,
        waited,
        busy,
        waiting,
        cycles - busy - waiting,
        _totals(names[0], names[1], costs),
        _totals(other_names[0], awaited, waited[held_up]),
    )


def _totals(names: list[str], which: Int64Array, cycles: Int64Array) -> Mapping[str, int]:
    sums = [(name, int(cycles[which == i].sum())) for i, name in enumerate(names)]
    return MappingProxyType({name: total for name, total in sums if total})
