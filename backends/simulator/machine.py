"""The simulated chip: executes kernels' records on local and global memory.

Local memory is poisoned (0xFF bytes, NaN in every float type) before a launch where it is small; in
any case `check_kernel`, which the machine runs once on every kernel, has proved that no command
reads what none has written.
"""

from __future__ import annotations

import ctypes
import os
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.operands import Int64Array, row_bytes_of
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.check import check_kernel
from tilewright.backends.simulator.global_memory import GlobalMemory
from tilewright.backends.simulator.host_threads import FOUND, HostThreads, State
from tilewright.backends.simulator.schedule import Schedule as Schedule
from tilewright.backends.simulator.schedule import command_text, execution_order
from tilewright.backends.simulator.task_runner import run_tasks
from tilewright.backends.simulator.tasks import TaskBuilder, shared_ns, task_table
from tilewright.dialects.errors import SimulationError

POISON = 0xFF

POISONED_BYTES = 1 << 20
"""Kernels that use no more local memory than this, in all lanes, find it poisoned."""

SHARED_LAUNCH_NS = 100_000
"""A launch that has so much to share is worth waking a second thread (15 to 80 us)."""

LANE_GAP_BYTES = 4096 + 64
"""Host memory between lanes: equal offsets of all lanes would compete for the same cache sets."""


@dataclass(frozen=True)
class _Decoded:
    """A kernel, checked and decoded: a row of `table` for each GDMA command, then the others."""

    kernel: Kernel
    table: Int64Array
    bdc_tasks: list[range]
    """For each BDC command its rows."""
    shared: bool
    """Whether its launches are worth several threads."""
    orders: dict[Schedule, Int64Array] = field(default_factory=dict[Schedule, Int64Array])

    def order(self, schedule: Schedule) -> Int64Array:
        """The rows of the table in an order of execution."""
        if schedule not in self.orders:
            tasks: list[int] = []
            for command in execution_order(self.kernel, schedule):
                tasks.extend([command - 1] if command > 0 else self.bdc_tasks[-command - 1])
            self.orders[schedule] = np.array(tasks, dtype=np.int64)
        return self.orders[schedule]


class Machine:
    """A chip with its memories. Not to be used by several threads at once.

    `threads`: how many host threads share large commands (default: two, if there are two cores).
    What is computed does not depend on it.
    """

    def __init__(self, chip: Chip, *, threads: int | None = None) -> None:
        self.chip = chip
        self._memory = GlobalMemory(chip)
        lane_pitch = chip.lane_bytes + LANE_GAP_BYTES
        self._local = np.full((chip.lanes, lane_pitch), POISON, np.uint8)
        self._lane_pitch = lane_pitch
        self._builder = TaskBuilder(chip, self._local.ctypes.data, lane_pitch)
        self._decoded: dict[int, _Decoded] = {}
        self._threads = HostThreads(min(2, os.cpu_count() or 1) if threads is None else threads)

    def beside(self) -> Machine:
        """A machine with global memory of its own, none yet, on the same local memory: kernels that
        one has checked and decoded the other knows."""
        other = copy(self)
        other._memory = GlobalMemory(self.chip)
        return other

    @property
    def local(self) -> npt.NDArray[np.uint8]:
        """Local memory, `[lanes, lane_bytes]`."""
        return self._local[:, : self.chip.lane_bytes]

    def map(self, address: int, array: npt.NDArray[Any], *, writable: bool, name: str = "") -> None:
        """Make `array` the global memory from `address` on (see `GlobalMemory.map`)."""
        self._memory.map(address, array, writable=writable, name=name)

    def read(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """Bytes of global memory, read-only and without a copy."""
        return self._memory.read(address, size)

    def run(
        self,
        kernel: Kernel,
        addresses: tuple[int, ...] | list[int],
        *,
        schedule: Schedule = "early",
        name: str = "",
    ) -> None:
        """Execute a kernel with its arguments at `addresses`; `name` is the launch's, for errors.

        Raises `SimulationError` naming command, kernel and launch where the kernel breaks a rule
        (`check_kernel`), an argument is not mapped or not writable, or a row index is out of range.
        """
        decoded = self._decode(kernel)
        bases = self._bases(decoded, addresses, name)
        if kernel.local_bytes * self.chip.lanes <= POISONED_BYTES:
            self._local[:, : kernel.local_bytes] = POISON
        order = decoded.order(schedule)

        def part(thread: int, threads: int, state: State) -> None:
            run_tasks(decoded.table, order, bases, thread, threads, state)

        state = self._threads.run(part, together=decoded.shared)
        if state[FOUND]:
            command = int(order[state[FOUND] - 1]) + 1
            raise self._bad_index(decoded, command, int(state[FOUND + 1]), bases, name)

    def _decode(self, kernel: Kernel) -> _Decoded:
        known = self._decoded.get(id(kernel))
        if known is None or known.kernel is not kernel:
            check_kernel(kernel, self.chip)
            widths = row_bytes_of(kernel.gdma).tolist()
            tasks = [self._builder.transfer(*row) for row in zip(kernel.gdma, widths, strict=True)]
            bdc_tasks: list[range] = []
            for record in kernel.bdc:
                first = len(tasks)
                tasks.extend(self._builder.tasks(record))
                bdc_tasks.append(range(first, len(tasks)))
            shared = shared_ns(tasks) >= SHARED_LAUNCH_NS
            known = _Decoded(kernel, task_table(tasks), bdc_tasks, shared)
            self._decoded[id(kernel)] = known
        return known

    def _bases(
        self, decoded: _Decoded, addresses: tuple[int, ...] | list[int], name: str
    ) -> Int64Array:
        """Host addresses of a launch's arguments."""
        kernel = decoded.kernel
        if len(addresses) != len(kernel.arguments):
            raise SimulationError(
                f"{len(addresses)} addresses for {len(kernel.arguments)} arguments",
                where=_where(kernel, name),
            )
        bases: list[int] = []
        for number, (argument, address) in enumerate(zip(kernel.arguments, addresses, strict=True)):
            segment = self._memory.find(address, argument.span_bytes)
            if segment is None:
                why = f"{argument.span_bytes} bytes at {address:#x} are not mapped as one piece"
                raise self._bad_argument(decoded, number, "unmapped global memory", why, name)
            if argument.access != "read" and not segment.writable:
                what = "a write to read-only global memory"
                raise self._bad_argument(decoded, number, what, str(segment), name)
            bases.append(segment.host + address - segment.address)
        return np.array(bases, dtype=np.int64)

    def _bad_argument(
        self, decoded: _Decoded, number: int, what: str, why: str, name: str
    ) -> SimulationError:
        users = np.flatnonzero(decoded.kernel.gdma["argument"] == number)
        command = command_text(decoded.kernel, int(users[0]) + 1) if len(users) else "no command"
        return SimulationError(
            f"argument {number}: {what}", where=_where(decoded.kernel, name, command), why=why
        )

    def _bad_index(
        self, decoded: _Decoded, command: int, row: int, bases: Int64Array, name: str
    ) -> SimulationError:
        record = decoded.kernel.gdma[command - 1]
        where = _where(decoded.kernel, name, command_text(decoded.kernel, command))
        indices = int(bases[record["index_argument"]]) + int(record["index_offset"])
        index, rows = _index_at(indices + 4 * row), int(record["table_rows"])
        return SimulationError(f"index {row} is {index}, the table has {rows} rows", where=where)


def _index_at(host: int) -> int:
    return int.from_bytes(ctypes.string_at(host, 4), "little", signed=True)


def _where(kernel: Kernel, name: str, command: str = "") -> str:
    parts = [name, f"kernel {kernel.name} ({kernel.op})", command]
    return ", ".join(part for part in parts if part)
