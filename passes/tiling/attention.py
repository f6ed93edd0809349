"""Tile sizes of attention: how many groups of keys and values are in local memory at once, and how
many queries meet them. Pure mathematics, no IR.

For several tokens whose rows of scores fit a lane; the others go by `streamed_attention`. Several
groups at once make longer runs of global memory, and the mask is loaded once for all of them; but
the first of them are waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.backends.chip import Chip
from tilewright.backends.cost import matrix_cycles, transfer_cycles, vector_cycles
from tilewright.dialects.element_types import F32, ElementType
from tilewright.passes.tiling.rows import divisors, does_not_fit, slot_bytes

SCORE_TILES = 6
"""Tiles of scores in f32 that are there at once: made by one command and read by the next, and a
few that the allocation keeps apart so that commands need not wait."""

TILES_A_TURN = 5
"""Tiles of scores in f32 that a head makes: products, scaled, masked, differences, powers."""

USUAL_TURN, LARGEST_TURN = 4, 8
"""Heads whose queries are loaded at once: the more, the longer the runs of global memory and the
fewer the beginnings of loops; but the kernel repeats itself for each, so more than usual only where
that wins `GAIN`."""

GAIN = 0.01

SCORE_PASSES = 6
"""Vector passes over the scores: scale, mask, maximum, difference, sum, product; `exp` besides."""


@dataclass(frozen=True)
class AttentionShape:
    """`heads` of `queries` tokens in `groups` that share keys and values of `length` tokens.

    A `single` query has no rows of its own: the heads of a group are the rows.
    """

    queries: int
    length: int
    heads: int
    groups: int
    width: int
    element: ElementType
    masked: bool

    @property
    def single(self) -> bool:
        return self.queries == 1

    @property
    def share(self) -> int:
        """Heads a group."""
        return self.heads // self.groups

    @property
    def rows(self) -> int:
        """Rows that meet a group's keys at a time, if local memory allows."""
        return self.share if self.single else self.queries


@dataclass(frozen=True)
class AttentionTile:
    """`rows` of the queries of `heads` heads at a time, `groups` of keys and values.

    `heads` is a divisor of the heads a group, or all heads of a divisor of `groups`.
    """

    rows: int
    groups: int
    heads: int


def fits_whole_rows(shape: AttentionShape, chip: Chip) -> bool:
    """Whether a slot of whole rows of scores fits, with the keys and values of a group."""
    return lane_bytes(shape, AttentionTile(1, 1, 1), chip) <= chip.lane_bytes


def choose_tile(shape: AttentionShape, chip: Chip) -> AttentionTile:
    """The tile of the fewest cycles; raises `FitError` where not even the smallest one fits.

    A tile has a slot of rows: more only lengthen what overlaps with nothing, the first loads and
    the last stores of a loop.
    """
    if not fits_whole_rows(shape, chip):
        raise does_not_fit(lane_bytes(shape, AttentionTile(1, 1, 1), chip), chip)
    rows = min(shape.queries, chip.lanes)
    tiles = [
        AttentionTile(rows, groups, heads)
        for groups in divisors(shape.groups)
        for heads in _head_counts(shape, groups)
    ]
    cycles = {
        tile: estimate_cycles(shape, tile, chip)
        for tile in tiles
        if lane_bytes(shape, tile, chip) <= chip.lane_bytes
    }
    near = [tile for tile in cycles if cycles[tile] <= min(cycles.values()) * (1 + GAIN)]

    def key(tile: AttentionTile) -> tuple[int, int, int]:
        spread = max(spread_bytes(shape, tile, chip), chip.lane_bytes)
        return spread, abs(tile.heads - USUAL_TURN), cycles[tile]

    return min(near, key=key)


def _head_counts(shape: AttentionShape, groups: int) -> list[int]:
    """How many heads' queries may be loaded at once."""
    of_groups = [shape.share * many for many in divisors(groups)[1:]]
    return [count for count in [*divisors(shape.share), *of_groups] if count <= LARGEST_TURN]


def lane_bytes(shape: AttentionShape, tile: AttentionTile, chip: Chip) -> int:
    """Bytes of a lane that a kernel with that tile takes at most."""
    slots = -(-tile.rows // chip.lanes)
    return _shared_bytes(shape, tile.groups, chip) + slots * _row_bytes(shape, tile.heads, chip)


def spread_bytes(shape: AttentionShape, tile: AttentionTile, chip: Chip) -> int:
    """Bytes of a lane if no two values of the kernel share memory.

    A pipelined loop stands twice in the kernel, each time with tiles of its own. Where they fit
    side by side, no engine waits for memory that the other one still uses.
    """
    step = max(1, tile.heads // shape.share)
    loops = (
        tile.groups < shape.groups,
        tile.rows < shape.queries,
        step < tile.groups,
        tile.heads < step * shape.share,
    )
    slots, turns = -(-tile.rows // chip.lanes), tile.heads * 2 ** sum(loops)
    narrow = slot_bytes(shape.length, shape.element, chip)
    turn = TILES_A_TURN * slot_bytes(shape.length, F32, chip) + narrow
    turn += 2 * slot_bytes(shape.width, shape.element, chip) + 4 * slot_bytes(1, F32, chip)
    around = 2 * slot_bytes(tile.heads * shape.width, shape.element, chip)
    around += 2 * narrow if shape.masked else 0
    return _shared_bytes(shape, tile.groups, chip) + slots * (turns * turn + around)


def estimate_cycles(shape: AttentionShape, tile: AttentionTile, chip: Chip) -> int:
    """Cycles of loading keys and values, which are waited for, and then of the busier engine."""
    element, blocks = shape.element, shape.groups // tile.groups
    pitch = shape.groups * shape.width * element.size_bytes
    keys = transfer_cycles(shape.length, tile.groups * shape.width, element, pitch, chip)
    pitch = shape.heads * shape.width * element.size_bytes
    queries = transfer_cycles(shape.queries, tile.heads * shape.width, element, pitch, chip)
    moves = shape.heads // tile.heads * queries
    moves += shape.heads * transfer_cycles(shape.queries, shape.width, element, pitch, chip)
    if shape.masked:
        pitch = shape.length * element.size_bytes
        moves += blocks * transfer_cycles(shape.queries, shape.length, element, pitch, chip)
    products = matrix_cycles(shape.queries, shape.length, shape.width, element, chip)
    products += matrix_cycles(shape.queries, shape.width, shape.length, element, chip)
    passes = SCORE_PASSES + chip.special_function_passes
    scores = vector_cycles(shape.queries, shape.length, F32.size_bytes, chip, passes)
    return 2 * blocks * keys + max(moves, shape.heads * (products + scores))


def _shared_bytes(shape: AttentionShape, groups: int, chip: Chip) -> int:
    """Keys and values, and the next ones if there are any."""
    slots = -(-shape.length // chip.lanes)
    copies = 1 if groups == shape.groups else 2
    return 2 * copies * slots * slot_bytes(groups * shape.width, shape.element, chip)


def _row_bytes(shape: AttentionShape, heads: int, chip: Chip) -> int:
    """Bytes of a slot of rows: scores, probabilities, queries, results, columns, mask."""
    narrow = slot_bytes(shape.length, shape.element, chip)
    tiles = SCORE_TILES * slot_bytes(shape.length, F32, chip) + narrow
    tiles += 2 * narrow if shape.masked else 0
    queries = 2 * slot_bytes(heads * shape.width, shape.element, chip)
    return (
        tiles
        + queries
        + 2 * slot_bytes(shape.width, shape.element, chip)
        + 4 * slot_bytes(1, F32, chip)
    )
