"""The kernels of attention. Of several tokens: whole rows of scores, a block of groups of keys and
values at a time. Of one token, or where rows of scores are too long: `streamed_attention`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc import BinaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.softmax import softmax_rows
from tilewright.passes.kernels.streamed_attention import StreamedAttention
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling import streamed_attention
from tilewright.passes.tiling.attention import (
    AttentionShape,
    AttentionTile,
    choose_tile,
    fits_whole_rows,
)


@register(tpu.AttentionOp)
def build_attention(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """One token: the heads of a group are rows. Several: tokens are rows, heads take turns."""
    assert isinstance(op, graph.Attention)
    q, k, v = operands[:3]
    heads = op.num_heads.value.data
    shape = AttentionShape(
        queries=q.rows,
        length=k.rows,
        heads=heads,
        groups=op.num_kv_heads.value.data,
        width=q.cols // heads,
        element=q.element,
        masked=op.mask is not None,
    )
    y = results[0]
    q_view = q.reshaped(heads, shape.width) if shape.single else q.global_type()
    y_view = y.reshaped(heads, shape.width) if shape.single else y.global_type()
    views = [q_view, k.global_type(), v.global_type(), *(m.global_type() for m in operands[3:])]
    b = KernelBuilder([*[(view, "read") for view in views], (y_view, "write")])
    q_arg, k_arg, v_arg, *masks, y_arg = b.arguments
    mask_arg = masks[0] if masks else None
    scale = op.scale.value.data
    if shape.single or not fits_whole_rows(shape, chip):
        streamed = streamed_attention.choose_tile(shape, chip)
        StreamedAttention(b, shape, streamed, scale, q_arg, k_arg, v_arg, mask_arg, y_arg).build()
    else:
        tile = choose_tile(shape, chip)
        _Attention(b, shape, tile, scale, q_arg, k_arg, v_arg, mask_arg, y_arg).build()
    return b.finish(op.name)


@dataclass(frozen=True)
class _Attention:
    """The loops of the kernel, from the blocks of groups inwards."""

    builder: KernelBuilder
    shape: AttentionShape
    tile: AttentionTile
    scale: float
    q: SSAValue
    k: SSAValue
    v: SSAValue
    mask: SSAValue | None
    y: SSAValue

    def build(self) -> None:
        b, shape, tile = self.builder, self.shape, self.tile
        keys = LocalType.of(shape.length, tile.groups * shape.width, shape.element)
        with over(b, shape.groups, tile.groups) as block:
            col = b.mul(block, shape.width)
            key, value = b.load(self.k, 0, col, keys), b.load(self.v, 0, col, keys)
            self._block(block, key, value)

    def _block(self, block: SSAValue, key: SSAValue, value: SSAValue) -> None:
        """Tokens are rows; all heads of the block take turns with one tile of the mask."""
        b, shape, tile = self.builder, self.shape, self.tile
        queries = LocalType.of(tile.rows, tile.heads * shape.width, shape.element)
        step = max(1, tile.heads // shape.share)
        first_head = b.mul(block, shape.share)
        with over(b, shape.queries, tile.rows) as row:
            mask = None
            if self.mask is not None:
                scores = LocalType.of(tile.rows, shape.length, shape.element)
                mask = b.load(self.mask, row, 0, scores)
            with (
                over(b, tile.groups, step) as group,
                over(b, step * shape.share, tile.heads) as head,
            ):
                first = b.add(b.add(first_head, b.mul(group, shape.share)), head)
                query = b.load(self.q, row, b.mul(first, shape.width), queries)
                for number in range(tile.heads):
                    of_group = b.add(group, number // shape.share)
                    keys = self._columns(key, of_group), self._columns(value, of_group)
                    part = self._columns(query, b.constant(number))
                    col = b.mul(b.add(first, number), shape.width)
                    b.store(self._attend(part, *keys, mask), self.y, row, col)

    def _columns(self, tile: SSAValue, number: SSAValue) -> SSAValue:
        """The columns of a group or head of a tile."""
        assert isinstance(tile.type, LocalType)
        if tile.type.cols == self.shape.width:
            return tile
        part = LocalType.of(tile.type.rows, self.shape.width, tile.type.element)
        return self.builder.view(tile, self.builder.mul(number, self.shape.width), part)

    def _attend(
        self, query: SSAValue, key: SSAValue, value: SSAValue, mask: SSAValue | None
    ) -> SSAValue:
        """`softmax(scale * query key^T + mask) value`; probabilities are rounded once."""
        b, shape, rows = self.builder, self.shape, self.tile.rows
        wide = LocalType.of(rows, shape.length, F32)
        scores = b.mm(query, key, wide, transpose_right=True)
        scores = b.scalar(BinaryFunction.MUL, scores, self.scale, wide)
        if mask is not None:
            scores = b.binary(BinaryFunction.ADD, scores, mask, wide)
        stored = LocalType.of(rows, shape.length, shape.element)
        out = LocalType.of(rows, shape.width, shape.element)
        return b.mm(softmax_rows(b, scores, stored), value, out, transpose_right=False)
