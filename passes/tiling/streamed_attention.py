"""Tile sizes of attention in chunks of keys (`kernels.streamed_attention`), pure mathematics.

For a single token, and for several whose rows of scores are too long for local memory. What a
chunk costs to load does not depend on how many queries meet it, so several heads share a chunk, and
the rows take what room is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.backends.chip import Chip
from tilewright.dialects.element_types import F32
from tilewright.passes.tiling.attention import SCORE_TILES, AttentionShape
from tilewright.passes.tiling.rows import divisors, does_not_fit, run_elements, slot_bytes

CHUNK_SLOTS = (8, 4, 2, 1)
"""Keys of a chunk, in rows a lane: 512 keys on 64 lanes, fewer where a row of keys is very wide."""

SINGLE_CHUNK_SLOTS = (2, 1)
"""As `CHUNK_SLOTS` for a single token, whose time is that of loading keys and values: what is
computed on the last chunk overlaps with nothing, so it should be short."""

MAX_HEADS = 4
"""Heads that meet a chunk together."""

STATE_COLUMNS = 8
"""Columns of a head: maximum, sum and factor, those of the chunk and those before."""


@dataclass(frozen=True)
class StreamedTile:
    """`rows` of queries meet `keys` keys of `groups` groups, `heads` heads of each at once."""

    rows: int
    keys: int
    groups: int
    heads: int


def choose_tile(shape: AttentionShape, chip: Chip) -> StreamedTile:
    """The largest chunk that leaves room for a slot of rows, then as many rows as fit.

    Raises `FitError` where not even the smallest chunk fits.
    """
    row_elements = run_elements(shape.element, chip)
    wanted = min(MAX_HEADS, max(1, row_elements // shape.width))
    groups = _largest_divisor(shape.groups, wanted)
    heads = 1 if shape.single else _largest_divisor(shape.share, max(1, MAX_HEADS // groups))
    for slots in SINGLE_CHUNK_SLOTS if shape.single else CHUNK_SLOTS:
        for block in dict.fromkeys(((groups, heads), (groups, 1), (1, 1))):
            tile = StreamedTile(1, min(shape.length, slots * chip.lanes), *block)
            if lane_bytes(shape, tile, chip) <= chip.lane_bytes:
                free = chip.lane_bytes - shared_bytes(shape, tile, chip)
                rows = free // row_bytes(shape, tile, chip) * chip.lanes
                return StreamedTile(min(shape.rows, rows), *_but_rows(tile))
    smallest = StreamedTile(1, min(shape.length, chip.lanes), 1, 1)
    raise does_not_fit(lane_bytes(shape, smallest, chip), chip)


def lane_bytes(shape: AttentionShape, tile: StreamedTile, chip: Chip) -> int:
    """Bytes of a lane that a kernel with that tile takes at most."""
    slots = -(-tile.rows // chip.lanes)
    return shared_bytes(shape, tile, chip) + slots * row_bytes(shape, tile, chip)


def shared_bytes(shape: AttentionShape, tile: StreamedTile, chip: Chip) -> int:
    """Two chunks of keys and of values, and of a single query's mask."""
    slots = -(-tile.keys // chip.lanes)
    keys = 4 * slots * slot_bytes(tile.groups * shape.width, shape.element, chip)
    masked = shape.single and shape.masked
    return keys + (2 * slot_bytes(tile.keys, shape.element, chip) if masked else 0)


def row_bytes(shape: AttentionShape, tile: StreamedTile, chip: Chip) -> int:
    """Bytes of a slot of rows: scores, probabilities, mask; of each head queries, sums, columns."""
    narrow = slot_bytes(tile.keys, shape.element, chip)
    scores = SCORE_TILES * slot_bytes(tile.keys, F32, chip) + narrow
    scores += 2 * narrow if shape.masked and not shape.single else 0
    head = 4 * slot_bytes(shape.width, shape.element, chip)
    head += 4 * slot_bytes(shape.width, F32, chip) + STATE_COLUMNS * slot_bytes(1, F32, chip)
    return scores + tile.groups * tile.heads * head


def _but_rows(tile: StreamedTile) -> tuple[int, int, int]:
    return tile.keys, tile.groups, tile.heads


def _largest_divisor(value: int, limit: int) -> int:
    return max(divisor for divisor in divisors(value) if divisor <= limit)
