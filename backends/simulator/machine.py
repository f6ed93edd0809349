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
from tilewright.backends.simulator.fusion import fusions
from tilewright.backends.simulator.global_memory import GlobalMemory
from tilewright.backends.simulator.host_threads import FOUND, HostThreads, State
from tilewright.backends.simulator.schedule import Schedule as Schedule
from tilewright.backends.simulator.schedule import command_text, execution_order
from tilewright.backends.simulator.task_loops import loop_addresses
from tilewright.backends.simulator.task_runner import KIND, run_tasks
from tilewright.backends.simulator.tasks import Task, TaskBuilder, shared_ns, task_table
from tilewright.dialects.errors import SimulationError

POISON = 0xFF

POISONED_BYTES = 1 << 20
"""Kernels that use no more local memory than this, in all lanes, find it poisoned."""

SHARED_LAUNCH_NS = 100_000
"""A launch that has so much to share is worth waking a second thread (15 to 80 us)."""

LANE_GAP_BYTES = 4096 + 64
"""Host memory between lanes: equal offsets of all lanes would compete for the same cache sets."""


@dataclass(frozen=True)
class _Plan:
    """The tasks of a kernel in an order of execution."""

    table: Int64Array
    """A row for each GDMA command, then the others."""
    order: Int64Array
    """Rows of the table."""
    loops: Int64Array
    """Addresses of the compiled loops that it needs."""
    shared: bool
    """Whether launches are worth several threads."""
    read_late: tuple[int, ...]
    """Arguments that are read later than their LOAD commands say."""


@dataclass(frozen=True)
class _Decoded:
    """A kernel, checked and decoded."""

    kernel: Kernel
    gdma_tasks: list[Task]
    bdc_tasks: list[list[Task]]
    plans: dict[tuple[Schedule, bool], _Plan] = field(
        default_factory=dict[tuple[Schedule, bool], "_Plan"]
    )

    def plan(self, schedule: Schedule, builder: TaskBuilder, *, fused: bool) -> _Plan:
        """The tasks in an order of execution, those that `fusion` finds as one if `fused`."""
        if (schedule, fused) not in self.plans:
            self.plans[schedule, fused] = self._make_plan(schedule, builder, fused)
        return self.plans[schedule, fused]

    def _make_plan(self, schedule: Schedule, builder: TaskBuilder, fused: bool) -> _Plan:
        kernel = self.kernel
        order = execution_order(kernel, schedule)
        found = fusions(kernel, order, builder.lanes) if fused else []
        gdma, bdc = kernel.gdma, kernel.bdc
        bdc_tasks, left_out = list(self.bdc_tasks), set[int]()
        read_late: set[int] = set()
        for each in found:
            load = None if each.load is None else gdma[each.load]
            if load is not None and each.load is not None:
                left_out.add(each.load + 1)
                read_late.add(int(load["argument"]))
            if each.dequant is None:
                bdc_tasks[each.product] = builder.loaded_product(bdc[each.product], load)
                continue
            left_out.add(-each.dequant - 1)
            bdc_tasks[each.product] = builder.dequantized_product(
                bdc[each.product], bdc[each.dequant], load
            )
        tasks, first = list(self.gdma_tasks), list[int]()
        for each_command in bdc_tasks:
            first.append(len(tasks))
            tasks.extend(each_command)
        rows: list[int] = []
        for command in order:
            if command > 0 and command not in left_out:
                rows.append(command - 1)
            elif command < 0 and command not in left_out:
                index = -command - 1
                rows.extend(range(first[index], first[index] + len(bdc_tasks[index])))
        shared = shared_ns(tasks[row] for row in rows) >= SHARED_LAUNCH_NS
        places = np.array(rows, dtype=np.int64)
        table = task_table(tasks)
        loops = loop_addresses(table[places, KIND].tolist())
        return _Plan(table, places, loops, shared, tuple(sorted(read_late)))


class Machine:
    """A chip with its memories. Not to be used by several threads at once.

    `threads`: how many host threads share large commands (default: two, if there are two cores).
    What is computed does not depend on it. `fused`: whether a MM may dequantize its weights itself;
    tiles that nothing reads any more are then left out of local memory.
    """

    def __init__(self, chip: Chip, *, threads: int | None = None, fused: bool = True) -> None:
        self.chip = chip
        self._fused = fused
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
        plan = decoded.plan(schedule, self._builder, fused=self._fused)
        if _may_change(kernel, bases, plan.read_late):
            plan = decoded.plan(schedule, self._builder, fused=False)

        def part(thread: int, threads: int, state: State) -> None:
            run_tasks(plan.table, plan.order, bases, plan.loops, thread, threads, state)

        state = self._threads.run(part, together=plan.shared)
        if state[FOUND]:
            command = int(plan.order[state[FOUND] - 1]) + 1
            raise self._bad_index(decoded, command, int(state[FOUND + 1]), bases, name)

    def _decode(self, kernel: Kernel) -> _Decoded:
        known = self._decoded.get(id(kernel))
        if known is None or known.kernel is not kernel:
            check_kernel(kernel, self.chip)
            widths = row_bytes_of(kernel.gdma).tolist()
            tasks = [self._builder.transfer(*row) for row in zip(kernel.gdma, widths, strict=True)]
            known = _Decoded(kernel, tasks, [self._builder.tasks(record) for record in kernel.bdc])
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


def _may_change(kernel: Kernel, bases: Int64Array, numbers: tuple[int, ...]) -> bool:
    """Whether the kernel writes what one of these arguments refers to."""
    sizes = [argument.span_bytes for argument in kernel.arguments]
    return any(
        bases[number] < bases[other] + sizes[other] and bases[other] < bases[number] + sizes[number]
        for number in numbers
        for other, argument in enumerate(kernel.arguments)
        if argument.access != "read"
    )


def _index_at(host: int) -> int:
    return int.from_bytes(ctypes.string_at(host, 4), "little", signed=True)


def _where(kernel: Kernel, name: str, command: str = "") -> str:
    parts = [name, f"kernel {kernel.name} ({kernel.op})", command]
    return ", ".join(part for part in parts if part)
