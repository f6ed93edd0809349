"""Buffers in the local memory of a lane, and how little of it they need. Mathematics, no IR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """`depth` buffers of `size_bytes`, live from `first` to `last` (both included).

    `moved`: the GDMA writes or reads them.
    """

    size_bytes: int
    depth: int
    first: int
    last: int
    moved: bool = False


@dataclass(frozen=True)
class Memory:
    """The local memory of a lane."""

    size_bytes: int
    bank_bytes: int

    def banks(self, start: int, size_bytes: int) -> int:
        """The set of banks that a buffer touches, as bits."""
        first, last = start // self.bank_bytes, (start + size_bytes - 1) // self.bank_bytes
        return (1 << (last + 1)) - (1 << first)


Places = list[tuple[int, ...]]
"""Of each request the offsets of its buffers."""


def pack(requests: Sequence[Request]) -> tuple[Places, int]:
    """Offsets as low as they go, and the bytes they take; banks are not considered."""
    best: tuple[Places, int] | None = None
    orders = (
        largest_first(requests),
        sorted(range(len(requests)), key=lambda i: (requests[i].first - requests[i].last, i)),
        sorted(range(len(requests)), key=lambda i: (requests[i].first, i)),
    )
    for order in orders:
        placed = _pack(requests, order)
        used = max(
            (
                max(starts) + request.size_bytes
                for starts, request in zip(placed, requests, strict=True)
            ),
            default=0,
        )
        if best is None or used < best[1]:
            best = (placed, used)
    assert best is not None
    return best


def _pack(requests: Sequence[Request], order: Sequence[int]) -> Places:
    placed: Places = [()] * len(requests)
    for number in order:
        request = requests[number]
        taken = sorted(_taken(requests, placed, number))
        starts: list[int] = []
        start = 0
        for low, high in [*taken, _END]:
            while len(starts) < request.depth and start + request.size_bytes <= low:
                starts.append(start)
                start += request.size_bytes
            start = max(start, high)
        placed[number] = tuple(starts)
    return placed


_END = (1 << 62, 1 << 62)
"""A range behind all memory."""


def largest_first(requests: Sequence[Request]) -> list[int]:
    """By size, then number of buffers."""
    return sorted(
        range(len(requests)), key=lambda i: (-requests[i].size_bytes, -requests[i].depth, i)
    )


def _taken(requests: Sequence[Request], placed: Places, number: int) -> list[tuple[int, int]]:
    """The ranges of those that are live at some time when a request is."""
    mine = requests[number]
    return [
        (start, start + other.size_bytes)
        for other, starts in zip(requests, placed, strict=True)
        if other.first <= mine.last and mine.first <= other.last
        for start in starts
    ]
