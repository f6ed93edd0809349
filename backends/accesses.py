"""Which bytes of local memory a command touches: what waits and races are derived from.

A tile's row `r` lies on lane `r % lanes`, slot `r // lanes`, and every tile starts at lane 0. So
lane 0 takes part in every slot, and two tiles share memory exactly where their slots share bytes:
an access is a row of equal byte ranges, `slots` times `width` bytes, `stride` bytes apart.

Global memory is touched by the GDMA engine alone, in the order of its queue: it never needs a wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tilewright.backends.encoding.operands import (
    OPERANDS,
    operand_row_bytes,
    operand_shapes,
    row_bytes_of,
)
from tilewright.backends.encoding.records import GdmaOpcode, Records

Integers = npt.NDArray[np.int64]


class LocalAccess(NamedTuple):
    """Bytes `[start + s * stride, start + s * stride + width)`, for `s` in `range(slots)`."""

    start: int
    width: int
    stride: int
    slots: int
    write: bool

    @property
    def stop(self) -> int:
        """The byte behind the last one."""
        return self.start + (self.slots - 1) * self.stride + self.width


@dataclass(frozen=True)
class LocalAccesses:
    """The accesses of many commands, in ascending order of `command` (an index, not an id).

    A command may have several accesses.
    """

    command: Integers
    start: Integers
    width: Integers
    stride: Integers
    slots: Integers
    write: npt.NDArray[np.bool_]

    @property
    def stop(self) -> Integers:
        """The byte behind the last one of each access."""
        return self.start + (self.slots - 1) * self.stride + self.width

    def of(self, command: int) -> list[LocalAccess]:
        """The accesses of one command."""
        low, high = np.searchsorted(self.command, [command, command + 1])
        return [
            LocalAccess(
                int(self.start[i]),
                int(self.width[i]),
                int(self.stride[i]),
                int(self.slots[i]),
                bool(self.write[i]),
            )
            for i in range(low, high)
        ]


def share_bytes(one: LocalAccess, other: LocalAccess) -> bool:
    """Whether two accesses touch a common byte."""
    if one.start >= other.stop or other.start >= one.stop:
        return False
    if one.slots > other.slots:
        one, other = other, one
    for slot in range(one.slots):
        start = one.start + slot * one.stride
        # The first slot of `other` that ends behind `start`.
        near = max(0, (start - other.start - other.width) // max(1, other.stride) + 1)
        if near < other.slots and other.start + near * other.stride < start + one.width:
            return True
    return False


def conflict(one: LocalAccess, other: LocalAccess) -> bool:
    """Whether two accesses need an order: they share bytes and one writes."""
    return (one.write or other.write) and share_bytes(one, other)


def gdma_accesses(records: Records, lanes: int) -> LocalAccesses:
    """The local access of each GDMA command: a load or gather writes, a store or scatter reads."""
    stored = np.isin(records["opcode"], [GdmaOpcode.STORE, GdmaOpcode.SCATTER])
    return _collect(
        [
            (
                np.arange(len(records)),
                _integers(records["local_offset"]),
                row_bytes_of(records),
                _integers(records["local_stride"]),
                -(-_integers(records["rows"]) // lanes),
                ~stored,
            )
        ]
    )


def bdc_accesses(records: Records, lanes: int) -> LocalAccesses:
    """The local accesses of each BDC command: its result, then its operands.

    An accumulating command reads its result too; as it writes it, that adds nothing.
    """
    parts: list[tuple[Any, ...]] = []
    for name in OPERANDS:
        rows = operand_shapes(records, name)[0]
        present = rows > 0
        operand = records[name][present]
        parts.append(
            (
                np.flatnonzero(present),
                _integers(operand["offset"]),
                operand_row_bytes(records, name)[present],
                _integers(operand["stride"]),
                -(-rows[present] // lanes),
                np.full(len(operand), name == "dst"),
            )
        )
    return _collect(parts)


def _integers(field: npt.NDArray[Any]) -> Integers:
    return field.astype(np.int64)


def _collect(parts: list[tuple[Any, ...]]) -> LocalAccesses:
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return LocalAccesses(*(column[order] for column in columns))
