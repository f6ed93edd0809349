"""The kernel of attention in chunks of keys and values.

The softmax runs along: of each row the largest score so far, the sum of the powers and the sum of
the values are kept, and scaled down where a chunk has a larger score (Milakov and Gimelshein, arXiv
1805.02867; Dao et al., FlashAttention, arXiv 2205.14135). So rows of scores may have any length,
and compute begins with the first chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from xdsl.ir import SSAValue

from tilewright.dialects.bdc import BinaryFunction, ReduceFunction, UnaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.memory_types import LocalType
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.tiles import over
from tilewright.passes.tiling.attention import AttentionShape
from tilewright.passes.tiling.streamed_attention import StreamedTile

LOWEST = float(np.finfo(np.float32).min)
"""Stands in for a maximum of -inf: a chunk that a mask of -inf hides adds nothing, and no NaN."""


@dataclass(frozen=True)
class _Head:
    """What is kept of a head: the largest scores, the sums of powers, the sums of values. f32."""

    largest: SSAValue
    total: SSAValue
    values: SSAValue


@dataclass(frozen=True)
class _Queries:
    """Where a tile of the queries lies, and of which group of the block they are."""

    group: int
    row: SSAValue
    col: SSAValue
    limit: SSAValue | None


@dataclass(frozen=True)
class StreamedAttention:
    """The loops of the kernel. A single token's heads are rows; else tokens are."""

    builder: KernelBuilder
    shape: AttentionShape
    tile: StreamedTile
    scale: float
    q: SSAValue
    k: SSAValue
    v: SSAValue
    mask: SSAValue | None
    y: SSAValue

    def build(self) -> None:
        b, shape, tile = self.builder, self.shape, self.tile
        with over(b, shape.groups, tile.groups) as block:
            if shape.single:
                with over(b, shape.share, tile.rows) as row:
                    groups = range(tile.groups)
                    self._attend(block, [self._heads_as_rows(block, g, row) for g in groups])
            else:
                with (
                    over(b, shape.share, tile.heads) as first,
                    over(b, shape.queries, tile.rows) as row,
                ):
                    turns = product(range(tile.groups), range(tile.heads))
                    self._attend(
                        block,
                        [self._tokens_as_rows(block, g, b.add(first, h), row) for g, h in turns],
                    )

    def _heads_as_rows(self, block: SSAValue, group: int, row: SSAValue) -> _Queries:
        b, share = self.builder, self.shape.share
        first = b.mul(b.add(block, group), share)
        return _Queries(group, b.add(first, row), b.constant(0), b.add(first, share))

    def _tokens_as_rows(
        self, block: SSAValue, group: int, head: SSAValue, row: SSAValue
    ) -> _Queries:
        b, shape = self.builder, self.shape
        number = b.add(b.mul(b.add(block, group), shape.share), head)
        return _Queries(group, row, b.mul(number, shape.width), None)

    def _attend(self, block: SSAValue, queries: Sequence[_Queries]) -> None:
        """All keys of a block of groups meet a tile of each of `queries`."""
        b, shape, tile = self.builder, self.shape, self.tile
        kind = LocalType.of(tile.rows, shape.width, shape.element)
        tiles = [b.load(self.q, each.row, each.col, kind, limit=each.limit) for each in queries]
        pairs = list(zip(queries, tiles, strict=True))
        heads = self._chunk(block, b.constant(0), pairs, None)
        if shape.length > tile.keys:
            carried = _values(heads)
            with b.loop(shape.length, tile.keys, start=tile.keys, carried=carried) as loop:
                after = self._chunk(block, loop.index, pairs, _heads(loop.carried))
                loop.carry(*_values(after))
            heads = _heads(loop.results)
        for head, each in zip(heads, queries, strict=True):
            result = b.binary(BinaryFunction.DIV, head.values, head.total, kind)
            b.store(result, self.y, each.row, each.col)

    def _chunk(
        self,
        block: SSAValue,
        first: SSAValue,
        queries: Sequence[tuple[_Queries, SSAValue]],
        before: Sequence[_Head] | None,
    ) -> list[_Head]:
        """What is kept of each head after the keys from `first` on."""
        b, shape, tile = self.builder, self.shape, self.tile
        chunk = LocalType.of(tile.keys, tile.groups * shape.width, shape.element)
        col = b.mul(block, shape.width)
        keys = b.load(self.k, first, col, chunk)
        mask = self._mask(queries[0][0].row, first)
        values = b.load(self.v, first, col, chunk)
        heads: list[_Head] = []
        for number, (each, query) in enumerate(queries):
            of_group = self._group(keys, each.group), self._group(values, each.group)
            old = None if before is None else before[number]
            heads.append(self._meet(query, *of_group, mask, old))
        return heads

    def _mask(self, row: SSAValue, first: SSAValue) -> SSAValue | None:
        """The mask of the keys from `first` on: of a tile of tokens, or of the one there is."""
        b, shape, tile = self.builder, self.shape, self.tile
        if self.mask is None:
            return None
        if shape.single:
            only = LocalType.of(1, tile.keys, shape.element, replicated=True)
            return b.load(self.mask, 0, first, only)
        return b.load(self.mask, row, first, LocalType.of(tile.rows, tile.keys, shape.element))

    def _group(self, chunk: SSAValue, group: int) -> SSAValue:
        shape, tile = self.shape, self.tile
        if tile.groups == 1:
            return chunk
        part = LocalType.of(tile.keys, shape.width, shape.element)
        return self.builder.view(chunk, group * shape.width, part)

    def _meet(
        self,
        query: SSAValue,
        keys: SSAValue,
        values: SSAValue,
        mask: SSAValue | None,
        before: _Head | None,
    ) -> _Head:
        b, shape, tile = self.builder, self.shape, self.tile
        wide = LocalType.of(tile.rows, tile.keys, F32)
        column = LocalType.of(tile.rows, 1, F32)
        sums = LocalType.of(tile.rows, shape.width, F32)
        scores = b.mm(query, keys, wide, transpose_right=True)
        scores = b.scalar(BinaryFunction.MUL, scores, self.scale, wide)
        if mask is not None:
            scores = b.binary(BinaryFunction.ADD, scores, mask, wide)
        here = b.reduce(ReduceFunction.MAX, scores, column)
        floor = b.scalar(BinaryFunction.MAX, here, LOWEST, column)
        largest = (
            floor if before is None else b.binary(BinaryFunction.MAX, before.largest, floor, column)
        )
        shifted = b.binary(BinaryFunction.SUB, scores, largest, wide)
        powers = b.unary(UnaryFunction.EXP, shifted, wide)
        total = b.reduce(ReduceFunction.SUM, powers, column)
        if shape.element != F32:
            stored = LocalType.of(tile.rows, tile.keys, shape.element)
            powers = b.unary(UnaryFunction.CAST, powers, stored)
        summed = b.mm(powers, values, sums, transpose_right=False)
        if before is None:
            return _Head(largest, total, summed)
        step = b.binary(BinaryFunction.SUB, before.largest, largest, column)
        factor = b.unary(UnaryFunction.EXP, step, column)
        kept = b.binary(BinaryFunction.MUL, before.total, factor, column)
        kept_values = b.binary(BinaryFunction.MUL, before.values, factor, sums)
        return _Head(
            largest,
            b.binary(BinaryFunction.ADD, kept, total, column),
            b.binary(BinaryFunction.ADD, kept_values, summed, sums),
        )


def _values(heads: Sequence[_Head]) -> list[SSAValue]:
    return [value for head in heads for value in (head.largest, head.total, head.values)]


def _heads(values: Sequence[SSAValue]) -> list[_Head]:
    """The heads that `_values` takes apart."""
    return [_Head(*values[i : i + 3]) for i in range(0, len(values), 3)]
