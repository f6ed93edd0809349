"""Kernels that pick rows by index: embeddings, quantized embeddings, cache updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import FLOATS, Array, Pitched, check, lowered, normal

from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, F32, I32, ElementType
from tilewright.dialects.errors import SimulationError

elements = pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)


def indices(*values: int) -> Array:
    return np.array(values, np.int32)


def some_rows(count: int, table_rows: int) -> Array:
    """Repeated ones, the first and the last."""
    chosen = np.random.default_rng(count).integers(0, table_rows, count).astype(np.int32)
    chosen[0] = table_rows - 1
    chosen[-1] = 0 if count > 1 else table_rows - 1
    return chosen


def codes(rows: int, cols: int) -> Array:
    return np.random.default_rng(rows).integers(-127, 128, (rows, cols)).astype(np.int8)


SIZES = [(1, 1, 1), (5, 7, 1), (300, 33, 130), (70, 5000, 65), (3, 40000, 2)]


@pytest.mark.parametrize("element", [*FLOATS, I32], ids=lambda e: e.name)
@pytest.mark.parametrize(("rows", "cols", "count"), SIZES)
def test_gather(rows: int, cols: int, count: int, element: ElementType):
    table = normal((rows, cols), element, scale=100.0)
    check(tpu.GatherOp, table, some_rows(count, rows), exact=True)
    check(tpu.GatherOp, Pitched(table, 3, 1), some_rows(count, rows), exact=True)


@pytest.mark.parametrize(
    ("element", "scales"), [(F16, F16), (F16, F32), (BF16, BF16), (BF16, F32), (F32, F32)]
)
@pytest.mark.parametrize(("rows", "cols", "count"), SIZES)
def test_w8a16_gather(rows: int, cols: int, count: int, element: ElementType, scales: ElementType):
    scale = np.abs(normal((rows, 1), scales)) + scales.dtype.type(0.01)
    check(
        lambda c, s, i: tpu.W8A16GatherOp(c, s, i, element=element),
        codes(rows, cols),
        scale,
        some_rows(count, rows),
        exact=True,
    )


@pytest.mark.parametrize("bad", [-1, 9, 1 << 30, -(1 << 31)])
def test_an_index_out_of_range_is_named(bad: int):
    table, wrong = normal((9, 5), F16), indices(0, 8, bad)
    item = lowered(tpu.GatherOp, table, wrong)
    with pytest.raises(SimulationError, match=f"index 2 is {bad}, the table has 9 rows") as info:
        item.run()
    assert "tpu.Gather" in str(info.value.where)
    scale = np.ones((9, 1), np.float32)
    item = lowered(
        lambda c, s, i: tpu.W8A16GatherOp(c, s, i, element=F16), codes(9, 5), scale, wrong
    )
    with pytest.raises(SimulationError, match=f"is {bad}, the table has 9 rows") as info:
        item.run()
    assert "tpu.W8A16Gather" in str(info.value.where)
    item = lowered(tpu.CacheUpdateOp, table, normal((3, 5), F16), wrong)
    with pytest.raises(SimulationError, match=f"is {bad}, the table has 9 rows") as info:
        item.run()
    assert "tpu.CacheUpdate" in str(info.value.where)


@elements
@pytest.mark.parametrize(("length", "cols", "count"), [(1, 1, 1), (130, 33, 70), (150, 5000, 130)])
def test_cache_update(length: int, cols: int, count: int, element: ElementType):
    """Rows that are not named keep their bytes, NaN and all."""
    cache = normal((length, cols), element)
    cache[:: max(1, length // 4)] = np.nan
    positions = np.random.default_rng(1).permutation(length)[:count].astype(np.int32)
    rows = normal((count, cols), element, 1)
    item = check(tpu.CacheUpdateOp, cache, rows, positions, exact=True)
    untouched = np.setdiff1d(np.arange(length), positions)
    assert item.run()[untouched].tobytes() == cache[untouched].tobytes()
    check(tpu.CacheUpdateOp, cache, Pitched(rows, 2, 3), positions, exact=True)


def test_of_two_rows_for_one_position_the_later_stays():
    cache, rows = normal((100, 4), F16), normal((70, 4), F16, 1)
    positions = (np.arange(70) % 9).astype(np.int32)
    check(tpu.CacheUpdateOp, cache, rows, positions, exact=True)


@given(st.integers(1, 100), st.integers(1, 300), st.integers(1, 150), st.data())
@settings(deadline=None, max_examples=30)
def test_any_size(rows: int, cols: int, count: int, data: st.DataObject):
    element = data.draw(st.sampled_from(FLOATS))
    pitched = data.draw(st.booleans())
    table: Any = normal((rows, cols), element)
    check(
        tpu.GatherOp, Pitched(table, 1, 1) if pitched else table, some_rows(count, rows), exact=True
    )
