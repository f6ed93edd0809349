"""The state of a walk over a kernel: values, rings of buffers, and the commands so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from xdsl.ir import Operation, SSAValue

from tilewright.dialects.errors import InternalError
from tilewright.dialects.scopes import where_of
from tilewright.passes.kernels.commands import new_tile

Step: TypeAlias = Callable[[], None]
"""One op of a kernel, compiled: reads and writes the table of values."""

Tile: TypeAlias = tuple[int, int, int, int, int, int, bool]
"""A tile as an execution finds it: its ring, its number among the tiles of the ring, byte offset,
stride from slot to slot, rows, columns, and whether it is uniform: made by `bdc.fill`, without an
edge of its own. A plain tuple: a walk makes one for every command."""

Extents: TypeAlias = tuple[int, int, int, int, bool]
"""Offset, stride, rows, columns, uniform."""


class Walk:
    """Values and rings: `offsets` are the buffers of a ring, `ring_of` the ring of an op's result.

    A value that is read after its ring came round to it is an `InternalError` if `strict`; else the
    ring's entry in `depths` grows to what the read needs.
    """

    def __init__(
        self,
        ring_of: Mapping[Operation, int],
        offsets: Sequence[tuple[int, ...]],
        *,
        strict: bool,
    ) -> None:
        self.ring_of = ring_of
        self.offsets = offsets
        self.strict = strict
        self.depths = [len(ring) for ring in offsets]
        self.counts = [0] * len(offsets)
        self.slots: dict[SSAValue, int] = {}
        self.values: list[Any] = []
        self.order: list[int] = []
        self.gdma: list[tuple[int, ...]] = []
        self.bdc: list[tuple[int, ...]] = []
        self.zero_points: list[tuple[int, int, int]] = []
        """Operand c of the commands that have one: index in `bdc`, offset, stride."""

    def slot(self, value: SSAValue) -> int:
        """The place of `value` in `values`."""
        if value not in self.slots:
            self.slots[value] = len(self.values)
            self.values.append(None)
        return self.slots[value]

    def taker(self, op: Operation) -> Callable[[], tuple[int, int, int]]:
        """Takes the next buffer for the result of `op`: ring, number, offset."""
        assert new_tile(op) is not None
        ring, counts = self.ring_of[op], self.counts
        places = self.offsets[ring]
        depth = len(places)

        def take() -> tuple[int, int, int]:
            serial = counts[ring]
            counts[ring] = serial + 1
            return ring, serial, places[serial % depth]

        return take

    def reader(self, op: Operation) -> Callable[[Tile], Extents]:
        """Reads an operand of `op`, after its result has taken its buffer."""
        counts, depths = self.counts, self.depths

        def read(tile: Tile) -> Extents:
            ring, serial, offset, stride, rows, cols, uniform = tile
            if counts[ring] - serial > depths[ring]:
                self._late(op, ring, counts[ring] - serial)
            return offset, stride, rows, cols, uniform

        return read

    def _late(self, op: Operation, ring: int, needed: int) -> None:
        if self.strict:
            raise InternalError(
                f"{op.name} reads a tile whose buffer has been taken again",
                where=where_of(op),
                why=f"the ring {list(self.offsets[ring])} has {self.depths[ring]} buffers, "
                f"the read needs {needed}",
            )
        self.depths[ring] = needed


def empty(op: Operation, rows: int, cols: int) -> NoReturn:
    """Report a tile that lies behind the edge of its view."""
    raise InternalError(
        f"{op.name} has an empty tile: {rows}x{cols}",
        where=where_of(op),
        why="its loop runs past the edge of the view",
    )


def meet(op: Operation, one: int, other: int, uniform: bool) -> int:
    """The common extent of two operands of `op`; they may differ only if one is uniform."""
    if one != other and not uniform:
        raise InternalError(
            f"{op.name}: the extents of its operands differ: {one} and {other}", where=where_of(op)
        )
    return min(one, other)
