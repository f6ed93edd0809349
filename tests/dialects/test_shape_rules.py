"""The shape rules against numpy, which computes with arrays of those shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects import shape_rules

SIZES = st.integers(1, 4)
SHAPES = st.lists(SIZES, min_size=1, max_size=4).map(tuple)


@given(SHAPES, SIZES, st.booleans())
def test_matmul(x: tuple[int, ...], cols: int, right_transpose: bool) -> None:
    right = (cols, x[-1]) if right_transpose else (x[-1], cols)
    matrix = np.zeros(right).T if right_transpose else np.zeros(right)
    expected = (np.zeros(x) @ matrix).shape
    assert shape_rules.matmul(x, right, (cols,), right_transpose=right_transpose) == expected


@given(SHAPES, SIZES, SIZES, SIZES, st.booleans())
def test_batch_matmul(
    batch: tuple[int, ...], rows: int, depth: int, cols: int, right_transpose: bool
) -> None:
    a = (*batch, rows, depth)
    b = (*batch, cols, depth) if right_transpose else (*batch, depth, cols)
    right = np.zeros(b).swapaxes(-1, -2) if right_transpose else np.zeros(b)
    expected = (np.zeros(a) @ right).shape
    assert shape_rules.batch_matmul(a, b, right_transpose=right_transpose) == expected


@given(SHAPES, SHAPES)
def test_broadcast_takes_only_what_numpy_broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        result = shape_rules.broadcast(a, b)
    except VerifyException:
        return
    assert result == a
    assert np.broadcast_shapes(a, b) == a


@given(SHAPES, st.data())
def test_broadcast_takes_the_documented_forms(a: tuple[int, ...], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(a)))
    ones = data.draw(st.integers(0, start))
    for b in (a, (1,) * ones + a[start:], (*a[:-1], 1)):
        assert shape_rules.broadcast(a, b) == a


@pytest.mark.parametrize(
    ("a", "b"), [((4, 8), (4,)), ((4, 8), (2, 8)), ((8,), (1, 8)), ((2, 4, 8), (2, 1, 8))]
)
def test_broadcast_refuses(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(VerifyException, match="does not broadcast"):
        shape_rules.broadcast(a, b)


@given(SHAPES.flatmap(lambda shape: st.tuples(st.just(shape), st.permutations(range(len(shape))))))
def test_permute(case: tuple[tuple[int, ...], list[int]]) -> None:
    shape, order = case
    assert shape_rules.permute(shape, order) == np.zeros(shape).transpose(order).shape


@given(SHAPES, st.lists(SIZES, min_size=1, max_size=3), st.data())
def test_concat(shape: tuple[int, ...], sizes: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    expected = np.concatenate([np.zeros(s) for s in shapes], axis).shape
    assert shape_rules.concat(shapes, axis) == expected


@given(SHAPES, st.data())
def test_slice(shape: tuple[int, ...], data: st.DataObject) -> None:
    offsets = [data.draw(st.integers(-1, size)) for size in shape]
    sizes = tuple(data.draw(SIZES) for _ in shape)
    inside = all(o >= 0 and o + n <= s for o, n, s in zip(offsets, sizes, shape, strict=True))
    if inside:
        shape_rules.slice_(shape, offsets, sizes)
    else:
        with pytest.raises(VerifyException, match="do not lie within"):
            shape_rules.slice_(shape, offsets, sizes)


@given(SHAPES, SHAPES)
def test_reshape(x: tuple[int, ...], result: tuple[int, ...]) -> None:
    if np.zeros(x).size == np.zeros(result).size:
        shape_rules.reshape(x, result)
    else:
        with pytest.raises(VerifyException, match="elements"):
            shape_rules.reshape(x, result)
