"""Deriving waits: they order every conflict, and none can be left out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.accesses import LocalAccess, LocalAccesses, conflict
from tilewright.passes.kernels.waits import derive_waits

Command = tuple[bool, tuple[LocalAccess, ...]]
"""Whether the GDMA executes it, and what it touches."""

ACCESS = st.builds(
    LocalAccess,
    start=st.sampled_from([0, 3, 40, 43, 80, 120, 160]),
    width=st.integers(1, 6),
    stride=st.integers(6, 12),
    slots=st.integers(1, 3),
    write=st.booleans(),
)
PROGRAMS = st.lists(
    st.tuples(st.booleans(), st.lists(ACCESS, min_size=1, max_size=2).map(tuple)), max_size=40
)


def table(commands: list[tuple[LocalAccess, ...]]) -> LocalAccesses:
    rows = [(i, *access) for i, accesses in enumerate(commands) for access in accesses]
    columns = np.array(rows, np.int64).reshape(-1, 6).T
    command, start, width, stride, slots, write = columns
    return LocalAccesses(command, start, width, stride, slots, write.astype(np.bool_))


def derived(program: list[Command]) -> tuple[list[int], list[int]]:
    on_gdma = np.array([gdma for gdma, _ in program], np.bool_)
    engines = [
        [accesses for gdma, accesses in program if gdma is engine] for engine in (True, False)
    ]
    gdma, bdc = derive_waits(on_gdma, table(engines[0]), table(engines[1]))
    return gdma.tolist(), bdc.tolist()


def conflicts(program: list[Command]) -> list[tuple[bool, int, int]]:
    """Conflicts: whether the later command is the GDMA's, its index and the earlier's id."""
    issued: dict[bool, list[tuple[LocalAccess, ...]]] = {True: [], False: []}
    found: list[tuple[bool, int, int]] = []
    for gdma, accesses in program:
        for number, earlier in enumerate(issued[not gdma], start=1):
            if any(conflict(one, other) for one in accesses for other in earlier):
                found.append((gdma, len(issued[gdma]), number))
        issued[gdma].append(accesses)
    return found


def ordered(program: list[Command], waits: dict[bool, list[int]]) -> bool:
    reached = {engine: np.maximum.accumulate([0, *each]).tolist() for engine, each in waits.items()}
    return all(reached[engine][index + 1] >= number for engine, index, number in conflicts(program))


@settings(max_examples=300, deadline=None)
@given(PROGRAMS)
def test_waits_order_all_conflicts_and_no_more(program: list[Command]):
    gdma, bdc = derived(program)
    waits = {True: gdma, False: bdc}
    assert ordered(program, waits)
    needed = set(conflicts(program))
    for engine, each in waits.items():
        for index, wait in enumerate(each):
            if wait:
                assert (engine, index, wait) in needed
                less = [0 if i == index else other for i, other in enumerate(each)]
                assert not ordered(program, {engine: less, not engine: waits[not engine]})


def test_reads_need_no_order():
    read = LocalAccess(0, 64, 64, 1, False)
    assert derived([(True, (read,)), (False, (read,))]) == ([0], [0])


def test_each_kind_of_conflict():
    read, write = LocalAccess(0, 64, 64, 1, False), LocalAccess(32, 64, 64, 1, True)
    assert derived([(True, (write,)), (False, (read,))]) == ([0], [1])
    assert derived([(False, (read,)), (True, (write,))]) == ([1], [0])
    assert derived([(True, (write,)), (False, (write,))]) == ([0], [1])


def test_a_later_wait_implies_earlier_ones():
    one, other = LocalAccess(0, 64, 64, 1, True), LocalAccess(64, 64, 64, 1, True)
    program = [(True, (one,)), (True, (other,)), (False, (other,)), (False, (one,))]
    assert derived(program) == ([0, 0], [2, 0])


def test_nothing():
    assert derived([]) == ([], [])
