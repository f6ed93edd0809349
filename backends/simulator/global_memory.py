"""The machine's global memory: arrays of the host, mapped at addresses, without a copy."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.chip import Chip
from tilewright.dialects.errors import SimulationError


@dataclass(frozen=True)
class Segment:
    """A mapped array, as bytes."""

    address: int
    data: npt.NDArray[np.uint8]
    host: int
    """Address of its first byte in the memory of this process."""
    writable: bool
    name: str

    @property
    def stop(self) -> int:
        """The address behind its last byte."""
        return self.address + len(self.data)

    def __str__(self) -> str:
        return f"{self.name or 'unnamed'} [{self.address:#x}, {self.stop:#x})"


class GlobalMemory:
    """Segments, sorted by address, that do not overlap."""

    def __init__(self, chip: Chip) -> None:
        self._range = (chip.global_base, chip.global_base + chip.global_bytes)
        self._segments: list[Segment] = []

    def map(self, address: int, array: npt.NDArray[Any], *, writable: bool, name: str = "") -> None:
        """Make `array` the memory from `address` on.

        Raises `SimulationError` if it is not contiguous, is read-only but to be `writable`, lies
        outside of the chip's memory or overlaps another one.
        """
        where = f"{name or 'unnamed'} at {address:#x}"
        if not array.flags.c_contiguous:
            raise SimulationError("only contiguous arrays can be mapped", where=where)
        if writable and not array.flags.writeable:
            raise SimulationError("a read-only array cannot be mapped writable", where=where)
        data = array.reshape(-1).view(np.uint8)
        segment = Segment(address, data, data.ctypes.data, writable, name)
        if address < self._range[0] or segment.stop > self._range[1]:
            raise SimulationError(
                "outside of global memory",
                where=where,
                why=f"{data.size} bytes do not lie in [{self._range[0]:#x}, {self._range[1]:#x})",
            )
        place = bisect_right(self._segments, address, key=_address)
        for other in self._segments[max(0, place - 1) : place + 1]:
            if other.address < segment.stop and address < other.stop:
                raise SimulationError("the memory is mapped already", where=where, why=str(other))
        insort(self._segments, segment, key=_address)

    def find(self, address: int, size: int) -> Segment | None:
        """The segment that all of `[address, address + size)` lies in, if there is one."""
        place = bisect_right(self._segments, address, key=_address)
        segment = self._segments[place - 1] if place else None
        return segment if segment is not None and address + size <= segment.stop else None

    def read(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """The bytes `[address, address + size)`, read-only and without a copy.

        Raises `SimulationError` where they do not all lie in one segment.
        """
        segment = self.find(address, size)
        if segment is None:
            raise SimulationError("no such global memory", where=f"{size} bytes at {address:#x}")
        start = address - segment.address
        view = segment.data[start : start + size]
        view.flags.writeable = False
        return view


def _address(segment: Segment) -> int:
    return segment.address
