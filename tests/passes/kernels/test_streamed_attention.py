"""Attention in chunks of keys: one token, and rows of scores that are too long for local memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import FLOATS, check
from tests.passes.kernels.test_attention import attention, causal, operands

from tilewright.backends.chip import Chip
from tilewright.backends.simulator.timing import time_kernel
from tilewright.dialects.element_types import F16, F32, ElementType
from tilewright.passes.kernels import attention as kernels
from tilewright.passes.tiling import streamed_attention
from tilewright.passes.tiling.attention import AttentionShape
from tilewright.passes.tiling.streamed_attention import StreamedTile

elements = pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tokens stream too, in chunks of 37 keys: odd ones, and a last one that is short."""
    chosen = streamed_attention.choose_tile

    def choose(shape: AttentionShape, chip: Chip) -> StreamedTile:
        tile = chosen(shape, chip)
        return StreamedTile(min(tile.rows, 64), min(shape.length, 37), tile.groups, tile.heads)

    def never(shape: AttentionShape, chip: Chip) -> bool:
        return False

    monkeypatch.setattr(streamed_attention, "choose_tile", choose)
    monkeypatch.setattr(kernels, "fits_whole_rows", never)


@elements
@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("queries", [1, 66])
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (6, 1), (6, 3), (4, 4), (10, 5)])
def test_heads_and_groups(queries: int, heads: int, groups: int, element: ElementType):
    inputs = operands(queries, 100, heads, groups, 12, element)
    check(attention(heads, groups, 12**-0.5), *inputs)
    check(attention(heads, groups, 12**-0.5), *inputs, causal(queries, 100, element))


@elements
@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("queries", [1, 5])
def test_chunks_that_a_mask_hides(queries: int, element: ElementType):
    """A chunk of -inf adds nothing; a row of nothing else is NaN, as in IEEE 754."""
    q, k, v = operands(queries, 100, 6, 2, 16, element)
    build = attention(6, 2, 0.25)
    mask = np.zeros((queries, 100), element.dtype)
    mask[:, :80] = -np.inf
    check(build, q, k, v, mask)
    check(build, q, k, v, mask[:, ::-1].copy())
    mask[0] = -np.inf
    check(build, q, k, v, mask)
    mask[:, :90] = causal(queries, 100, element).min()
    mask[:, 90:] = 0
    check(build, q, k, v, mask)


@pytest.mark.usefixtures("short_chunks")
def test_scores_that_grow_from_chunk_to_chunk():
    """What was summed before is scaled down each time."""
    q, k, v = operands(3, 150, 2, 1, 16, F32)
    growing = np.linspace(-60, 60, 150, dtype=np.float32)[None, :].repeat(3, axis=0)
    check(attention(2, 1, 0.25), q, k, v, growing)
    check(attention(2, 1, 0.25), q, k, v, growing[:, ::-1].copy())


@pytest.mark.usefixtures("short_chunks")
@given(st.integers(1, 100), st.integers(1, 150), st.integers(1, 4), st.integers(1, 4), st.data())
@settings(deadline=None, max_examples=25)
def test_any_size(queries: int, length: int, groups: int, share: int, data: st.DataObject):
    element = data.draw(st.sampled_from(FLOATS))
    inputs = operands(
        queries, length, groups * share, groups, data.draw(st.integers(1, 70)), element
    )
    inputs += [causal(queries, length, element)] if data.draw(st.booleans()) else []
    check(attention(groups * share, groups, 0.2), *inputs)


@pytest.mark.parametrize("queries", [1, 66])
def test_rows_of_scores_too_long_for_local_memory(queries: int):
    inputs = operands(queries, 9000, 2, 1, 32, F16)
    check(attention(2, 1, 0.2), *inputs, causal(queries, 9000, F16))


def test_one_token_takes_little_longer_than_loading():
    """Decode of ChatGLM2: compute overlaps with all but the first and the last chunk."""
    item = check(
        attention(32, 2, 128**-0.5), *operands(1, 512, 32, 2, 128, F16), causal(1, 512, F16)
    )
    time = time_kernel(item.kernel, item.chip)
    assert time.cycles < 1.08 * time.gdma.busy
