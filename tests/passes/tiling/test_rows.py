"""Tile sizes of kernels that work row by row, as mathematics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.chip import CHIP_NAMES, Chip, load_chip
from tilewright.dialects.element_types import BF16, F16, F32, I8
from tilewright.dialects.errors import FitError
from tilewright.passes.tiling.rows import (
    TILE_LANE_BYTES,
    TileBuffer,
    divisors,
    fold,
    row_tile,
    rows_that_fit,
    run_elements,
    slot_bytes,
    split_tile,
    total_lane_bytes,
    vectors,
    whole_row_tile,
)

CHIP = load_chip("bm1684x")

SMALL = replace(CHIP, name="small", lane_bytes=20_000)
"""Where tiles are cut to fit, and not by what they aim at."""

chips = st.sampled_from([*(load_chip(name) for name in CHIP_NAMES), SMALL])


@st.composite
def buffer_lists(draw: st.DrawFn) -> list[TileBuffer]:
    """One tile at least, and whatever else a kernel may have."""
    elements = st.sampled_from([F32, F16, BF16, I8])
    first = TileBuffer(draw(elements), draw(st.integers(1, 2)))
    extents = st.sampled_from(["tile", "row", "column"])
    others = st.builds(TileBuffer, elements, st.integers(1, 4), extents)
    return [first, *draw(st.lists(others, max_size=3))]


@given(st.integers(1, 10_000))
def test_divisors(value: int):
    assert divisors(value) == [d for d in range(1, value + 1) if value % d == 0]


@given(st.integers(1, 100_000), chips)
def test_fold_keeps_all_elements_and_no_shape_is_faster(elements: int, chip: Chip):
    rows, cols = fold(elements, chip)
    assert rows * cols == elements
    best = min(vectors(elements // d, d, chip) for d in divisors(elements))
    assert vectors(rows, cols, chip) == best


def test_fold_of_a_token():
    assert fold(4096, CHIP) == (64, 64)
    assert fold(1, CHIP) == (1, 1)


@given(st.integers(1, 5000), st.integers(1, 60_000), buffer_lists(), chips)
def test_split_tiles_fit_and_are_not_empty(
    rows: int, cols: int, buffers: list[TileBuffer], chip: Chip
):
    step = run_elements(F16, chip)
    if total_lane_bytes(buffers, 1, 1, chip) > chip.lane_bytes:
        return
    tile = split_tile(rows, cols, buffers, chip, step)
    assert 1 <= tile.rows <= rows
    assert 1 <= tile.cols <= cols
    assert tile.cols == cols or tile.cols % step == 0 or tile.cols < step
    assert total_lane_bytes(buffers, tile.rows, tile.cols, chip) <= chip.lane_bytes
    assert tile.rows == rows or tile.rows % chip.lanes == 0


@given(st.integers(1, 5000), st.integers(1, 60_000), buffer_lists(), chips)
def test_whole_rows_fit_or_one_slot_does_not(
    rows: int, cols: int, buffers: list[TileBuffer], chip: Chip
):
    tile, need = (
        whole_row_tile(rows, cols, buffers, chip),
        total_lane_bytes(buffers, 1, cols, chip),
    )
    if tile is None:
        with pytest.raises(FitError) as info:
            row_tile(rows, cols, buffers, chip)
        missing = f"it takes {need} bytes of every lane, {need - chip.lane_bytes} more than"
        assert str(info.value.why).startswith(missing)
        assert need > chip.lane_bytes
        assert "--seq" in str(info.value.hint)
        assert "more local memory" in str(info.value.hint)
    else:
        assert row_tile(rows, cols, buffers, chip) == tile
        assert tile.cols == cols
        assert 1 <= tile.rows <= rows
        assert total_lane_bytes(buffers, tile.rows, cols, chip) <= chip.lane_bytes


def test_a_tile_aims_at_a_size():
    """The widest tile is as large as wanted, and not a slot larger."""
    tile = row_tile(100_000, 100, [TileBuffer(F16, 2), TileBuffer(F32, 2)], CHIP)
    assert tile.rows // CHIP.lanes == TILE_LANE_BYTES // slot_bytes(100, F32, CHIP)


def test_nothing_fits_a_chip_without_local_memory():
    tiny = replace(CHIP, name="tiny", lane_bytes=100)
    with pytest.raises(FitError, match="the smallest tile does not fit local memory") as info:
        split_tile(5, 5, [TileBuffer(F32, 2)], tiny, 128)
    assert info.value.why == "it takes 128 bytes of every lane, 28 more than the 100 of tiny"


@given(st.integers(1, 5000), st.integers(1, 300_000), st.integers(0, 300_000), chips)
def test_rows_that_fit(rows: int, row_bytes: int, shared: int, chip: Chip):
    if row_bytes + shared > chip.lane_bytes:
        with pytest.raises(FitError) as info:
            rows_that_fit(rows, row_bytes, shared, chip)
        missing = row_bytes + shared - chip.lane_bytes
        assert f"{missing} more than the {chip.lane_bytes}" in str(info.value.why)
    else:
        count = rows_that_fit(rows, row_bytes, shared, chip)
        assert 1 <= count <= rows
        assert -(-count // chip.lanes) * row_bytes + shared <= chip.lane_bytes
