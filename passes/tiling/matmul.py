"""Tile sizes and loop orders of matrix multiplications, chosen by an explicit cost model.

`y[m, n] = sum_k x[m, k] * w[n, k]` (or `w[k, n]`), with tiles of `tm` x `tn` x `tk`. Two roles:

- **channels left**: the weight tile is the left operand of the matrix unit, so that output channels
  lie over the lanes, and the product is transposed before the store. x stays resident. One
  row of x then costs `1 / matrix_rows` of a full set, and not a whole set of lanes.
- **rows left**: the rows of x lie over the lanes; a resident x tile meets one weight tile after
  the other. Where `tk < k`, x and w tiles stream and partial sums stay in f32.

The estimate of a tiling is its first loads, then for each step the slower of the two engines, then
the last compute and store (a software pipeline of two buffers a tile).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.backends.chip import Chip
from tilewright.backends.cost import matrix_cycles, transfer_cycles, vector_cycles
from tilewright.dialects.element_types import F32, I8, ElementType
from tilewright.dialects.errors import FitError
from tilewright.dialects.memory_types import LocalType, align_up


@dataclass(frozen=True)
class Problem:
    """A (batched) matrix multiplication: `batches` times `m` x `n` x `k`."""

    m: int
    n: int
    k: int
    element: ElementType
    """Type of x, and of the weight on the matrix unit."""
    result: ElementType
    x_pitch_bytes: int
    scale: ElementType | None = None
    """Type of the scales where the weight is stored as int8 codes."""
    bias: ElementType | None = None
    channels_are_rows: bool = True
    """The weight is stored `[n, k]`, not `[k, n]`."""
    batches: int = 1

    @property
    def stored(self) -> ElementType:
        """Element type of the weight in global memory."""
        return self.element if self.scale is None else I8

    @property
    def weight_pitch_bytes(self) -> int:
        return (self.k if self.channels_are_rows else self.n) * self.stored.size_bytes


@dataclass(frozen=True)
class Tiling:
    """Tile sizes, each at most the problem's own, and which operand lies over the lanes."""

    channels_left: bool
    tm: int
    tn: int
    tk: int


@dataclass(frozen=True)
class Buffers:
    """The local tiles of a tiling, in the types that the kernel uses."""

    x: LocalType
    stored: LocalType
    """The weight tile as loaded."""
    weight: LocalType
    """The weight tile as the matrix unit takes it; `stored` itself unless codes are dequantized."""
    scale: LocalType | None
    bias: LocalType | None
    product: LocalType
    """What the matrix unit writes: f32 where a bias is added or k is split."""
    rounded: LocalType
    """The product in the result's type."""
    output: LocalType
    """The stored tile: `rounded`, or its transpose if channels are left."""


def buffers(problem: Problem, tiling: Tiling) -> Buffers:
    """The tiles that a kernel with this tiling uses."""
    element, tm, tn, tk = problem.element, tiling.tm, tiling.tn, tiling.tk
    weight_shape = (tn, tk) if problem.channels_are_rows else (tk, tn)
    shape = (tn, tm) if tiling.channels_left else (tm, tn)
    in_f32 = problem.bias is not None or tk < problem.k
    stored = LocalType.of(*weight_shape, problem.stored)
    return Buffers(
        x=LocalType.of(tm, tk, element),
        stored=stored,
        weight=LocalType.of(*weight_shape, element),
        scale=None if problem.scale is None else LocalType.of(tn, 1, problem.scale),
        bias=_bias_tile(problem.bias, tiling),
        product=LocalType.of(*shape, F32 if in_f32 else problem.result),
        rounded=LocalType.of(*shape, problem.result),
        output=LocalType.of(tm, tn, problem.result),
    )


def _bias_tile(element: ElementType | None, tiling: Tiling) -> LocalType | None:
    if element is None:
        return None
    if tiling.channels_left:
        return LocalType.of(tiling.tn, 1, element)
    return LocalType.of(1, tiling.tn, element, replicated=True)


def count(total: int, tile: int) -> int:
    """How many tiles of `tile` cover `total`."""
    return -(-total // tile)


def lane_bytes(problem: Problem, tiling: Tiling, chip: Chip) -> int:
    """Local memory that the tiling needs in each lane, double buffers included.

    Tiles of half a bank and more count as whole banks: they get banks of their own, so that
    no two operands of a command meet in one. Small tiles share what is left of a bank or two.
    """
    tiles = buffers(problem, tiling)
    parts = count(problem.k, tiling.tk)
    sweeps = problem.batches * count(problem.m, tiling.tm)
    outer = 1 + (sweeps * count(problem.n, tiling.tn) > 1)
    # A split k has a first part before its loop, and the others in it.
    streamed = outer + min(parts - 1, 2)
    resident = 1 + (sweeps > 1)
    products = min(parts, 2)
    rings: list[tuple[LocalType, int]] = [
        (tiles.x, resident if parts == 1 else streamed),
        (tiles.stored, streamed),
        (tiles.output, outer),
    ]
    if problem.scale is not None:
        rings.append((tiles.weight, products))
    if tiles.product != tiles.output:
        rings.append((tiles.product, 1))
    if tiles.rounded not in (tiles.product, tiles.output):
        rings.append((tiles.rounded, 1))
    rings += [(tile, streamed) for tile in (tiles.scale, tiles.bias) if tile is not None]
    large = small = 0
    for tile, ring in rings:
        size = tile.lane_bytes(chip.lanes)
        if 2 * size >= chip.bank_bytes:
            large += ring * align_up(size, chip.bank_bytes)
        else:
            small += ring * size
    return large + align_up(small, chip.bank_bytes)


def estimate_cycles(problem: Problem, tiling: Tiling, chip: Chip) -> int:
    """Cycles that a pipelined kernel with this tiling takes, without bank conflicts."""
    if tiling.tk < problem.k:
        return _estimate_split(problem, tiling, chip)
    tm_last = problem.m - (count(problem.m, tiling.tm) - 1) * tiling.tm
    tn_last = problem.n - (count(problem.n, tiling.tn) - 1) * tiling.tn
    column_tiles = count(problem.n, tiling.tn)
    cycles = 0
    rows = [tiling.tm] * (count(problem.m, tiling.tm) - 1) + [tm_last]
    sweeps: dict[int, tuple[int, int, int]] = {}
    for tm in set(rows):
        full, last = (_step(problem, tiling, chip, tm, tn) for tn in (tiling.tn, tn_last))
        steady = 0
        if column_tiles > 1:
            steady = (column_tiles - 2) * max(full.load + full.store, full.compute)
            steady += max(last.load + full.store, full.compute)
        x_load = transfer_cycles(tm, problem.k, problem.element, problem.x_pitch_bytes, chip)
        first = full if column_tiles > 1 else last
        sweeps[tm] = (x_load + first.load, steady, last.compute + last.store)
    if column_tiles == 1:
        # The weight is resident and x streams.
        for index, tm in enumerate(rows):
            fill, _, drain = sweeps[tm]
            step = _step(problem, tiling, chip, tm, tn_last)
            x_load = fill - step.load
            cycles += fill + drain if index == 0 else max(x_load + step.store, step.compute)
    else:
        # The next x tile and its first weight tile load while this sweep ends.
        for index, tm in enumerate(rows):
            fill, steady, drain = sweeps[tm]
            cycles += steady + (fill + drain if index == 0 else max(fill, drain))
    return cycles * problem.batches


@dataclass(frozen=True)
class _Step:
    load: int
    compute: int
    store: int


def _step(problem: Problem, tiling: Tiling, chip: Chip, tm: int, tn: int) -> _Step:
    """Cycles of one `tm` x `tn` tile of the result: k not split, or its last part."""
    tk = min(tiling.tk, problem.k)
    load = _weight_load(problem, chip, tn, tk)
    compute = _multiply(problem, tiling, chip, tm, tn, tk)
    if problem.bias is not None:
        load += transfer_cycles(1, tn, problem.bias, tn * problem.bias.size_bytes, chip)
    compute += _finish(problem, tiling, chip, tm, tn)
    store = transfer_cycles(tm, tn, problem.result, problem.n * problem.result.size_bytes, chip)
    return _Step(load, compute, store)


def _weight_load(problem: Problem, chip: Chip, tn: int, tk: int) -> int:
    rows, cols = (tn, tk) if problem.channels_are_rows else (tk, tn)
    load = transfer_cycles(rows, cols, problem.stored, problem.weight_pitch_bytes, chip)
    if problem.scale is not None:
        load += transfer_cycles(tn, 1, problem.scale, problem.scale.size_bytes, chip)
    return load


def _multiply(problem: Problem, tiling: Tiling, chip: Chip, tm: int, tn: int, tk: int) -> int:
    rows, cols = (tn, tm) if tiling.channels_left else (tm, tn)
    cycles = matrix_cycles(rows, cols, tk, problem.element, chip)
    if problem.scale is not None:
        cycles += vector_cycles(tn, tk, problem.element.size_bytes, chip)
    return cycles


def _finish(problem: Problem, tiling: Tiling, chip: Chip, tm: int, tn: int) -> int:
    """Bias, rounding and transposition of a finished tile."""
    cycles = 0
    rows, cols = (tn, tm) if tiling.channels_left else (tm, tn)
    if problem.bias is not None or (tiling.tk < problem.k and problem.result != F32):
        cycles += vector_cycles(rows, cols, F32.size_bytes, chip)
    if tiling.channels_left:
        size = problem.result.size_bytes
        cycles += vector_cycles(rows, cols, size, chip, chip.transpose_passes)
    return cycles


def _estimate_split(problem: Problem, tiling: Tiling, chip: Chip) -> int:
    """Partial sums: x and w tiles stream; the sums are rounded and stored when k is through."""
    parts = count(problem.k, tiling.tk)
    tm, tn, tk = tiling.tm, tiling.tn, tiling.tk
    tiles = problem.batches * count(problem.m, tm) * count(problem.n, tn)
    x_load = transfer_cycles(tm, tk, problem.element, problem.x_pitch_bytes, chip)
    load = x_load + _weight_load(problem, chip, tn, tk)
    last = _step(problem, tiling, chip, tm, tn)
    multiply = _multiply(problem, tiling, chip, tm, tn, tk)
    finish = last.compute - multiply
    # The edges of m and n are as dear as whole tiles in lanes, not in bytes: scale the sums.
    share = problem.m * problem.n / (count(problem.m, tm) * tm * count(problem.n, tn) * tn)
    share *= problem.k / (parts * tk)
    moved = parts * load * share + last.store
    computed = parts * multiply * share
    # Behind a store wait the loads of the next tile's second part, while its first is multiplied.
    stall = max(0, last.store + load - multiply)
    return int(load + tiles * (max(moved, computed) + finish + stall) + multiply + last.store)


def choose_tiling(problem: Problem, chip: Chip) -> Tiling:
    """The tiling with the least estimate among those that fit; raises `FitError` if none does."""
    best: tuple[int, int, Tiling] | None = None
    for tiling in candidates(problem, chip):
        needed = lane_bytes(problem, tiling, chip)
        if needed > chip.lane_bytes:
            continue
        key = (estimate_cycles(problem, tiling, chip), needed, tiling)
        if best is None or key[:2] < best[:2]:
            best = key
    if best is None:
        raise FitError(
            f"no tile of a {problem.m}x{problem.n}x{problem.k} matrix multiplication "
            f"in {problem.element.name} fits local memory",
            why=f"{chip.name} has {chip.lane_bytes} bytes a lane",
        )
    return best[2]


def candidates(problem: Problem, chip: Chip) -> Iterator[Tiling]:
    """Tilings to choose from; whole lanes, and columns in whole DMA runs where that is possible."""
    depths = [problem.k]
    per_run = chip.dma_run_bytes // problem.stored.size_bytes
    depths += [depth for depth in (per_run, 2 * per_run, 4 * per_run) if depth < problem.k]
    widths = _sizes(problem.n, chip.lanes)
    if problem.channels_are_rows:
        for tk in depths:
            for tn in widths:
                yield Tiling(channels_left=True, tm=problem.m, tn=tn, tk=tk)
    for tk in depths:
        for tm in _sizes(problem.m, chip.lanes):
            for tn in widths:
                yield Tiling(channels_left=False, tm=tm, tn=tn, tk=tk)


def _sizes(total: int, lanes: int) -> list[int]:
    """`total`, and 1, 2, 3, 4, 6, 8, 12, 16, ... sets of lanes below it."""
    sizes = {total}
    power = lanes
    while power < total and power <= 64 * lanes:
        sizes |= {size for size in (power, 3 * power // 2) if size < total and size % lanes == 0}
        power *= 2
    return sorted(sizes)
