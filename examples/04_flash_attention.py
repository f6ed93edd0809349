"""Flash attention in the kernel language: a kernel of your own beside the compiler's, same numbers.

The softmax runs along with the keys: of each row the largest score so far, the sum of powers and
the sum of values are kept, and scaled down where a chunk of keys has a larger score (Dao et al.,
FlashAttention, arXiv 2205.14135). Of one token (decode) the heads of a group are the rows of a
tile; of several (prefill) tokens are, and heads take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.ir import Operation

from tilewright.backends.chip import Chip
from tilewright.dialects import graph, tpu
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import CompositeOp, composite
from tilewright.passes import kernel_language as tk

HEADS, GROUPS, WIDTH, LENGTH = 32, 2, 128, 512
TURN = 2
"""Heads whose queries are loaded at once: more make longer runs of memory, but more tiles."""

LOWEST = float(np.finfo(np.float32).min)
"""Stands in for a maximum of -inf, where a mask hides all keys of a chunk."""

Keys = tuple[tk.Tile, tk.Tile, tk.Tile]
"""Keys, values and mask of a chunk."""


def scale_of(q: Value, heads: int) -> float:
    """1 / sqrt(head width)."""
    return (graph.shape_of(q)[1] // heads) ** -0.5


@composite("example.FlashAttention", tpu.TpuOp)
def flash_attention(
    q: Value, k: Value, v: Value, mask: Value, *, heads: int = HEADS, groups: int = GROUPS
) -> Value:
    """What `tpu.Attention` computes."""
    scale = scale_of(q, heads)
    return tpu.AttentionOp(q, k, v, mask, num_heads=heads, num_kv_heads=groups, scale=scale).result


@dataclass(frozen=True)
class State:
    """Of each row the largest score, the sum of powers, and the sum of values, so far."""

    largest: tk.Tile
    total: tk.Tile
    values: tk.Tile

    def result(self) -> tk.Tile:
        return self.values * tk.reciprocal(self.total)


def meet(query: tk.Tile, chunk: Keys, before: State | None) -> State:
    """The state after a chunk of keys has met the queries."""
    key, value, mask = chunk
    scores = tk.dot(query, key, transpose_right=True) * query.cols**-0.5 + mask
    largest = tk.maximum(tk.max(scores), LOWEST)
    if before is not None:
        largest = tk.maximum(before.largest, largest)
    powers = tk.exp(scores - largest)
    total = tk.sum(powers)
    values = tk.dot(tk.cast(powers, value.dtype), value)
    if before is not None:
        factor = tk.exp(before.largest - largest)
        total = before.total * factor + total
        values = before.values * factor + values
    return State(largest, total, values)


def attend(
    queries: Sequence[tk.Tile],
    chunks: Callable[[tk.Index | int], Sequence[Keys]],
    keys: int,
    length: int,
) -> list[tk.Tile]:
    """All keys meet the tiles of `queries`. `chunks` loads those from some key on for each."""
    pairs = zip(queries, chunks(0), strict=True)
    states = [meet(query, chunk, None) for query, chunk in pairs]
    carry = [tile for state in states for tile in (state.largest, state.total, state.values)]
    loop = tk.range(keys, length, keys, carry=carry)
    for first in loop:
        before = [State(*loop.values[at : at + 3]) for at in range(0, len(carry), 3)]
        triples = zip(queries, chunks(first), before, strict=True)
        after = [meet(*each) for each in triples]
        loop.carry(*(tile for each in after for tile in (each.largest, each.total, each.values)))
    ends = range(0, len(carry), 3)
    return [State(*loop.values[at : at + 3]).result() for at in ends]


@tk.kernel(flash_attention)
def kernel(
    op: CompositeOp,
    q: tk.Tensor,
    k: tk.Tensor,
    v: tk.Tensor,
    mask: tk.Tensor,
    y: tk.Tensor,
    chip: Chip,
) -> None:
    heads, groups = op.count("heads"), op.count("groups")
    (decode if q.rows == 1 else prefill)(q, k, v, mask, y, heads, groups, chip)


def decode(
    q: tk.Tensor,
    k: tk.Tensor,
    v: tk.Tensor,
    mask: tk.Tensor,
    y: tk.Tensor,
    heads: int,
    groups: int,
    chip: Chip,
) -> None:
    """The heads of a group are rows. A chunk of keys is short: what is computed on the last one
    overlaps with no load."""
    width, share, keys = q.cols // heads, heads // groups, chip.lanes
    for tensor in (q, y):
        tensor.reshape(heads, width)
    queries = [q.matrix(group, share)[:, :].load() for group in range(groups)]

    def chunks(first: tk.Index | int) -> list[Keys]:
        key = k[first : first + keys, :].load()
        hidden = mask[:, first : first + keys].load(replicated=True)
        value = v[first : first + keys, :].load()
        columns = [slice(group * width, (group + 1) * width) for group in range(groups)]
        return [(key[:, each], value[:, each], hidden) for each in columns]

    for group, result in enumerate(attend(queries, chunks, keys, k.rows)):
        y.matrix(group, share)[:, :] = tk.cast(result, y.dtype)


def prefill(
    q: tk.Tensor,
    k: tk.Tensor,
    v: tk.Tensor,
    mask: tk.Tensor,
    y: tk.Tensor,
    heads: int,
    groups: int,
    chip: Chip,
) -> None:
    """Tokens are rows. Up to `LENGTH` keys stay in local memory for all of them."""
    width, share, rows = q.cols // heads, heads // groups, chip.lanes
    whole = (k.load(), v.load()) if k.rows <= LENGTH else None
    keys = k.rows if whole else 4 * chip.lanes
    for row in tk.range(0, q.rows, rows):
        lines = slice(row, row + rows)
        hidden = mask[lines, :].load() if whole else None
        for group in tk.range(0, groups, 1):
            of_group = slice(group * width, (group + 1) * width)
            for head in tk.range(0, share, TURN):
                first = group * share + head
                query = q[lines, first * width : (first + TURN) * width].load()
                queries = [query[:, n * width : (n + 1) * width] for n in range(TURN)]

                def chunks(
                    at: tk.Index | int,
                    lines: slice = lines,
                    of_group: slice = of_group,
                    hidden: tk.Tile | None = hidden,
                ) -> list[Keys]:
                    if whole is not None and hidden is not None:
                        return [(whole[0][:, of_group], whole[1][:, of_group], hidden)] * TURN
                    part = slice(at, at + keys)
                    key, covered = k[part, of_group].load(), mask[lines, part].load()
                    return [(key, v[part, of_group].load(), covered)] * TURN

                for number, result in enumerate(attend(queries, chunks, keys, k.rows)):
                    at = (first + number) * width
                    y[lines, at : at + width] = tk.cast(result, y.dtype)


def own(q: Value, k: Value, v: Value, mask: Value) -> Operation:
    """The compiler's own op, whose kernel is written on KernelBuilder."""
    scale = scale_of(q, HEADS)
    return tpu.AttentionOp(q, k, v, mask, num_heads=HEADS, num_kv_heads=GROUPS, scale=scale)


def operands(tokens: int) -> list[np.ndarray]:
    """Random queries, keys and values, and the mask of the last `tokens` of the keys."""
    rng = np.random.default_rng(0)
    shapes = [(tokens, HEADS * WIDTH), (LENGTH, GROUPS * WIDTH), (LENGTH, GROUPS * WIDTH)]
    tensors = [rng.standard_normal(shape).astype(np.float16) for shape in shapes]
    lowest = np.finfo(np.float16).min
    return [*tensors, np.where(np.tri(LENGTH)[-tokens:] > 0, 0, lowest).astype(np.float16)]


def run() -> None:
    for name, tokens in (("prefill", LENGTH), ("decode", 1)):
        arrays = operands(tokens)
        (mine,) = tk.check(flash_attention, *arrays, chips=["bm1684x"], remainders=False)
        theirs = tk.build(own, *((array.shape, tk.f16) for array in arrays)).cycles
        print(
            f"{name:8s} compiler's kernel {theirs:8,d} cycles, this one {mine.cycles:8,d}: "
            f"{theirs / mine.cycles:.1%} of its speed; error {mine.worst:.0%} of its bound"
        )


if __name__ == "__main__":
    run()
