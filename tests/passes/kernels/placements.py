"""Requests of any kind, for tests of packing and placement."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tilewright.dialects.memory_types import VECTOR_BYTES, align_up
from tilewright.passes.kernels.packing import Memory, Places, Request

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
                draw(st.booleans()),
            )
        )
    return result


def end(wanted: list[Request], places: Places) -> int:
    return max(
        (max(starts) + one.size_bytes for one, starts in zip(wanted, places, strict=True)),
        default=0,
    )


def fits_together(wanted: Sequence[Request], places: Places) -> bool:
    """Whether no two buffers that are live at the same time overlap, and all are aligned."""
    ranges = [
        (number, start, start + request.size_bytes)
        for number, (request, starts) in enumerate(zip(wanted, places, strict=True))
        for start in starts
    ]
    for i, (one, start, stop) in enumerate(ranges):
        if start != align_up(start, VECTOR_BYTES):
            return False
        for other, low, high in ranges[:i]:
            live = (
                wanted[one].first <= wanted[other].last and wanted[other].first <= wanted[one].last
            )
            if live and low < stop and start < high:
                return False
    return True
