"""Placing buffers: nothing live overlaps, commands lose no cycles where that can be avoided."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.passes.kernels.placements import MEMORY, end, fits_together, requests

from tilewright.passes.kernels import placement
from tilewright.passes.kernels.packing import Places, Request, pack
from tilewright.passes.kernels.placement import Operands, lost_cycles, place


def placed(wanted: list[Request], commands: list[Operands]) -> Places:
    places = place(wanted, commands, MEMORY)
    assert places is not None
    assert fits_together(wanted, places)
    return places


@st.composite
def commands_of(draw: st.DrawFn, wanted: list[Request]) -> list[Operands]:
    """Commands with operands that are live together, some of them two buffers of a request."""
    commands: list[Operands] = []
    for one, other in combinations(range(len(wanted)), 2):
        together = wanted[one].first <= wanted[other].last
        together = together and wanted[other].first <= wanted[one].last
        if together and draw(st.booleans()):
            twice = (one,) if draw(st.booleans()) else ()
            commands.append(Operands((*twice, one, other), draw(st.sampled_from([1.0, 30.0]))))
    return commands


@given(requests(), st.data())
def test_places_do_not_overlap(wanted: list[Request], data: st.DataObject):
    commands = data.draw(commands_of(wanted))
    places = place(wanted, commands, MEMORY)
    if places is None:
        assert pack(wanted)[1] > MEMORY.size_bytes
        return
    assert [len(starts) for starts in places] == [one.depth for one in wanted]
    assert fits_together(wanted, places)
    assert end(wanted, places) <= MEMORY.size_bytes
    assert place(wanted, commands, MEMORY) == places


@given(requests(), st.data())
def test_lost_cycles_are_those_of_commands_whose_operands_touch_a_common_bank(
    wanted: list[Request], data: st.DataObject
):
    """Bank by bank and buffer by buffer, as the formula says it; places are any."""
    places: Places = [
        tuple(data.draw(st.integers(0, 15)) * 1024 // 2 for _ in range(one.depth)) for one in wanted
    ]
    commands = data.draw(commands_of(wanted))

    def banks(number: int, starts: tuple[int, ...]) -> set[int]:
        return {at // 1024 for s in starts for at in range(s, s + wanted[number].size_bytes, 64)}

    expected = 0.0
    for command in commands:
        *twice, one, other = command.requests
        meets = bool(banks(one, places[one]) & banks(other, places[other]))
        if twice:
            buffers = [banks(one, (start,)) for start in places[one]]
            meets |= any(left & right for left, right in combinations(buffers, 2))
        expected += command.lost_cycles * meets
    assert lost_cycles(wanted, places, commands, MEMORY) == expected


def test_operands_of_a_command_are_kept_in_different_banks():
    wanted = [Request(64, 1, 0, 9) for _ in range(3)]
    places = placed(wanted, [Operands((0, 1, 2), 5.0)])
    assert len({starts[0] // 1024 for starts in places}) == 3


def test_buffers_of_a_request_that_a_command_uses_together_are_kept_in_different_banks():
    wanted = [Request(64, 2, 0, 9)]
    assert {start // 1024 for start in placed(wanted, [Operands((0, 0), 5.0)])[0]} == {0, 1}
    assert {start // 1024 for start in placed(wanted, [])[0]} == {0}


def test_where_banks_are_short_the_cheapest_conflict_is_taken():
    wanted = [Request(1024, 1, 0, 9) for _ in range(15)] + [Request(512, 1, 0, 9)] * 2
    commands = [Operands((15, 16), 1.0), *(Operands((i, n), 3.0) for i in (15, 16) for n in (0, 1))]
    places = placed(wanted, commands)
    assert lost_cycles(wanted, places, commands, MEMORY) == 1
    assert {places[15][0] // 1024, places[16][0] // 1024} == {15}


def test_what_only_the_compute_engine_uses_takes_dead_memory():
    chain = [Request(1024, 1, i, i + 1) for i in range(100)]
    commands = [Operands((i, i + 1), 1.0) for i in range(99)]
    places = placed(chain, commands)
    assert end(chain, places) == 2048
    assert lost_cycles(chain, places, commands, MEMORY) == 0


@pytest.mark.parametrize("moved", [0, 1])
def test_what_is_moved_gets_memory_of_its_own(moved: int):
    wanted = [Request(1024, 1, i, i, moved=i == moved) for i in range(2)]
    assert {starts[0] for starts in placed(wanted, [])} == {0, 1024}


def test_what_is_moved_shares_memory_with_what_is_used_long_before():
    """All memory is taken once: the last request takes that of the first, not of the one before."""
    wanted = [Request(4096, 1, i, i, moved=True) for i in range(5)]
    places = placed(wanted, [])
    assert len({starts[0] for starts in places}) == 4
    assert places[4] == places[0]


def test_long_lives_find_room_beside_many_short_ones(monkeypatch: pytest.MonkeyPatch):
    """No more than half of memory is ever live, but the short ones together need six times it."""
    monkeypatch.setattr(placement, "pack", lambda _: ([], MEMORY.size_bytes + 1))
    short = [Request(2048, 1, i, i + 1, moved=True) for i in range(48)]
    long = [Request(1024, 2, 0, 48, moved=True), Request(512, 2, 0, 48, moved=True)]
    wanted = [*short, *long]
    commands = [Operands((i, i + 1, 48), 1.0) for i in range(47)]
    assert lost_cycles(wanted, placed(wanted, commands), commands, MEMORY) == 0


def test_without_a_byte_to_spare_conflicts_are_few():
    """All of memory is live; of each command's operands one can change places with another."""
    wanted = [Request(512, 1, 0, 9) for _ in range(32)]
    commands = [Operands((i, i + 1), 1.0) for i in range(0, 32, 2)]
    places = placed(wanted, commands)
    assert lost_cycles(wanted, places, commands, MEMORY) <= 1


def test_what_does_not_fit():
    assert place([Request(8192, 3, 0, 0)], [], MEMORY) is None
