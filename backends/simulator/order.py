"""Races: accesses of the two engines that nothing orders.

Each engine is in order and names the last command of the other one that it waits for, so a vector
clock has two components: for each command, how many commands of the other engine have certainly
finished when it starts. That is the largest wait up to it in its own queue. Commands `g` and `b`
are ordered if one is within the other's clock; unordered ones race where they touch a common local
byte and one writes. Global memory is touched by the GDMA engine alone, in the order of its queue:
there are no races on it, gathers and scatters included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from tilewright.backends.accesses import LocalAccesses, bdc_accesses, gdma_accesses
from tilewright.backends.chip import Chip
from tilewright.backends.encoding.assembler import bdc_text, gdma_text
from tilewright.backends.encoding.operands import Int64Array
from tilewright.backends.program import Kernel

MAX_RACES = 1000
"""`find_races` stops after so many."""


@dataclass(frozen=True)
class Race:
    """GDMA command `gdma` and BDC command `bdc` (ids) both touch local byte `byte`, in no order."""

    gdma: int
    bdc: int
    byte: int
    description: str

    def __str__(self) -> str:
        return self.description


def find_races(kernel: Kernel, chip: Chip) -> list[Race]:
    """The pairs of commands that race, at most `MAX_RACES`, in order of the BDC command."""
    gdma, bdc = gdma_accesses(kernel.gdma, chip.lanes), bdc_accesses(kernel.bdc, chip.lanes)
    finished = np.maximum.accumulate(kernel.bdc["wait"].astype(np.int64))
    clocks = np.maximum.accumulate(kernel.gdma["wait"].astype(np.int64))
    found = np.zeros((MAX_RACES, 3), np.int64)
    count = _scan(_table(gdma), _table(bdc), clocks[gdma.command], finished[bdc.command], found)
    return [_race(kernel, *row) for row in np.unique(found[:count], axis=0).tolist()]


def _race(kernel: Kernel, bdc: int, gdma: int, byte: int) -> Race:
    text = (
        f"kernel {kernel.name} ({kernel.op}): nothing orders {gdma_text(kernel.gdma[gdma])} "
        f"and {bdc_text(kernel.bdc[bdc])}, which both touch local byte {byte}"
    )
    return Race(gdma + 1, bdc + 1, byte, text)


def _table(accesses: LocalAccesses) -> Int64Array:
    fields = (
        accesses.command,
        accesses.start,
        accesses.stop,
        accesses.width,
        accesses.stride,
        accesses.slots,
        accesses.write,
    )
    return np.ascontiguousarray(np.stack(fields, axis=1).astype(np.int64))


@njit(nogil=True, cache=True)
def _scan(gdma: Any, bdc: Any, clocks: Any, finished: Any, found: Any) -> Any:
    """Compare each BDC access with the GDMA accesses that are unordered with it.

    Those are a range of the queue, as the clocks ascend: behind those that have finished before it,
    up to those that wait for it.
    """
    count = 0
    first = 0
    stop = 0
    for i in range(len(bdc)):
        while first < len(gdma) and gdma[first, 0] < finished[i]:
            first += 1
        while stop < len(gdma) and clocks[stop] <= bdc[i, 0]:
            stop += 1
        for j in range(first, stop):
            if gdma[j, 1] >= bdc[i, 2] or bdc[i, 1] >= gdma[j, 2]:
                continue
            if not (gdma[j, 6] or bdc[i, 6]):
                continue
            byte = _common_byte(gdma[j], bdc[i])
            if byte >= 0:
                if count == len(found):
                    return count
                found[count, 0], found[count, 1], found[count, 2] = bdc[i, 0], gdma[j, 0], byte
                count += 1
    return count


@njit(nogil=True, cache=True)
def _common_byte(one: Any, other: Any) -> Any:
    """A byte of both accesses, or -1."""
    for slot in range(one[5]):
        start = one[1] + slot * one[4]
        near = max(0, (start - other[1] - other[3]) // max(1, other[4]) + 1)
        if near < other[5]:
            candidate = other[1] + near * other[4]
            if candidate < start + one[3]:
                return max(candidate, start)
    return -1
