"""Tile sizes of kernels that work row by row: which two-dimensional shape a flat tensor is given,
and how many of its rows and columns a tile takes. Pure mathematics, no IR.

Rows lie over the lanes, so a tensor with few rows leaves lanes idle; where an op does not care
about rows (element by element on contiguous memory), `fold` chooses a shape that fills them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tilewright.backends.chip import Chip
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.errors import FitError
from tilewright.dialects.memory_types import align_up

TILE_LANE_BYTES = 8192
"""Bytes a lane that the widest tile of a kernel aims at: 512 KiB a tile on 64 lanes. Its transfer
takes thousands of cycles, so that the fixed cost of commands is below 1 %; and the first load and
the last store, which overlap with nothing, stay short."""

Extent = Literal["tile", "row", "column"]


@dataclass(frozen=True)
class TileBuffer:
    """The local memory of one value of a kernel: `copies` buffers of `element`s.

    A `tile` has the rows and columns of the tiling; a `row` is one replicated row of as many
    columns; a `column` has as many rows and one column.
    """

    element: ElementType
    copies: int = 1
    extent: Extent = "tile"

    def lane_bytes(self, rows: int, cols: int, chip: Chip) -> int:
        """Bytes in every lane for a tiling of `rows` x `cols`."""
        slots = 1 if self.extent == "row" else -(-rows // chip.lanes)
        width = 1 if self.extent == "column" else cols
        return self.copies * slots * slot_bytes(width, self.element, chip)


@dataclass(frozen=True)
class Tile:
    """The largest extents of a kernel's tiles."""

    rows: int
    cols: int


def slot_bytes(cols: int, element: ElementType, chip: Chip) -> int:
    """Bytes of a lane that a row of `cols` elements takes."""
    return align_up(cols * element.size_bytes, chip.vector_bytes)


def total_lane_bytes(buffers: Iterable[TileBuffer], rows: int, cols: int, chip: Chip) -> int:
    """Bytes in every lane of all `buffers`."""
    return sum(buffer.lane_bytes(rows, cols, chip) for buffer in buffers)


def divisors(value: int) -> list[int]:
    """The divisors of `value`, ascending."""
    low = [d for d in range(1, math.isqrt(value) + 1) if value % d == 0]
    return low + [value // d for d in reversed(low) if d * d != value]


def vectors(rows: int, cols: int, chip: Chip) -> int:
    """Cycles of a vector pass in f32."""
    return -(-rows // chip.lanes) * -(-cols * F32.size_bytes // chip.vector_bytes)


def fold(elements: int, chip: Chip) -> tuple[int, int]:
    """`(rows, cols)` with `rows * cols == elements` for which a vector pass in f32 is shortest.

    Among equals the widest row within `TILE_LANE_BYTES`, or else the narrowest.
    """

    def cost(cols: int) -> tuple[int, bool, int]:
        wide = cols * F32.size_bytes > TILE_LANE_BYTES
        return vectors(elements // cols, cols, chip), wide, cols if wide else -cols

    cols = min(divisors(elements), key=cost)
    return elements // cols, cols


def run_elements(element: ElementType, chip: Chip) -> int:
    """Elements of the shortest run of global memory that is charged no more than its bytes."""
    return max(1, chip.dma_run_bytes // element.size_bytes)


def whole_row_tile(rows: int, cols: int, buffers: Sequence[TileBuffer], chip: Chip) -> Tile | None:
    """A tile of whole rows, or `None` if not even one slot of them fits local memory."""
    if total_lane_bytes(buffers, 1, cols, chip) > chip.lane_bytes:
        return None
    widest = max(b.element.size_bytes for b in buffers if b.extent == "tile")
    slots = max(1, TILE_LANE_BYTES // align_up(cols * widest, chip.vector_bytes))
    while total_lane_bytes(buffers, slots * chip.lanes, cols, chip) > chip.lane_bytes:
        slots -= 1
    return Tile(min(rows, slots * chip.lanes), cols)


def split_tile(rows: int, cols: int, buffers: Sequence[TileBuffer], chip: Chip, step: int) -> Tile:
    """A tile whose columns may be any multiple of `step`, fewer than `step`, or all of them.

    Raises `FitError` where local memory does not even hold one column.
    """
    widest = max(b.element.size_bytes for b in buffers if b.extent == "tile")
    width = min(cols, max(step, TILE_LANE_BYTES // widest // step * step))
    while width > 1:
        tile = whole_row_tile(rows, width, buffers, chip)
        if tile is not None:
            return tile
        width = width // 2 // step * step if width >= 2 * step else width // 2
    return row_tile(rows, 1, buffers, chip)


def row_tile(rows: int, cols: int, buffers: Sequence[TileBuffer], chip: Chip) -> Tile:
    """A tile of whole rows; raises `FitError` where local memory does not hold one slot of them."""
    tile = whole_row_tile(rows, cols, buffers, chip)
    if tile is None:
        raise does_not_fit(total_lane_bytes(buffers, 1, cols, chip), chip)
    return tile


def rows_that_fit(rows: int, slot_bytes_a_row: int, shared_bytes: int, chip: Chip) -> int:
    """How many of `rows` a tile takes where a slot costs `slot_bytes_a_row` of a lane.

    `shared_bytes` are taken already. Aims at a few times `TILE_LANE_BYTES` altogether; raises
    `FitError` where not one slot fits.
    """
    room = chip.lane_bytes - shared_bytes
    if room < slot_bytes_a_row:
        raise does_not_fit(shared_bytes + slot_bytes_a_row, chip)
    aim = max(slot_bytes_a_row, min(room, 8 * TILE_LANE_BYTES))
    return min(rows, aim // slot_bytes_a_row * chip.lanes)


def does_not_fit(need_bytes: int, chip: Chip) -> FitError:
    """The error of a kernel whose smallest tiles take `need_bytes` of a lane; who built it knows
    where."""
    return FitError(
        "the smallest tile does not fit local memory",
        why=f"it takes {need_bytes} bytes of every lane, {need_bytes - chip.lane_bytes} more than "
        f"the {chip.lane_bytes} of {chip.name}",
        hint="take a chip with more local memory or, if a row is as long as the sequence "
        "(attention, softmax), a shorter --seq",
    )
