"""Places buffers in the local memory of a lane: mathematics of `allocate-local-memory`, no IR.

Two requests that are live at the same time never overlap. Within that, buffers that one command
uses should lie in different banks (a command whose operands touch a common bank takes longer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.dialects.memory_types import VECTOR_BYTES, align_up


@dataclass(frozen=True)
class Request:
    """`depth` buffers of `size_bytes`, live from `first` to `last` (both included)."""

    size_bytes: int
    depth: int
    first: int
    last: int


@dataclass(frozen=True)
class Memory:
    """The local memory of a lane."""

    size_bytes: int
    bank_bytes: int

    def banks(self, start: int, size_bytes: int) -> int:
        """The set of banks that a buffer touches, as bits."""
        first, last = start // self.bank_bytes, (start + size_bytes - 1) // self.bank_bytes
        return (1 << (last + 1)) - (1 << first)


Conflicts = Mapping[int, Mapping[int, float]]
"""For pairs of requests that a command uses together, both ways: cycles lost in a common bank."""

Places = list[tuple[int, ...]]

_SAME_RING = 0.5
"""Below any real conflict: the buffers of a ring should be in different banks."""


def place_in_banks(
    requests: Sequence[Request], conflicts: Conflicts, memory: Memory, *, whole_banks: bool
) -> Places | None:
    """Offsets for each request, with few bank conflicts; none if that way they do not fit.

    The largest are placed first, each where it costs least, on memory that nobody else uses if it
    can be. With `whole_banks` those of half a bank or more start at the boundary of a bank.
    """
    placed: Places = [()] * len(requests)
    banks = [0] * len(requests)
    for number in _largest_first(requests):
        request = requests[number]
        aligned = whole_banks and request.size_bytes * 2 >= memory.bank_bytes
        costs = conflicts.get(number, {})
        taken = _taken(requests, placed, number, live_only=True)
        others = _taken(requests, placed, number, live_only=False)
        for _ in range(request.depth):
            starts = {0, *range(0, memory.size_bytes, memory.bank_bytes)}
            starts |= set() if aligned else {stop for _, stop in others}
            best: tuple[tuple[float, bool, int, int], int] | None = None
            for start in starts:
                stop = start + request.size_bytes
                if stop > memory.size_bytes or _overlaps(taken, start, stop):
                    continue
                touched = memory.banks(start, request.size_bytes)
                lost = sum(cost for other, cost in costs.items() if banks[other] & touched)
                lost += _SAME_RING if banks[number] & touched else 0
                score = (lost, _overlaps(others, start, stop), touched.bit_count(), start)
                if best is None or score < best[0]:
                    best = (score, start)
            if best is None:
                return None
            start = best[1]
            placed[number] = (*placed[number], start)
            banks[number] |= memory.banks(start, request.size_bytes)
            taken.append((start, start + request.size_bytes))
            others.append((start, start + request.size_bytes))
    return placed


def pack(requests: Sequence[Request]) -> tuple[Places, int]:
    """Offsets as low as they go, and the bytes they take; banks are not considered."""
    best: tuple[Places, int] | None = None
    orders = (
        _largest_first(requests),
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
        taken = sorted(_taken(requests, placed, number, live_only=True))
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


def _largest_first(requests: Sequence[Request]) -> list[int]:
    return sorted(
        range(len(requests)), key=lambda i: (-requests[i].size_bytes, -requests[i].depth, i)
    )


def _taken(
    requests: Sequence[Request], placed: Places, number: int, *, live_only: bool
) -> list[tuple[int, int]]:
    """The ranges that other requests have; with `live_only` of those live at the same time."""
    mine = requests[number]
    return [
        (start, start + other.size_bytes)
        for other, starts in zip(requests, placed, strict=True)
        if not live_only or (other.first <= mine.last and mine.first <= other.last)
        for start in starts
    ]


def _overlaps(ranges: Sequence[tuple[int, int]], start: int, stop: int) -> bool:
    return any(low < stop and start < high for low, high in ranges)


def fits_together(requests: Sequence[Request], places: Places) -> bool:
    """Whether no two buffers that are live at the same time overlap, and all are aligned."""
    ranges = [
        (number, start, start + request.size_bytes)
        for number, (request, starts) in enumerate(zip(requests, places, strict=True))
        for start in starts
    ]
    for i, (one, start, stop) in enumerate(ranges):
        if start != align_up(start, VECTOR_BYTES):
            return False
        for other, low, high in ranges[:i]:
            live = (
                requests[one].first <= requests[other].last
                and requests[other].first <= requests[one].last
            )
            if live and low < stop and start < high:
                return False
    return True
