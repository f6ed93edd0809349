"""The GDMA engine: rows between global memory and the lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from tilewright.backends.simulator.conversions import JIT, pointer, row_address


@intrinsic
def _copy_bytes(typing_context: Any, target: Any, source: Any, size: Any) -> Any:
    """Copy `size` bytes between addresses (`memcpy`)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = (builder.inttoptr(a, cgutils.voidptr_t) for a in arguments[:2])
        cgutils.raw_memcpy(builder, target, source, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@njit(**JIT)
def move_rows(
    first: Any,
    last: Any,
    to_local: Any,
    row_bytes: Any,
    lane_pitch: Any,
    lanes: Any,
    tile: Any,
    stride: Any,
    view: Any,
    pitch: Any,
    indices: Any,
    table_rows: Any,
) -> Any:
    """Rows `[first, last)` of a GDMA command, `row_bytes` each.

    Row `r` of the view is at `view + r * pitch`, or, where `indices` is the address of row numbers
    (i32, of any alignment), at `view + index[r] * pitch`. Returns -1, or the first `r` whose index
    is not in `[0, table_rows)`: the rows before it have moved.
    """
    for row in range(first, last):
        source = row
        if indices != 0:
            low = carray(pointer(indices + 4 * row), 4, np.uint8)
            source = np.int64(0)
            for byte in range(4):
                source |= np.int64(low[byte]) << (8 * byte)
            if source >= table_rows:
                return row
        local = row_address(tile, lane_pitch, lanes, stride, row)
        if to_local:
            _copy_bytes(local, view + source * pitch, row_bytes)
        else:
            _copy_bytes(view + source * pitch, local, row_bytes)
    return -1
