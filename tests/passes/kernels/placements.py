"""Requests of any kind, for tests of packing and placement."""

from __future__ import annotations

from hypothesis import strategies as st

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
