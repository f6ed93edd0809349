"""The waits that two in-order engines need so that the program means what it says. No IR.

Each engine executes its commands in order, so only accesses of one engine to what the other touches
need an order. A command waits for the last earlier command of the other engine that conflicts with
it (read after write, write after read, write after write), unless an earlier command of its own
engine already waits for that one or a later one. An engine learns of the other's progress only by
its waits: so none of these can be left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tilewright.backends.accesses import LocalAccess, LocalAccesses, share_bytes

Integers = npt.NDArray[np.int64]


def derive_waits(
    on_gdma: npt.NDArray[np.bool_], gdma: LocalAccesses, bdc: LocalAccesses
) -> tuple[Integers, Integers]:
    """The wait of each GDMA and each BDC command.

    `on_gdma` says of each command, in the order of the program, whether it is the GDMA's.
    """
    regions = _regions(gdma, bdc)
    accesses = [
        _by_command(engine, numbers, int(np.count_nonzero(mine)))
        for engine, numbers, mine in zip((gdma, bdc), regions, (on_gdma, ~on_gdma), strict=True)
    ]
    waits = [[0] * len(accesses[0]), [0] * len(accesses[1])]
    issued = [0, 0]
    seen = [0, 0]
    """The id of the other engine's command that an engine has waited for last."""
    # For each engine and region, what the other engine has not waited for: (id, access).
    pending: list[dict[int, list[tuple[int, LocalAccess]]]] = [{}, {}]
    for engine in np.where(on_gdma, 0, 1).tolist():
        other = 1 - engine
        index = issued[engine]
        issued[engine] = index + 1
        needed = seen[engine]
        for region, access in accesses[engine][index]:
            needed = max(needed, _last_conflict(pending[other].get(region, ()), access, needed))
        if needed > seen[engine]:
            seen[engine] = waits[engine][index] = needed
        for region, access in accesses[engine][index]:
            entries = pending[engine].setdefault(region, [])
            if entries and entries[0][0] <= seen[other]:
                entries[:] = [entry for entry in entries if entry[0] > seen[other]]
            entries.append((index + 1, access))
    return np.array(waits[0], np.int64), np.array(waits[1], np.int64)


def _last_conflict(
    entries: list[tuple[int, LocalAccess]] | tuple[()], access: LocalAccess, known: int
) -> int:
    """The last command in `entries` behind `known` that conflicts with `access`, or `known`."""
    for number, earlier in reversed(entries):
        if number <= known:
            return known
        if (access.write or earlier.write) and share_bytes(access, earlier):
            return number
    return known


def _regions(*engines: LocalAccesses) -> list[Integers]:
    """For each access the number of its region: accesses in different regions share no bytes."""
    start = np.concatenate([accesses.start for accesses in engines])
    stop = np.concatenate([accesses.stop for accesses in engines])
    order = np.argsort(start, kind="stable")
    reach = np.maximum.accumulate(stop[order])
    first = np.ones(len(order), np.int64)
    first[1:] = start[order][1:] >= reach[:-1]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(first)
    return np.split(number, np.cumsum([len(accesses.start) for accesses in engines])[:-1])


def _by_command(
    accesses: LocalAccesses, regions: Integers, commands: int
) -> list[list[tuple[int, LocalAccess]]]:
    grouped: list[list[tuple[int, LocalAccess]]] = [[] for _ in range(commands)]
    columns: Iterable[tuple[int, int, int, int, int, int, bool]] = zip(
        accesses.command.tolist(),
        regions.tolist(),
        accesses.start.tolist(),
        accesses.width.tolist(),
        accesses.stride.tolist(),
        accesses.slots.tolist(),
        accesses.write.tolist(),
        strict=True,
    )
    for command, region, start, width, stride, slots, write in columns:
        grouped[command].append((region, LocalAccess(start, width, stride, slots, write)))
    return grouped
