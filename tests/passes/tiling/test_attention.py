"""The tile sizes of attention, as mathematics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.chip import CHIP_NAMES, Chip, load_chip
from tilewright.dialects.element_types import BF16, F16, F32
from tilewright.dialects.errors import FitError
from tilewright.passes.tiling.attention import (
    AttentionShape,
    AttentionTile,
    choose_tile,
    estimate_cycles,
    lane_bytes,
)

CHIP = load_chip("bm1684x")
CHATGLM = AttentionShape(512, 512, 32, 2, 128, F16, masked=True)

chips = st.sampled_from([load_chip(name) for name in CHIP_NAMES])


@st.composite
def shapes(draw: st.DrawFn) -> AttentionShape:
    groups = draw(st.integers(1, 16))
    return AttentionShape(
        queries=draw(st.sampled_from([2, 65, 512])),
        length=draw(st.integers(1, 2500)),
        heads=groups * draw(st.integers(1, 16)),
        groups=groups,
        width=draw(st.sampled_from([1, 12, 64, 80, 128])),
        element=draw(st.sampled_from([F16, BF16, F32])),
        masked=draw(st.booleans()),
    )


@given(shapes(), chips)
def test_the_choice_fits_and_divides(shape: AttentionShape, chip: Chip):
    try:
        tile = choose_tile(shape, chip)
    except FitError:
        assert lane_bytes(shape, AttentionTile(1, 1, 1), chip) > chip.lane_bytes
        return
    assert lane_bytes(shape, tile, chip) <= chip.lane_bytes
    assert 1 <= tile.rows <= shape.queries
    assert shape.groups % tile.groups == 0
    assert shape.share % tile.heads == 0 or tile.groups * shape.share % tile.heads == 0
    if tile.heads > shape.share:
        assert tile.heads % shape.share == 0
    smallest = AttentionTile(1, 1, 1)
    assert estimate_cycles(shape, tile, chip) <= estimate_cycles(shape, smallest, chip)


def test_narrow_heads_are_loaded_together():
    """Rows of 32 elements are an eighth of what a run of global memory is charged."""
    narrow = replace(CHATGLM, width=32, length=64)
    assert choose_tile(narrow, CHIP).heads > 1


def test_scores_that_do_not_fit():
    with pytest.raises(FitError, match="does not fit local memory") as info:
        choose_tile(replace(CHATGLM, length=32768), CHIP)
    assert "a shorter --seq" in str(info.value.hint)
