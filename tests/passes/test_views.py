"""Which tensors are views, held against numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType
from xdsl.ir import Attribute, Block, Region, SSAValue

from tilewright.dialects import tpu
from tilewright.dialects.element_types import F16, F32, I32, tensor_type
from tilewright.passes.views import ViewOf, needs_kernel, view_of

Value = SSAValue[Attribute]


def argument(shape: Sequence[int]) -> Value:
    return Block(arg_types=[tensor_type(tuple(shape), F32)]).args[0]


def elements(place: ViewOf) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What the view shows of a root that counts 0, 1, 2, ..."""
    root = view_of(place.root).view
    memory = np.arange(root.rows * root.cols, dtype=np.float32)
    view = place.view
    rows = np.ndarray(
        (view.rows, view.cols),
        np.float32,
        memory.data,
        offset=place.offset_bytes,
        strides=(view.pitch_bytes, 4),
    )
    return rows.reshape(view.shape)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    offsets = tuple(draw(st.integers(0, size - 1)) for size in shape)
    sizes = tuple(draw(st.integers(1, size - at)) for size, at in zip(shape, offsets, strict=True))
    return shape, offsets, sizes


@given(st.data(), boxes())
def test_views_show_the_elements(data: st.DataObject, box: tuple[tuple[int, ...], ...]):
    """Slices and reshapes in a chain: each is a view of the right elements, or needs a kernel."""
    shape, offsets, sizes = box
    value = argument(shape)
    first = tpu.SliceOp(value, offsets, sizes)
    inner = tuple(data.draw(st.integers(0, size - 1)) for size in sizes)
    rest = tuple(size - at for size, at in zip(sizes, inner, strict=True))
    second = tpu.SliceOp(first.result, inner, rest)
    third = tpu.ReshapeOp(second.result, [math.prod(rest)])
    exact = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    for op, at in ((first, offsets), (second, inner), (third, None)):
        if at is None:
            exact = exact.reshape(-1)
        else:
            box_ = zip(at, op.result.type.get_shape(), strict=True)
            exact = exact[tuple(slice(start, start + size) for start, size in box_)]
        place = view_of(op.result)
        if needs_kernel(op):
            assert place.root == op.result
            exact = np.arange(exact.size, dtype=np.float32).reshape(exact.shape)
        assert np.array_equal(elements(place), exact)


def test_a_range_of_columns_is_pitched():
    qkv = argument((5, 48))
    k = tpu.SliceOp(qkv, [0, 32], [5, 8])
    place = view_of(k.result)
    assert (place.root, place.offset_bytes, place.view.pitch_bytes) == (qkv, 128, 192)
    assert not place.view.is_contiguous
    assert not needs_kernel(k)


def test_a_range_of_rows_is_contiguous():
    rows = tpu.SliceOp(argument((6, 4)), [2, 0], [3, 4])
    place = view_of(rows.result)
    assert place.offset_bytes == 32
    assert place.view.is_contiguous


def test_columns_of_one_row_are_contiguous():
    part = tpu.SliceOp(argument((6, 4)), [5, 1], [1, 2])
    place = view_of(tpu.ReshapeOp(part.result, [2]).result)
    assert not needs_kernel(part)
    assert place.offset_bytes == 84


def test_rows_with_gaps_of_more_than_one_size_need_a_kernel():
    assert needs_kernel(tpu.SliceOp(argument((4, 4, 4)), [0, 1, 0], [2, 2, 4]))


def test_chains_add_offsets():
    x = argument((8, 64))
    rows = tpu.SliceOp(x, [4, 0], [4, 64])
    cols = tpu.SliceOp(rows.result, [1, 16], [2, 32])
    flat = tpu.ReshapeOp(cols.result, [1, 2, 32])
    place = view_of(flat.result)
    assert place.root == x
    assert place.offset_bytes == 5 * 256 + 16 * 4
    assert place.view.shape == (1, 2, 32)
    assert place.view.pitch_bytes == 256


def _consumer(kind: str, value: Value) -> None:
    match kind:
        case "reshape":
            tpu.ReshapeOp(value, [32])
        case "reshape and return":
            func.ReturnOp(tpu.ReshapeOp(value, [1, 4, 8]).result)
        case "call":
            tpu.CallOp("f", [value], [])
        case "return":
            func.ReturnOp(value)
        case _:
            rows = Block(arg_types=[tensor_type((1, 8), F32), tensor_type((1,), I32)]).args
            tpu.CacheUpdateOp(value, rows[0], rows[1])


@pytest.mark.parametrize("kind", ["reshape", "reshape and return", "call", "return", "cache"])
def test_pitched_slices_are_copied_where_gaps_are_not_allowed(kind: str):
    part = tpu.SliceOp(argument((4, 16)), [0, 8], [4, 8])
    assert not needs_kernel(part)
    _consumer(kind, part.result)
    assert needs_kernel(part)
    assert view_of(part.result).root == part.result


def test_rows_of_a_cache_update_may_be_pitched():
    part = tpu.SliceOp(argument((4, 16)), [0, 8], [4, 8])
    others = Block(arg_types=[tensor_type((9, 8), F32), tensor_type((4,), I32)]).args
    update = tpu.CacheUpdateOp(others[0], part.result, others[1])
    assert not needs_kernel(part)
    assert needs_kernel(update)


def test_what_is_written_in_place_lies_in_the_updated_buffer():
    state = tpu.StateOp("k_cache", [9, 8], F16)
    others = Block(arg_types=[tensor_type((1, 8), F16), tensor_type((1,), I32)]).args
    update = tpu.CacheUpdateOp(state.result, others[0], others[1])
    launch = tpu.LaunchOp("k", [update.result, *others], [state.result.type], alias=0)
    part = tpu.SliceOp(launch.outputs[0], [1, 0], [2, 8])
    assert view_of(part.result).root == state.result
    assert view_of(part.result).offset_bytes == 16


def test_names_for_data_need_no_kernel():
    weight = tpu.WeightOp("w", [4, 4], F16)
    call = tpu.CallOp("f", [weight.result], [])
    region = Region(Block())
    function = func.FuncOp("g", FunctionType.from_lists([], []), region)
    for op in (weight, call, tpu.StateOp("s", [4, 4], F16), function):
        assert not needs_kernel(op)
    assert needs_kernel(tpu.ExpOp(weight.result))
