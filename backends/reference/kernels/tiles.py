"""Tiles of a running kernel, and the local memory that they lie in.

A tile is a window on a buffer, so that a `bdc.view` and the partial sums of a `bdc.mm_accumulate`
share their operand's data. Where a kernel's tiles have addresses, each buffer also has a place, and
whatever is written there later destroys it: its elements become NaN where they lay, byte by byte
and lane by lane. Nothing else happens: the numbers show who was read too late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.backends.reference.balls import EXACT, Ball

Array = NDArray[Any]


@dataclass(frozen=True)
class Place:
    """Bytes of local memory: `rows` rows of `width` bytes, over the lanes, slots `stride` apart."""

    offset: int
    width: int
    stride: int
    rows: int
    lanes: int
    replicated: bool
    """One row, which every lane has."""

    @property
    def slots(self) -> int:
        return -(-self.rows // self.lanes)

    @property
    def stop(self) -> int:
        """The byte behind the last one."""
        return self.offset + (self.slots - 1) * self.stride + self.width

    def lanes_in(self, slot: int) -> int:
        """How many lanes, from lane 0, have a row in that slot."""
        return self.lanes if self.replicated else min(self.lanes, self.rows - slot * self.lanes)

    def covers(self, other: Place) -> bool:
        """Whether it lies over all of `other`, slot on slot. (False may also mean: not seen.)"""
        lanes = self.replicated or self.rows >= (self.lanes if other.replicated else other.rows)
        return (
            self.offset <= other.offset
            and self.offset + self.width >= other.offset + other.width
            and self.slots >= other.slots
            and (self.stride == other.stride or other.slots == 1)
            and lanes
        )


class Buffer:
    """The data of a tile, and where they lie. They may be shared until the first change."""

    __slots__ = ("_owned", "losses", "lost", "place", "radius", "value")

    def __init__(self, ball: Ball) -> None:
        self.value = ball.value
        self.radius: Array | None = None if ball.is_exact else ball.radii
        self.place: Place | None = None
        self.losses = 0
        """How often something was written over a part of it."""
        self.lost = False
        """Whether nothing is left."""
        self._owned = False

    def _own(self) -> None:
        if not self._owned:
            self.value = self.value.astype(np.float64)
            shape = self.value.shape
            self.radius = np.zeros(shape) if self.radius is None else self.radius.copy()
            self._owned = True

    def lose(self, place: Place) -> None:
        """Destroy what lies in `place`."""
        mine = self.place
        assert mine is not None
        if place.covers(mine):
            self.losses += 1
            self.lost = True
            return
        size = mine.width // self.value.shape[1]
        for slot in range(mine.slots):
            start = mine.offset + slot * mine.stride
            for other in range(place.slots):
                low = place.offset + other * place.stride
                high = low + place.width
                if low < start + mine.width and start < high:
                    first = max(0, (low - start) // size)
                    last = min(self.value.shape[1], -(-(high - start) // size))
                    lanes = min(mine.lanes_in(slot), place.lanes_in(other))
                    row = slot * mine.lanes
                    rows = slice(0, 1) if mine.replicated else slice(row, row + lanes)
                    self._poison(rows, slice(first, last))

    def _poison(self, rows: slice, cols: slice) -> None:
        self._own()
        self.losses += 1
        self.value[rows, cols] = np.nan

    def write(self, rows: slice, cols: slice, ball: Ball) -> None:
        """Replace a part, in place."""
        self._own()
        assert self.radius is not None
        self.value[rows, cols] = ball.value
        self.radius[rows, cols] = ball.radius


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows `[0, rows)` and columns `[col, col + cols)` of a buffer."""

    buffer: Buffer
    col: int
    rows: int
    cols: int
    uniform: bool
    """Made by `bdc.fill`, without an edge of its own: meets a smaller tile in that one's size."""

    def ball(self, rows: int | None = None, cols: int | None = None) -> Ball:
        """Its values now, or those of its first `rows` and `cols`: not copied."""
        buffer = self.buffer
        wide = self.cols if cols is None else cols
        at = slice(0, self.rows if rows is None else rows), slice(self.col, self.col + wide)
        if buffer.lost:
            return Ball(np.full(buffer.value[at].shape, np.nan), EXACT)
        return Ball(buffer.value[at], EXACT if buffer.radius is None else buffer.radius[at])


class LocalMemory:
    """Who lies where. Buffers of which nothing is left are forgotten."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._buffers: list[tuple[int, int, Buffer]] = []
        """Each buffer with its first byte and the byte behind its last."""

    def put(self, buffer: Buffer, offset: int, stride: int, size: int, *, replicated: bool) -> None:
        """Give a new buffer of elements of `size` bytes its place: what lay there is destroyed."""
        rows, cols = buffer.value.shape
        buffer.place = Place(offset, cols * size, stride, rows, self.lanes, replicated)
        self.overwrite(buffer.place, buffer)
        self._buffers.append((offset, buffer.place.stop, buffer))

    def overwrite(self, place: Place, writer: Buffer) -> None:
        """Destroy what lies in `place`, but for the writer's own."""
        start, stop = place.offset, place.stop
        gone = False
        for low, high, buffer in self._buffers:
            if low < stop and start < high and buffer is not writer:
                buffer.lose(place)
                gone |= buffer.lost
        if gone:
            self._buffers = [entry for entry in self._buffers if not entry[2].lost]
