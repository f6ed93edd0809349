"""Tile sizes of rotary position embedding, token by token or by columns. Pure mathematics."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.backends.chip import Chip
from tilewright.backends.cost import transfer_cycles, vector_cycles
from tilewright.dialects.element_types import F32, ElementType
from tilewright.passes.tiling.rows import (
    TILE_LANE_BYTES,
    TileBuffer,
    divisors,
    row_tile,
    rows_that_fit,
    slot_bytes,
    total_lane_bytes,
)

COMMANDS = 4
"""Vector commands of a tile: two products, the rotation, the sum."""


@dataclass(frozen=True)
class RopeShape:
    """`tokens` of `heads` heads of `width` elements; tokens lie `source_pitch` bytes apart in the
    operand and `target_pitch` in the result. `joined_tables`: the tables have no gaps."""

    tokens: int
    heads: int
    width: int
    element: ElementType
    source_pitch: int
    target_pitch: int
    joined_tables: bool

    @property
    def head_bytes(self) -> int:
        return self.width * self.element.size_bytes


@dataclass(frozen=True)
class TokensTile:
    """The tables of `tokens` tokens are loaded at once; `rows` of a token's heads are."""

    tokens: int
    rows: int


def is_faster_by_tokens(shape: RopeShape, chip: Chip) -> bool:
    """Whether to go token by token: always for one; for several only where all heads of the operand
    and of the result are rows at one pitch."""
    if shape.tokens == 1:
        return True
    if shape.source_pitch % shape.head_bytes or shape.target_pitch % shape.head_bytes:
        return False
    if not fits_by_tokens(shape, 1, chip):
        return False
    if columns_slot_bytes(shape, chip) > chip.lane_bytes:
        return True
    return by_tokens_cycles(shape, chip) < by_columns_cycles(shape, chip)


def tokens_tile(shape: RopeShape, chip: Chip) -> TokensTile:
    """Tables within `TILE_LANE_BYTES`, and within what a slot of heads leaves of local memory;
    raises `FitError` where a slot of heads does not fit."""
    limit = max(1, TILE_LANE_BYTES // slot_bytes(shape.width, F32, chip))
    tokens = 1
    if shape.joined_tables:
        fitting = (
            d for d in divisors(shape.tokens) if d <= limit and fits_by_tokens(shape, d, chip)
        )
        tokens = max(fitting, default=1)
    return TokensTile(
        tokens, row_tile(shape.heads, shape.width, _tokens_buffers(shape, tokens), chip).rows
    )


def fits_by_tokens(shape: RopeShape, tokens: int, chip: Chip) -> bool:
    """Whether local memory holds a slot of heads and the tables of `tokens` tokens."""
    buffers = _tokens_buffers(shape, tokens)
    return total_lane_bytes(buffers, 1, shape.width, chip) <= chip.lane_bytes


def _tokens_buffers(shape: RopeShape, tokens: int) -> list[TileBuffer]:
    return [
        TileBuffer(shape.element, 4),
        TileBuffer(F32, 3),
        TileBuffer(F32, 4 * tokens, "row"),
    ]


def rows_by_columns(shape: RopeShape, chip: Chip) -> int:
    """Tokens of a tile; raises `FitError` where a slot of them does not fit."""
    return rows_that_fit(shape.tokens, columns_slot_bytes(shape, chip), 0, chip)


def columns_slot_bytes(shape: RopeShape, chip: Chip) -> int:
    """Bytes of a slot of tokens by columns: all heads twice, and results, tables, tiles of one."""
    head = 2 * slot_bytes(shape.width, shape.element, chip) + 7 * slot_bytes(shape.width, F32, chip)
    return 2 * slot_bytes(shape.heads * shape.width, shape.element, chip) + head


def by_tokens_cycles(shape: RopeShape, chip: Chip) -> int:
    """Cycles of the busier engine, token by token."""
    tile = tokens_tile(shape, chip)
    move = transfer_cycles(shape.heads, shape.width, shape.element, shape.head_bytes, chip)
    table = transfer_cycles(1, tile.tokens * shape.width, F32, 0, chip)
    moves = 2 * shape.tokens * move + 2 * (shape.tokens // tile.tokens) * table
    turn = vector_cycles(shape.heads, shape.width, F32.size_bytes, chip)
    return max(moves, COMMANDS * shape.tokens * turn)


def by_columns_cycles(shape: RopeShape, chip: Chip) -> int:
    """Cycles of the busier engine, by columns."""
    tokens, width, element = shape.tokens, shape.width, shape.element
    moves = transfer_cycles(tokens, shape.heads * width, element, shape.source_pitch, chip)
    moves += 2 * transfer_cycles(tokens, width, F32, width * F32.size_bytes, chip)
    moves += shape.heads * transfer_cycles(tokens, width, element, shape.target_pitch, chip)
    turn = vector_cycles(tokens, width, F32.size_bytes, chip)
    return max(moves, COMMANDS * shape.heads * turn)
