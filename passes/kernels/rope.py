"""The kernels of rotary position embedding.

Heads are ranges of columns, but a tile of columns is stored in runs of a head's width, which may be
shorter than what a run of global memory is charged. Seen token by token, the heads are rows that
follow each other without a gap, and the tables are a row for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc import BinaryFunction
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.rope import (
    RopeShape,
    is_faster_by_tokens,
    rows_by_columns,
    tokens_tile,
)


@dataclass(frozen=True)
class _Head:
    """`x * cos + rotate(x) * sin` of a tile of one head."""

    builder: KernelBuilder
    rows: int
    width: int
    rotary_dim: int
    interleaved: bool
    out: ElementType

    def turned(self, x: SSAValue, cos: SSAValue, sin: SSAValue) -> SSAValue:
        b = self.builder
        wide = LocalType.of(self.rows, self.width, F32)
        straight = b.binary(BinaryFunction.MUL, x, cos, wide)
        quarter = b.rotate(x, wide, rotary_dim=self.rotary_dim, interleaved=self.interleaved)
        across = b.binary(BinaryFunction.MUL, quarter, sin, wide)
        out = LocalType.of(self.rows, self.width, self.out)
        return b.binary(BinaryFunction.ADD, straight, across, out)


@register(tpu.RopeOp)
def build_rope(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """Token by token, or a range of columns for each head, whichever is faster."""
    assert isinstance(op, graph.Rope)
    x, cos, sin = operands
    shape = RopeShape(
        tokens=x.rows,
        heads=op.num_heads.value.data,
        width=cos.cols,
        element=x.element,
        source_pitch=x.pitch_bytes,
        target_pitch=results[0].pitch_bytes,
        joined_tables=cos.is_contiguous and sin.is_contiguous,
    )
    if is_faster_by_tokens(shape, chip):
        return _by_tokens(op, operands, results[0], shape, chip)
    return _by_columns(op, operands, results[0], shape, chip)


def _by_tokens(
    op: graph.Rope, operands: Sequence[View], y: View, shape: RopeShape, chip: Chip
) -> func.FuncOp:
    """Tables of a few tokens at a time in every lane; the heads of a token are rows."""
    x, cos, sin = operands
    heads, width = shape.heads, shape.width
    tile = tokens_tile(shape, chip)
    b = KernelBuilder(
        [
            (_heads_of_tokens(x, shape), "read"),
            (_tables(cos, tile.tokens), "read"),
            (_tables(sin, tile.tokens), "read"),
            (_heads_of_tokens(y, shape), "write"),
        ]
    )
    x_arg, cos_arg, sin_arg, y_arg = b.arguments
    head = _head(op, b, tile.rows, width, y)
    few = LocalType.of(1, tile.tokens * width, F32, replicated=True)
    one = LocalType.of(1, width, F32, replicated=True)
    with over(b, shape.tokens // tile.tokens, 1) as block:
        cos_rows, sin_rows = b.load(cos_arg, block, 0, few), b.load(sin_arg, block, 0, few)
        with over(b, tile.tokens, 1) as token, over(b, heads, tile.rows) as row:
            number = b.add(b.mul(block, tile.tokens), token)
            first = b.mul(number, shape.source_pitch // shape.head_bytes)
            limit = b.add(first, heads)
            kind = LocalType.of(tile.rows, width, x.element)
            value = b.load(x_arg, b.add(first, row), 0, kind, limit=limit)
            col = b.mul(token, width)
            tables = b.view(cos_rows, col, one), b.view(sin_rows, col, one)
            place = b.add(b.mul(number, shape.target_pitch // shape.head_bytes), row)
            b.store(head.turned(value, *tables), y_arg, place, 0)
    return b.finish(op.name)


def _by_columns(
    op: graph.Rope, operands: Sequence[View], y: View, shape: RopeShape, chip: Chip
) -> func.FuncOp:
    """Tokens are rows, and heads take turns as column ranges."""
    x, heads, width = operands[0], shape.heads, shape.width
    rows = rows_by_columns(shape, chip)
    views = [view.global_type() for view in operands]
    b = KernelBuilder([*[(view, "read") for view in views], (y.global_type(), "write")])
    x_arg, cos_arg, sin_arg, y_arg = b.arguments
    head = _head(op, b, rows, width, y)
    with over(b, x.rows, rows) as row:
        value = b.load(x_arg, row, 0, LocalType.of(rows, x.cols, x.element))
        table = LocalType.of(rows, width, F32)
        cos_tile, sin_tile = b.load(cos_arg, row, 0, table), b.load(sin_arg, row, 0, table)
        with over(b, heads * width, width) as col:
            part = b.view(value, col, LocalType.of(rows, width, x.element))
            b.store(head.turned(part, cos_tile, sin_tile), y_arg, row, col)
    return b.finish(op.name)


def _head(op: graph.Rope, b: KernelBuilder, rows: int, width: int, y: View) -> _Head:
    interleaved = bool(op.interleaved.value.data)
    return _Head(b, rows, width, op.rotary_dim.value.data, interleaved, y.element)


def _heads_of_tokens(view: View, shape: RopeShape) -> GlobalType:
    """`[tokens, heads * width]` as rows of `width`, with what lies between two tokens."""
    rows = (shape.tokens - 1) * (view.pitch_bytes // shape.head_bytes) + shape.heads
    return GlobalType.of(rows, shape.width, view.element)


def _tables(view: View, tokens: int) -> GlobalType:
    """`[S, width]` with `tokens` of them in a row."""
    return view.reshaped(view.rows // tokens, tokens * view.cols)
