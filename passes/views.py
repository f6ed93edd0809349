"""Which tensors are views of another tensor's buffer, and which ops therefore need no kernel.

`Reshape` never moves data. `Slice` does not if the rows that it takes follow each other at one
pitch: a range of columns of all rows, a range of the first axis, or both. A range of columns is a
*pitched* view: its rows lie as far apart as the whole tensor's. Kernels take pitched operands; a
`Reshape` to another width, a `Call`, a `return` and the cache of a `CacheUpdate` need rows without
gaps, and for them the `Slice` is copied by a kernel.

The tiling asks `needs_kernel` before kernels exist, the memory plan asks `view_of` afterwards; what
one takes for a view, the other does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Attribute, Operation, SSAValue, Use

from tilewright.dialects import graph, tpu
from tilewright.dialects.levels import level_of
from tilewright.passes.kernels.registry import View

_NO_KERNEL = (graph.Weight, graph.State, graph.Call, graph.Reshape, tpu.LaunchOp)


@dataclass(frozen=True)
class ViewOf:
    """`view` lies `offset_bytes` into the buffer of `root`."""

    root: SSAValue[Attribute]
    offset_bytes: int
    view: View


def needs_kernel(op: Operation) -> bool:
    """Whether `op` is a `tpu` op that a kernel computes: neither a name for data nor a view."""
    if level_of(op) != "tpu" or isinstance(op, _NO_KERNEL):
        return False
    return not isinstance(op, graph.Slice) or _slice_view(op) is None


def view_of(value: SSAValue[Attribute]) -> ViewOf:
    """Where the elements of a tensor lie. A value with a buffer of its own is its own root.

    What is written in place (`CacheUpdate`, an aliased `Launch`) lies in the updated buffer.
    """
    op = value.owner
    if isinstance(op, graph.Reshape):
        source = view_of(op.x)
        pitch = source.view.pitch_bytes
        shape, element = graph.shape_of(value), source.view.element
        same_width = source.view.cols == (shape[-1] if shape else 1)
        view = View.of(shape, element, pitch if same_width else None)
        return ViewOf(source.root, source.offset_bytes, view)
    if isinstance(op, graph.Slice):
        view = _slice_view(op)
        if view is not None:
            return view
    if isinstance(op, graph.CacheUpdate):
        return view_of(op.cache)
    if isinstance(op, tpu.LaunchOp) and op.alias is not None:
        return view_of(op.arguments[op.alias.value.data])
    return ViewOf(value, 0, View.of_type(value.type))


def _slice_view(op: graph.Slice) -> ViewOf | None:
    """The view that a slice is; None where its elements must be copied."""
    source = view_of(op.x)
    view = source.view
    offsets, sizes = op.offsets.get_values(), graph.shape_of(op.result)
    if not sizes or not _is_row_range(view.shape[:-1], sizes[:-1]):
        return None
    part = View.of(sizes, view.element, view.pitch_bytes)
    if not part.is_contiguous and _needs_contiguous(op.result):
        return None
    first_row = 0
    for size, offset in zip(view.shape[:-1], offsets[:-1], strict=True):
        first_row = first_row * size + offset
    offset_bytes = first_row * view.pitch_bytes + offsets[-1] * view.element.size_bytes
    return ViewOf(source.root, source.offset_bytes + offset_bytes, part)


def _is_row_range(shape: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether a box of `sizes` holds neighbouring rows, in row-major order of the axes `shape`.

    That is: before the last axis that is not whole, all have size 1.
    """
    partial = [axis for axis, size in enumerate(sizes) if size != shape[axis]]
    return not partial or math.prod(sizes[: partial[-1]]) == 1


def _needs_contiguous(value: SSAValue[Attribute]) -> bool:
    return any(_use_needs_contiguous(use) for use in value.uses)


def _use_needs_contiguous(use: Use) -> bool:
    op = use.operation
    if isinstance(op, graph.Reshape):
        width, new_width = (
            shape[-1:] for shape in (graph.shape_of(op.x), graph.shape_of(op.result))
        )
        return width != new_width or _needs_contiguous(op.result)
    if isinstance(op, graph.CacheUpdate):
        return use.index == 0
    return isinstance(op, graph.Call | func.ReturnOp)
