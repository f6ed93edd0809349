"""The kernel of rotary position embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import FLOATS, Array, Build, Pitched, check, normal
from xdsl.ir import Operation

from tilewright.dialects import tpu
from tilewright.dialects.element_types import F16, F32, ElementType

elements = pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)


def rope(heads: int, rotary_dim: int, interleaved: bool) -> Build:
    def build(x: Any, cos: Any, sin: Any) -> Operation:
        return tpu.RopeOp(
            x, cos, sin, num_heads=heads, rotary_dim=rotary_dim, interleaved=interleaved
        )

    return build


def tables(tokens: int, width: int, rotary_dim: int) -> tuple[Array, Array]:
    """Cosines and sines of random angles; 1 and 0 past `rotary_dim`."""
    angles = normal((tokens, width), F32, 5, 10.0)
    angles[:, rotary_dim:] = 0
    return np.cos(angles), np.sin(angles)


@elements
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 65, 130])
@pytest.mark.parametrize(
    ("heads", "width", "rotary_dim"),
    [(1, 2, 2), (3, 12, 12), (5, 20, 10), (32, 80, 32), (70, 80, 80), (2, 128, 64), (7, 5, 4)],
)
def test_rope(
    tokens: int, heads: int, width: int, rotary_dim: int, interleaved: bool, element: ElementType
):
    x = normal((tokens, heads * width), element)
    build = rope(heads, rotary_dim, interleaved)
    check(build, x, *tables(tokens, width, rotary_dim))


@elements
@pytest.mark.parametrize("tokens", [1, 70])
def test_columns_of_a_joint_projection(tokens: int, element: ElementType):
    """Queries are a range of the columns of what one matrix multiplication made."""
    cos, sin = tables(tokens, 20, 12)
    x = Pitched(normal((tokens, 60), element), 40, 33)
    check(rope(3, 12, True), x, cos, sin)
    check(rope(3, 12, False), x, Pitched(cos, 1, 3), Pitched(sin, 20, 0))


def test_a_zero_angle_leaves_all_as_it_is():
    x = normal((9, 48), F16)
    cos, sin = np.ones((9, 16), np.float32), np.zeros((9, 16), np.float32)
    assert np.array_equal(check(rope(3, 16, True), x, cos, sin).run(), x)


@given(
    st.integers(1, 140),
    st.integers(1, 9),
    st.integers(2, 70),
    st.data(),
)
@settings(deadline=None, max_examples=30)
def test_any_size(tokens: int, heads: int, width: int, data: st.DataObject):
    rotary_dim = 2 * data.draw(st.integers(1, width // 2))
    element = data.draw(st.sampled_from(FLOATS))
    x = normal((tokens, heads * width), element)
    build = rope(heads, rotary_dim, data.draw(st.booleans()))
    check(build, x, *tables(tokens, width, rotary_dim))
