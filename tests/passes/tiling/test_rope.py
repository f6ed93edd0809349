"""The tile sizes of rotary position embedding, as mathematics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.chip import CHIP_NAMES, Chip, load_chip
from tilewright.dialects.element_types import BF16, F16, F32
from tilewright.dialects.errors import FitError
from tilewright.passes.tiling.rope import (
    RopeShape,
    by_columns_cycles,
    by_tokens_cycles,
    columns_slot_bytes,
    is_faster_by_tokens,
    rows_by_columns,
    tokens_tile,
)

CHIP = load_chip("bm1684x")
QUERIES = RopeShape(512, 32, 128, F16, 9216, 8192, joined_tables=True)
"""The queries of ChatGLM2, in the joint projection of queries, keys and values."""

chips = st.sampled_from([load_chip(name) for name in CHIP_NAMES])


@st.composite
def shapes(draw: st.DrawFn) -> RopeShape:
    heads, width = draw(st.integers(1, 80)), draw(st.integers(1, 300))
    element = draw(st.sampled_from([F16, BF16, F32]))
    contiguous = heads * width * element.size_bytes
    return RopeShape(
        tokens=draw(st.integers(1, 3000)),
        heads=heads,
        width=width,
        element=element,
        source_pitch=contiguous + draw(st.integers(0, 5)) * width * element.size_bytes,
        target_pitch=contiguous,
        joined_tables=draw(st.booleans()),
    )


@given(shapes(), chips)
def test_tiles_divide_and_fit(shape: RopeShape, chip: Chip):
    tile = tokens_tile(shape, chip)
    assert shape.tokens % tile.tokens == 0
    assert 1 <= tile.rows <= shape.heads
    assert shape.joined_tables or tile.tokens == 1
    if columns_slot_bytes(shape, chip) <= chip.lane_bytes:
        rows = rows_by_columns(shape, chip)
        slots = -(-rows // chip.lanes)
        assert slots * columns_slot_bytes(shape, chip) <= chip.lane_bytes


def test_runs_of_a_head_are_shorter_than_what_is_charged():
    """256 bytes are charged 512; by tokens all heads are one run."""
    assert is_faster_by_tokens(QUERIES, CHIP)
    assert by_tokens_cycles(QUERIES, CHIP) < 0.75 * by_columns_cycles(QUERIES, CHIP)
    assert not is_faster_by_tokens(replace(QUERIES, width=256, source_pitch=18432), CHIP)


def test_few_heads_go_by_columns():
    keys = replace(QUERIES, heads=2, target_pitch=512)
    assert not is_faster_by_tokens(keys, CHIP)


def test_heads_that_are_not_rows_go_by_columns():
    assert not is_faster_by_tokens(replace(QUERIES, source_pitch=9218), CHIP)
    assert is_faster_by_tokens(replace(QUERIES, tokens=1, source_pitch=8192), CHIP)


def test_rows_too_wide_go_by_tokens():
    wide = RopeShape(70, 400, 256, F16, 204800, 204800, joined_tables=True)
    assert columns_slot_bytes(wide, CHIP) > CHIP.lane_bytes
    assert is_faster_by_tokens(wide, CHIP)
    with pytest.raises(FitError, match="does not fit local memory"):
        rows_by_columns(wide, CHIP)
