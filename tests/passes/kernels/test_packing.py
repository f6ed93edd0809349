"""Packing buffers: nothing live overlaps, and no more memory is taken than must be."""

from __future__ import annotations

from hypothesis import given
from tests.passes.kernels.placements import MEMORY, end, fits_together, requests

from tilewright.passes.kernels.packing import Request, pack


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


def test_dead_memory_is_taken_again():
    assert pack([Request(1024, 1, 0, 1), Request(1024, 1, 2, 3)]) == ([(0,), (0,)], 1024)


def test_what_does_not_fit():
    assert pack([Request(8192, 3, 0, 0)])[1] == 24576


def test_banks_of_a_buffer():
    assert MEMORY.banks(0, 1024) == 0b1
    assert MEMORY.banks(1000, 64) == 0b11
    assert MEMORY.banks(2048, 2049) == 0b11100
