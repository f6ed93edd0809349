"""The simulated chip: executes kernels' records on local and global memory.

Local memory is poisoned (0xFF bytes, NaN in every float type) before a launch where it is small; in
any case `check_kernel`, which the machine runs once on every kernel, has proved that no command
reads what none has written.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import Chip
from tilewright.backends.encoding.operands import row_bytes_of
from tilewright.backends.encoding.records import GdmaOpcode
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.check import check_kernel
from tilewright.backends.simulator.data_mover import move_rows
from tilewright.backends.simulator.global_memory import GlobalMemory
from tilewright.backends.simulator.schedule import Schedule as Schedule
from tilewright.backends.simulator.schedule import command_text, execution_order
from tilewright.backends.simulator.tasks import Task, TaskBuilder
from tilewright.dialects.errors import SimulationError

POISON = 0xFF

POISONED_BYTES = 1 << 20
"""Kernels that use no more local memory than this, in all lanes, find it poisoned."""

SHARED_BYTES = 1 << 22
"""A transfer of so many bytes is worth a second thread."""

LANE_GAP_BYTES = 4096 + 64
"""Host memory between lanes: equal offsets of all lanes would compete for the same cache sets."""


@dataclass(frozen=True)
class _Transfer:
    """A GDMA record, decoded."""

    to_local: int
    rows: int
    row_bytes: int
    tile: int
    stride: int
    argument: int
    offset: int
    pitch: int
    index_argument: int
    """-1 for commands that take rows in order."""
    index_offset: int
    table_rows: int


@dataclass(frozen=True)
class _Decoded:
    """A kernel, checked and decoded."""

    kernel: Kernel
    gdma: list[_Transfer]
    bdc: list[list[Task]]
    orders: dict[Schedule, list[int]] = field(default_factory=dict[Schedule, list[int]])

    def order(self, schedule: Schedule) -> list[int]:
        if schedule not in self.orders:
            self.orders[schedule] = execution_order(self.kernel, schedule)
        return self.orders[schedule]


_Bases: TypeAlias = list[int]
"""Host addresses of a launch's arguments."""


class Machine:
    """A chip with its memories. Not to be used by several threads at once.

    `threads`: how many threads share large commands (default: two, if there are two cores).
    """

    def __init__(self, chip: Chip, *, threads: int | None = None) -> None:
        self.chip = chip
        self._memory = GlobalMemory(chip)
        lane_pitch = chip.lane_bytes + LANE_GAP_BYTES
        self._local = np.full((chip.lanes, lane_pitch), POISON, np.uint8)
        self._lane_pitch = lane_pitch
        self._builder = TaskBuilder(chip, self._local.ctypes.data, lane_pitch)
        self._decoded: dict[int, _Decoded] = {}
        self._threads = min(2, os.cpu_count() or 1) if threads is None else threads
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None

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
        for command in decoded.order(schedule):
            if command > 0:
                bad = self._transfer(decoded.gdma[command - 1], bases)
                if bad >= 0:
                    raise self._bad_index(decoded, command, bad, bases, name)
            else:
                for task in decoded.bdc[-command - 1]:
                    self._execute(task)

    def _decode(self, kernel: Kernel) -> _Decoded:
        known = self._decoded.get(id(kernel))
        if known is None or known.kernel is not kernel:
            check_kernel(kernel, self.chip)
            widths = row_bytes_of(kernel.gdma).tolist()
            gdma = [
                self._decode_transfer(record, width)
                for record, width in zip(kernel.gdma, widths, strict=True)
            ]
            known = _Decoded(kernel, gdma, [self._builder.tasks(record) for record in kernel.bdc])
            self._decoded[id(kernel)] = known
        return known

    def _decode_transfer(self, record: Any, width: int) -> _Transfer:
        opcode = int(record["opcode"])
        # The same row to every lane: as many rows as lanes, all at one place.
        replicated = opcode == GdmaOpcode.LOAD_REPLICATED
        indexed = opcode in (GdmaOpcode.GATHER, GdmaOpcode.SCATTER)
        return _Transfer(
            int(opcode not in (GdmaOpcode.STORE, GdmaOpcode.SCATTER)),
            self.chip.lanes if replicated else int(record["rows"]),
            width,
            self._local.ctypes.data + int(record["local_offset"]),
            int(record["local_stride"]),
            int(record["argument"]),
            int(record["global_offset"]),
            0 if replicated else int(record["pitch"]),
            int(record["index_argument"]) if indexed else -1,
            int(record["index_offset"]),
            int(record["table_rows"]),
        )

    def _bases(
        self, decoded: _Decoded, addresses: tuple[int, ...] | list[int], name: str
    ) -> _Bases:
        kernel = decoded.kernel
        if len(addresses) != len(kernel.arguments):
            raise SimulationError(
                f"{len(addresses)} addresses for {len(kernel.arguments)} arguments",
                where=_where(kernel, name),
            )
        bases: _Bases = []
        for number, (argument, address) in enumerate(zip(kernel.arguments, addresses, strict=True)):
            segment = self._memory.find(address, argument.span_bytes)
            if segment is None:
                why = f"{argument.span_bytes} bytes at {address:#x} are not mapped as one piece"
                raise self._bad_argument(decoded, number, "unmapped global memory", why, name)
            if argument.access != "read" and not segment.writable:
                what = "a write to read-only global memory"
                raise self._bad_argument(decoded, number, what, str(segment), name)
            bases.append(segment.host + address - segment.address)
        return bases

    def _transfer(self, transfer: _Transfer, bases: _Bases) -> int:
        indices = 0
        if transfer.index_argument >= 0:
            indices = bases[transfer.index_argument] + transfer.index_offset
        arguments = (
            transfer.to_local,
            transfer.row_bytes,
            self._lane_pitch,
            self.chip.lanes,
            transfer.tile,
            transfer.stride,
            bases[transfer.argument] + transfer.offset,
            transfer.pitch,
            indices,
            transfer.table_rows,
        )
        shared = indices == 0 and transfer.rows * transfer.row_bytes >= SHARED_BYTES
        return self._execute(Task(move_rows, transfer.rows, 1, shared, arguments))

    def _execute(self, task: Task) -> Any:
        function, units, grain, shared, arguments = task
        if not shared or self._pool is None:
            return function(0, units, *arguments)
        size = -(-units // (self._threads * grain)) * grain
        others = [
            self._pool.submit(function, first, min(first + size, units), *arguments)
            for first in range(size, units, size)
        ]
        result = function(0, min(size, units), *arguments)
        for other in others:
            other.result()
        return result

    def _bad_argument(
        self, decoded: _Decoded, number: int, what: str, why: str, name: str
    ) -> SimulationError:
        users = [i for i, transfer in enumerate(decoded.gdma, 1) if transfer.argument == number]
        command = command_text(decoded.kernel, users[0]) if users else "no command"
        return SimulationError(
            f"argument {number}: {what}", where=_where(decoded.kernel, name, command), why=why
        )

    def _bad_index(
        self, decoded: _Decoded, command: int, row: int, bases: _Bases, name: str
    ) -> SimulationError:
        transfer = decoded.gdma[command - 1]
        where = _where(decoded.kernel, name, command_text(decoded.kernel, command))
        index = _index_at(bases[transfer.index_argument] + transfer.index_offset + 4 * row)
        return SimulationError(
            f"index {row} is {index}, the table has {transfer.table_rows} rows", where=where
        )


def _index_at(host: int) -> int:
    return int.from_bytes(ctypes.string_at(host, 4), "little", signed=True)


def _where(kernel: Kernel, name: str, command: str = "") -> str:
    parts = [name, f"kernel {kernel.name} ({kernel.op})", command]
    return ", ".join(part for part in parts if part)
