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

from tilewright.backends.encoding.records import BdcFlag, BdcOpcode, BMode, GdmaOpcode, Records
from tilewright.dialects.element_types import ELEMENT_TYPES

Integers = npt.NDArray[np.int64]

_SIZES: Integers = np.zeros(256, np.int64)
for _element in ELEMENT_TYPES:
    _SIZES[_element.code] = _element.size_bytes


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
    opcode = records["opcode"]
    replicated = opcode == GdmaOpcode.LOAD_REPLICATED
    writes = np.isin(opcode, [GdmaOpcode.LOAD, GdmaOpcode.LOAD_REPLICATED, GdmaOpcode.GATHER])
    rows = np.where(replicated, 1, records["rows"].astype(np.int64))
    return _collect(
        [
            (
                np.arange(len(records)),
                _integers(records["local_offset"]),
                _integers(records["cols"]) * _SIZES[records["element"]],
                _integers(records["local_stride"]),
                -(-rows // lanes),
                writes,
            )
        ]
    )


def bdc_accesses(records: Records, lanes: int) -> LocalAccesses:
    """The local accesses of each BDC command: its result, then its operands.

    An accumulating command reads its result too; as it writes it, that adds nothing.
    """
    opcode, flags, b_mode = records["opcode"], records["flags"], records["b_mode"]
    rows, cols, depth = (_integers(records[name]) for name in ("rows", "cols", "depth"))
    one = np.ones_like(rows)
    matrix, transposed = opcode == BdcOpcode.MM, (flags & BdcFlag.TRANSPOSE_RIGHT) != 0
    turned, reduced = opcode == BdcOpcode.TRANSPOSE, opcode == BdcOpcode.REDUCE
    binary, dequant = opcode == BdcOpcode.BINARY, opcode == BdcOpcode.DEQUANT

    dst = (np.where(turned, cols, rows), np.where(turned, rows, np.where(reduced, one, cols)))
    a = (rows, np.where(matrix, depth, cols))
    b_rows = np.select(
        [matrix & transposed, matrix, binary & (b_mode == BMode.ROW)], [cols, depth, one], rows
    )
    b_cols = np.select(
        [matrix & transposed, matrix, dequant | (b_mode == BMode.COLUMN)], [depth, cols, one], cols
    )
    has_a = opcode != BdcOpcode.FILL
    has_b = matrix | dequant | (binary & (b_mode != BMode.IMMEDIATE))
    parts: list[tuple[Any, ...]] = []
    for name, (tile_rows, tile_cols), here, write in (
        ("dst", dst, np.ones(len(records), np.bool_), True),
        ("a", a, has_a, False),
        ("b", (b_rows, b_cols), has_b, False),
    ):
        operand = records[name][here]
        parts.append(
            (
                np.flatnonzero(here),
                _integers(operand["offset"]),
                tile_cols[here] * _SIZES[records[f"{name}_element"][here]],
                _integers(operand["stride"]),
                -(-tile_rows[here] // lanes),
                np.full(len(operand), write),
            )
        )
    return _collect(parts)


def _integers(field: npt.NDArray[Any]) -> Integers:
    return field.astype(np.int64)


def _collect(parts: list[tuple[Any, ...]]) -> LocalAccesses:
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return LocalAccesses(*(column[order] for column in columns))
