"""The tile sizes of attention in chunks of keys, as mathematics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.chip import CHIP_NAMES, Chip, load_chip
from tilewright.dialects.element_types import BF16, F16, F32
from tilewright.dialects.errors import FitError
from tilewright.passes.tiling.attention import AttentionShape
from tilewright.passes.tiling.streamed_attention import (
    MAX_HEADS,
    choose_tile,
    lane_bytes,
)

CHIP = load_chip("bm1684x")
CHATGLM = AttentionShape(1, 512, 32, 2, 128, F16, masked=True)

chips = st.sampled_from([load_chip(name) for name in CHIP_NAMES])


@st.composite
def shapes(draw: st.DrawFn) -> AttentionShape:
    groups = draw(st.integers(1, 16))
    return AttentionShape(
        queries=draw(st.sampled_from([1, 2, 65, 5000])),
        length=draw(st.integers(1, 100_000)),
        heads=groups * draw(st.integers(1, 100)),
        groups=groups,
        width=draw(st.sampled_from([1, 12, 64, 80, 128, 256])),
        element=draw(st.sampled_from([F16, BF16, F32])),
        masked=draw(st.booleans()),
    )


@given(shapes(), chips)
def test_scores_of_any_length_fit(shape: AttentionShape, chip: Chip):
    tile = choose_tile(shape, chip)
    assert lane_bytes(shape, tile, chip) <= chip.lane_bytes
    assert 1 <= tile.rows <= shape.rows
    assert 1 <= tile.keys <= shape.length
    assert shape.groups % tile.groups == 0
    assert shape.share % tile.heads == 0
    assert tile.groups * tile.heads <= MAX_HEADS


def test_groups_share_runs_of_memory():
    """Rows of 256 bytes are charged 512; those of both groups together are contiguous."""
    assert choose_tile(CHATGLM, CHIP).groups == 2


def test_a_single_token_has_short_chunks():
    """What is computed on the last chunk overlaps with nothing."""
    many = choose_tile(replace(CHATGLM, queries=512), CHIP)
    assert choose_tile(CHATGLM, CHIP).keys < many.keys


def test_heads_share_chunks():
    assert choose_tile(replace(CHATGLM, queries=512), CHIP).heads > 1


def test_heads_that_do_not_fit():
    with pytest.raises(FitError, match="does not fit local memory"):
        choose_tile(replace(CHATGLM, width=100_000), CHIP)
