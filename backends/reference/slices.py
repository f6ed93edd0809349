"""Which slices are views: ranges of rows at one pitch that nothing needs without gaps.

`passes.views` decides so when it makes kernels; here the same rule says whether a `Slice` shares
its operand's array, so that a kernel can be held to the pitch it was built for.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray
from xdsl.dialects import func
from xdsl.ir import SSAValue, Use

from tilewright.dialects import graph
from tilewright.dialects.graph import shape_of


def is_view(op: graph.Slice, source: NDArray[Any]) -> bool:
    """Whether the result of `op` lies in its operand, which lies as the array `source` does."""
    if not op.name.startswith("tpu."):
        return False
    shape, sizes = shape_of(op.x), shape_of(op.result)
    leading = [axis for axis, size in enumerate(sizes[:-1]) if size != shape[axis]]
    if not sizes or (leading and math.prod(sizes[: leading[-1]]) > 1):
        return False
    pitch = source.reshape(-1, shape[-1]).strides[0] // source.itemsize
    contiguous = math.prod(sizes[:-1]) == 1 or pitch == sizes[-1]
    return contiguous or not _needs_contiguous(op.result)


def _needs_contiguous(value: SSAValue) -> bool:
    return any(_use_needs_contiguous(use) for use in value.uses)


def _use_needs_contiguous(use: Use) -> bool:
    op = use.operation
    if isinstance(op, graph.Reshape):
        other_width = shape_of(op.x)[-1:] != shape_of(op.result)[-1:]
        return other_width or _needs_contiguous(op.result)
    if isinstance(op, graph.CacheUpdate):
        return use.index == 0
    return isinstance(op, graph.Call | func.ReturnOp)
