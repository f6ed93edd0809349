"""Placing buffers: nothing live overlaps, conflicts are avoided where there is room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.passes.kernels.placement import (
    Memory,
    Places,
    Request,
    fits_together,
    pack,
    place_in_banks,
)

MEMORY = Memory(16 * 1024, 1024)


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    result: list[Request] = []
    for _ in range(draw(st.integers(0, 12))):
        first = draw(st.integers(0, 20))
        result.append(
            Request(
                64 * draw(st.integers(1, 40)),
                draw(st.integers(1, 3)),
                first,
                first + draw(st.integers(0, 10)),
            )
        )
    return result


def end(wanted: list[Request], places: Places) -> int:
    return max(
        (max(starts) + one.size_bytes for one, starts in zip(wanted, places, strict=True)),
        default=0,
    )


@given(requests(), st.booleans(), st.data())
def test_places_in_banks_do_not_overlap(wanted: list[Request], whole: bool, data: st.DataObject):
    conflicts: dict[int, dict[int, float]] = {}
    for i in range(len(wanted)):
        for j in range(i):
            if data.draw(st.booleans()):
                conflicts.setdefault(i, {})[j] = conflicts.setdefault(j, {})[i] = 1.0
    places = place_in_banks(wanted, conflicts, MEMORY, whole_banks=whole)
    if places is not None:
        assert [len(starts) for starts in places] == [one.depth for one in wanted]
        assert fits_together(wanted, places)
        assert end(wanted, places) <= MEMORY.size_bytes


@given(requests())
def test_packed_buffers_do_not_overlap(wanted: list[Request]):
    places, used = pack(wanted)
    assert [len(starts) for starts in places] == [one.depth for one in wanted]
    assert fits_together(wanted, places)
    assert used == end(wanted, places)
    assert used <= sum(one.size_bytes * one.depth for one in wanted)


def test_overlaps_are_found():
    wanted = [Request(128, 1, 0, 5), Request(64, 1, 5, 9), Request(64, 1, 6, 9)]
    assert fits_together(wanted, [(0,), (128,), (64,)])
    assert not fits_together(wanted, [(0,), (64,), (0,)])
    assert not fits_together(wanted, [(0,), (130,), (64,)])


def test_big_buffers_start_at_a_bank():
    wanted = [Request(64, 1, 0, 0), Request(512, 2, 0, 0), Request(1024, 1, 0, 0)]
    places = place_in_banks(wanted, {}, MEMORY, whole_banks=True)
    assert places is not None
    assert all(start % 1024 == 0 for starts in places[1:] for start in starts)


def test_operands_of_a_command_are_kept_in_different_banks():
    wanted = [Request(64, 1, 0, 9) for _ in range(3)]
    conflicts = {0: {1: 5.0, 2: 1.0}, 1: {0: 5.0, 2: 1.0}, 2: {0: 1.0, 1: 1.0}}
    places = place_in_banks(wanted, conflicts, MEMORY, whole_banks=True)
    assert places is not None
    assert len({starts[0] // 1024 for starts in places}) == 3


def test_where_banks_are_short_the_cheapest_conflict_is_taken():
    wanted = [Request(1024, 1, 0, 9) for _ in range(15)] + [Request(512, 1, 0, 9)] * 2
    conflicts = {15: {16: 1.0, 0: 3.0}, 16: {15: 1.0, 0: 3.0}, 0: {15: 3.0, 16: 3.0}}
    places = place_in_banks(wanted, conflicts, MEMORY, whole_banks=False)
    assert places is not None
    assert {places[15][0] // 1024, places[16][0] // 1024} == {15}


def test_fresh_memory_is_preferred_to_dead():
    wanted = [Request(1024, 1, 0, 1), Request(1024, 1, 2, 3)]
    assert place_in_banks(wanted, {}, MEMORY, whole_banks=True) == [(0,), (1024,)]
    assert pack(wanted) == ([(0,), (0,)], 1024)


@pytest.mark.parametrize("whole", [True, False])
def test_what_does_not_fit(whole: bool):
    assert place_in_banks([Request(8192, 3, 0, 0)], {}, MEMORY, whole_banks=whole) is None
    assert pack([Request(8192, 3, 0, 0)])[1] == 24576


def test_banks_of_a_buffer():
    assert MEMORY.banks(0, 1024) == 0b1
    assert MEMORY.banks(1000, 64) == 0b11
    assert MEMORY.banks(2048, 2049) == 0b11100
