"""Places buffers in the local memory of a lane: mathematics of `allocate-local-memory`, no IR.

Buffers that are live at the same time never overlap. Within that, two things take time:

- A command whose operands touch a common bank takes longer (`Operands`).
- Memory that first one engine uses and then the other makes the second wait. So buffers that the
  GDMA moves share memory with no others, or with those used long before or after. Buffers that only
  the BDC uses may share theirs: it works in order.

Where neither is at stake, the buffers of one request that the GDMA moves are in different banks:
one is moved while the other is used (docs/machine.md; the time model does not count it).

Those that live longest are placed first, since they fit nowhere between others, each where it costs
least; then those whose commands still lose cycles are moved. Only memory that is really needed at
the same time is ever short: a kernel of hundreds of short-lived tiles fits in a few banks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import or_

from tilewright.dialects.memory_types import VECTOR_BYTES
from tilewright.passes.kernels.packing import Memory, Places, Request, largest_first, pack


@dataclass(frozen=True)
class Operands:
    """What a command uses: numbers of requests, one of them twice if it uses two of its buffers.

    `lost_cycles` is what all executions of the command lose if two of them touch a common bank.
    """

    requests: tuple[int, ...]
    lost_cycles: float


_ROUNDS = 4
"""How often all requests whose commands lose cycles are tried elsewhere; one round is the rule."""


def place(
    requests: Sequence[Request], commands: Sequence[Operands], memory: Memory
) -> Places | None:
    """Offsets for each request, such that `commands` lose few cycles; none if they do not fit."""
    best: tuple[float, float, Places] | None = None
    for number, board in enumerate(_boards(requests, commands, memory)):
        if board is not None:
            board.improve()
            lost = lost_cycles(requests, board.places, commands, memory)
            score = lost, board.waits()
            if best is None or score < best[:2]:
                best = *score, board.places
        if best is not None and best[0] == 0 and (best[1] == 0 or number > 0):
            break
    return None if best is None else best[2]


def _boards(
    requests: Sequence[Request], commands: Sequence[Operands], memory: Memory
) -> Iterator[_Board | None]:
    """Placements to start from, none where an order finds no room. The first two are rivals, the
    others for where those lose cycles."""
    longest, largest = _longest_first(requests), largest_first(requests)
    for order, apart in ((longest, True), (longest, False), (largest, False)):
        board = _Board(requests, commands, memory)
        fits = all(board.put(number, apart=apart) for number in order)
        yield board if fits else None
    places, needed = pack(requests)
    if needed <= memory.size_bytes:
        board = _Board(requests, commands, memory)
        for number, starts in enumerate(places):
            board.set(number, starts)
        yield board


def lost_cycles(
    requests: Sequence[Request], places: Places, commands: Sequence[Operands], memory: Memory
) -> float:
    """What `commands` lose to bank conflicts."""
    banks = [
        [memory.banks(start, request.size_bytes) for start in starts]
        for request, starts in zip(requests, places, strict=True)
    ]
    return sum(command.lost_cycles for command in commands if _meet(_sets(command.requests, banks)))


def _sets(numbers: Sequence[int], banks: Sequence[Sequence[int]]) -> list[int]:
    """The banks of each request, or of each of its buffers where it is used twice."""
    sets: list[int] = []
    for number in dict.fromkeys(numbers):
        if numbers.count(number) > 1:
            sets += banks[number]
        else:
            sets.append(reduce(or_, banks[number], 0))
    return sets


def _meet(sets: Sequence[int]) -> bool:
    return any(one & other for one, other in combinations(sets, 2))


class _Board:
    """Requests that have places, and others that have none yet. Sets of banks and of vectors of
    memory are bits."""

    def __init__(
        self, requests: Sequence[Request], commands: Sequence[Operands], memory: Memory
    ) -> None:
        self.places: Places = [()] * len(requests)
        self._requests = requests
        self._memory = memory
        self._banks: list[list[int]] = [[] for _ in requests]
        """Of each buffer."""
        self._vectors = [0] * len(requests)
        self._beside = _live_together(requests)
        self._commands: list[list[Operands]] = [[] for _ in requests]
        for command in commands:
            for number in dict.fromkeys(command.requests):
                self._commands[number].append(command)
        self._everyone = range(len(requests))
        self._moved = [number for number in self._everyone if requests[number].moved]

    def set(self, number: int, starts: tuple[int, ...]) -> None:
        """Give a request the places `starts`, whatever is there; none if it is empty."""
        size = self._requests[number].size_bytes
        self.places[number] = starts
        self._banks[number] = [self._memory.banks(start, size) for start in starts]
        self._vectors[number] = reduce(or_, (_vectors(start, size) for start in starts), 0)

    def put(self, number: int, *, apart: bool) -> bool:
        """Place a request that has no place, where that costs least; false if there is no room.

        With `apart` the buffers of a request that is moved are in different banks if they can.
        """
        request = self._requests[number]
        size = request.size_bytes
        taken = reduce(or_, (self._vectors[other] for other in self._beside[number]), 0)
        rivals = self._everyone if request.moved else self._moved
        shared = reduce(or_, (self._vectors[other] for other in rivals), 0)
        starts = set(range(0, self._memory.size_bytes, self._memory.bank_bytes))
        starts.add(shared.bit_length() * VECTOR_BYTES)
        for other in self._beside[number]:
            starts |= {start + self._requests[other].size_bytes for start in self.places[other]}
        for _ in range(request.depth):
            costs = self._costs(number)
            best: tuple[float, float, bool, int, int] | None = None
            for start in starts:
                vectors, banks = _vectors(start, size), self._memory.banks(start, size)
                if start + size > self._memory.size_bytes or taken & vectors:
                    continue
                lost = sum([cost for touched, cost in costs if touched & banks])
                if best is not None and lost > best[0]:
                    continue
                waits = self._waits(number, vectors, rivals) if shared & vectors else 0.0
                beside = request.moved and apart and _meet([banks, *self._banks[number]])
                score = (lost, waits, beside, banks.bit_count(), start)
                if best is None or score < best:
                    best = score
            if best is None:
                return False
            start = best[-1]
            self.set(number, (*self.places[number], start))
            taken |= self._vectors[number]
            starts.add(start + size)
        return True

    def improve(self) -> None:
        """Move requests whose commands lose cycles to where they lose less."""
        for _ in range(_ROUNDS):
            lost = {number: self._lost(number) for number in self._everyone}
            better = False
            for number in sorted(self._everyone, key=lambda i: (-lost[i], i)):
                before, starts = self._lost(number), self.places[number]
                if before == 0:
                    continue
                self.set(number, ())
                if self.put(number, apart=False) and self._lost(number) < before:
                    better = True
                else:
                    self.set(number, starts)
            if not better:
                return

    def waits(self) -> float:
        """How much the engines wait for each other since requests share memory (`_waits`)."""
        return sum(
            self._waits(number, self._vectors[number], self._everyone) for number in self._moved
        )

    def _costs(self, number: int) -> list[tuple[int, float]]:
        """Sets of banks, and the cycles lost if the next buffer touches one of them."""
        costs: dict[int, float] = defaultdict(float)
        for command in self._commands[number]:
            others = [other for other in command.requests if other != number]
            twice = len(others) < len(command.requests) - 1
            sets = _sets(others, self._banks) + (self._banks[number] if twice else [])
            costs[reduce(or_, sets, 0)] += command.lost_cycles
        return list(costs.items())

    def _lost(self, number: int) -> float:
        """Cycles lost by the commands that use a request."""
        return sum(
            command.lost_cycles
            for command in self._commands[number]
            if _meet(_sets(command.requests, self._banks))
        )

    def _waits(self, number: int, vectors: int, rivals: Sequence[int]) -> float:
        """How much sharing `vectors` with `rivals` makes an engine wait: less with one that is used
        farther away in the program. A number to compare, without a unit."""
        request, waits = self._requests[number], 0.0
        for other in rivals:
            if self._vectors[other] & vectors and other != number:
                rival = self._requests[other]
                waits += 1 / max(request.first - rival.last, rival.first - request.last)
        return waits


def _vectors(start: int, size_bytes: int) -> int:
    """The vectors of local memory that a buffer takes."""
    return ((1 << -(-size_bytes // VECTOR_BYTES)) - 1) << start // VECTOR_BYTES


def _live_together(requests: Sequence[Request]) -> list[list[int]]:
    """For each request those that are live at some time when it is."""
    beside: list[list[int]] = [[] for _ in requests]
    live: list[int] = []
    for number in sorted(range(len(requests)), key=lambda i: requests[i].first):
        live = [other for other in live if requests[other].last >= requests[number].first]
        for other in live:
            beside[number].append(other)
            beside[other].append(number)
        live.append(number)
    return beside


def _longest_first(requests: Sequence[Request]) -> list[int]:
    """By life, then size."""
    return sorted(
        range(len(requests)),
        key=lambda i: (requests[i].first - requests[i].last, -requests[i].size_bytes, i),
    )
