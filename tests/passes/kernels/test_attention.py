"""The kernel of attention."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import FLOATS, Array, Build, Pitched, check, chip_file, normal
from xdsl.ir import Operation

from tilewright.dialects import tpu
from tilewright.dialects.element_types import F16, F32, ElementType
from tilewright.dialects.errors import FitError

elements = pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)


def attention(heads: int, groups: int, scale: float) -> Build:
    def build(q: Any, k: Any, v: Any, mask: Any = None) -> Operation:
        return tpu.AttentionOp(q, k, v, mask, num_heads=heads, num_kv_heads=groups, scale=scale)

    return build


def operands(
    queries: int, length: int, heads: int, groups: int, width: int, element: ElementType
) -> list[Array]:
    return [
        normal((queries, heads * width), element, 1),
        normal((length, groups * width), element, 2),
        normal((length, groups * width), element, 3),
    ]


def causal(queries: int, length: int, element: ElementType) -> Array:
    """The lowest finite value where the key is behind the query, as language models have it."""
    low = ml_dtypes.finfo(element.dtype).min
    shown = np.arange(length)[None, :] <= np.arange(queries)[:, None] + max(0, length - queries)
    return np.where(shown, 0, float(low)).astype(element.dtype)


HEADS = [(1, 1), (6, 1), (6, 2), (6, 3), (4, 4), (65, 1), (70, 70)]


@elements
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("queries", [1, 5, 70])
@pytest.mark.parametrize(("heads", "groups"), HEADS)
def test_heads_and_groups(
    queries: int, heads: int, groups: int, masked: bool, element: ElementType
):
    inputs = operands(queries, 33, heads, groups, 12, element)
    inputs += [causal(queries, 33, element)] if masked else []
    check(attention(heads, groups, 12**-0.5), *inputs)


@elements
@pytest.mark.parametrize("queries", [1, 130])
@pytest.mark.parametrize(("length", "width"), [(1, 64), (63, 20), (130, 80), (257, 1), (64, 128)])
def test_lengths_and_widths(queries: int, length: int, width: int, element: ElementType):
    inputs = operands(queries, length, 4, 2, width, element)
    check(attention(4, 2, width**-0.5), *inputs, causal(queries, length, element))


@elements
@pytest.mark.parametrize("queries", [1, 70])
def test_columns_of_joint_projections(queries: int, element: ElementType):
    q, k, v = operands(queries, 50, 6, 2, 20, element)
    mask = causal(queries, 50, element)
    pitched = [Pitched(q, 1, 80), Pitched(k, 40, 7), Pitched(v, 3, 2), Pitched(mask, 5, 9)]
    check(attention(6, 2, 0.3), *pitched)
    check(attention(6, 2, -0.3), *pitched[:3])


def test_many_groups_in_blocks():
    """More keys and values than local memory takes at once."""
    inputs = operands(70, 520, 16, 16, 128, F16)
    check(attention(16, 16, 0.1), *inputs, causal(70, 520, F16))
    inputs = operands(1, 520, 16, 16, 128, F32)
    check(attention(16, 16, 0.1), *inputs, causal(1, 520, F32))


def test_more_heads_a_group_than_rows_a_tile():
    inputs = operands(1, 3001, 140, 2, 8, F16)
    check(attention(140, 2, 0.25), *inputs, causal(1, 3001, F16))


def test_long_rows_of_scores():
    inputs = operands(70, 3001, 2, 1, 16, F16)
    check(attention(2, 1, 0.25), *inputs, causal(70, 3001, F16))


@pytest.mark.parametrize("queries", [1, 5])
def test_rows_without_anything_shown(queries: int):
    """All scores at the lowest value are even; infinite masks leave NaN, as they do in IEEE 754."""
    q, k, v = operands(queries, 40, 2, 1, 16, F32)
    mask = np.full((queries, 40), ml_dtypes.finfo(np.float32).min, np.float32)
    check(attention(2, 1, 0.25), q, k, v, mask)
    mask[:, :20] = -np.inf
    check(attention(2, 1, 0.25), q, k, v, mask)
    check(attention(2, 1, 0.25), q, k, v, np.full_like(mask, -np.inf))


@given(
    st.integers(1, 100),
    st.integers(1, 150),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 70),
    st.data(),
)
@settings(deadline=None, max_examples=40)
def test_any_size(
    queries: int, length: int, groups: int, share: int, width: int, data: st.DataObject
):
    element = data.draw(st.sampled_from(FLOATS))
    queries = 1 if data.draw(st.booleans()) else queries
    inputs = operands(queries, length, groups * share, groups, width, element)
    inputs += [causal(queries, length, element)] if data.draw(st.booleans()) else []
    check(attention(groups * share, groups, 0.2), *inputs)


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> str:
    return chip_file(tmp_path_factory.mktemp("chips"), 16384)


@contextmanager
def suppress_fit_error() -> Generator[None]:
    """Whole rows that do not fit."""
    try:
        yield
    except FitError as error:
        if error.what != "the smallest tile does not fit local memory":
            raise


@given(
    st.sampled_from([1, 70]),
    st.integers(1, 900),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 130),
    st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_little_local_memory(
    little: str, queries: int, length: int, groups: int, share: int, width: int, masked: bool
):
    """What the choice of tiles lets through has room: the allocation never fails."""
    inputs = operands(queries, length, groups * share, groups, width, F16)
    inputs += [causal(queries, length, F16)] if masked else []
    with suppress_fit_error():
        check(attention(groups * share, groups, 0.2), *inputs, chip=little)
