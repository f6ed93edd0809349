"""Tile sizes of int8 matrix multiplications with requantization. Pure mathematics, no IR.

`y[m, n] = requant(sum_k x[m, k] * codes[n, k])`. Output channels always lie over the lanes, because
the machine requantizes a row of sums by its row of a table: the product tile is `[tn, tm]`, int32,
and what is stored its transpose in int8, a quarter of the bytes. x tiles stay while the weight
streams; where `tk < k` both stream, and partial sums stay in int32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.backends.chip import Chip
from tilewright.backends.cost import matrix_cycles, transfer_cycles, vector_cycles
from tilewright.backends.encoding.operands import REQUANT_COLUMNS
from tilewright.dialects.element_types import I8, I32
from tilewright.dialects.errors import FitError
from tilewright.dialects.memory_types import LocalType, align_up


@dataclass(frozen=True)
class Int8Problem:
    """A multiplication of `m` x `n` x `k`; rows of x are `x_pitch_bytes` apart."""

    m: int
    n: int
    k: int
    x_pitch_bytes: int


@dataclass(frozen=True)
class Int8Tiling:
    """Tile sizes, each at most the problem's own."""

    tm: int
    tn: int
    tk: int


@dataclass(frozen=True)
class Int8Buffers:
    """The local tiles of a tiling."""

    x: LocalType
    codes: LocalType
    table: LocalType
    sums: LocalType
    requantized: LocalType
    output: LocalType


def buffers(tiling: Int8Tiling) -> Int8Buffers:
    """The tiles that a kernel with this tiling uses."""
    tm, tn, tk = tiling.tm, tiling.tn, tiling.tk
    return Int8Buffers(
        x=LocalType.of(tm, tk, I8),
        codes=LocalType.of(tn, tk, I8),
        table=LocalType.of(tn, REQUANT_COLUMNS, I32),
        sums=LocalType.of(tn, tm, I32),
        requantized=LocalType.of(tn, tm, I8),
        output=LocalType.of(tm, tn, I8),
    )


def lane_bytes(problem: Int8Problem, tiling: Int8Tiling, chip: Chip) -> int:
    """Local memory that the tiling needs in each lane, double buffers included.

    Tiles of half a bank and more count as whole banks, as in `matmul_tiles.lane_bytes`.
    """
    tiles = buffers(tiling)
    parts = math.ceil(problem.k / tiling.tk)
    sweeps = math.ceil(problem.m / tiling.tm)
    outer = 1 + (sweeps * math.ceil(problem.n / tiling.tn) > 1)
    # A split k has a first part before its loop, and the others in it.
    streamed = outer if parts == 1 else 4 if outer == 2 else min(parts, 3)
    rings = [
        (tiles.x, 1 + (sweeps > 1) if parts == 1 else streamed),
        (tiles.codes, streamed),
        (tiles.table, streamed),
        (tiles.sums, 1),
        (tiles.requantized, 1),
        (tiles.output, outer),
    ]
    large = small = 0
    for tile, ring in rings:
        size = tile.lane_bytes(chip.lanes)
        if 2 * size >= chip.bank_bytes:
            large += ring * align_up(size, chip.bank_bytes)
        else:
            small += ring * size
    return large + align_up(small, chip.bank_bytes)


def choose_tiling(problem: Int8Problem, chip: Chip) -> Int8Tiling:
    """The tiling with the least estimate among those that fit; raises `FitError` if none does."""
    best: tuple[tuple[int, int], Int8Tiling] | None = None
    for tiling in candidates(problem, chip):
        needed = lane_bytes(problem, tiling, chip)
        if needed > chip.lane_bytes:
            continue
        key = (estimate_cycles(problem, tiling, chip), needed)
        if best is None or key < best[0]:
            best = key, tiling
    if best is None:
        raise FitError(
            f"no tile of a {problem.m}x{problem.n}x{problem.k} matrix multiplication in int8 "
            "fits local memory",
            why=f"{chip.name} has {chip.lane_bytes} bytes a lane",
        )
    return best[1]


def candidates(problem: Int8Problem, chip: Chip) -> Iterator[Int8Tiling]:
    """Tilings to choose from: channels in whole lanes, depths in whole DMA runs."""
    runs = (chip.dma_run_bytes * factor for factor in (1, 2, 4, 8))
    for tk in (problem.k, *(depth for depth in runs if depth < problem.k)):
        for tm in _sizes(problem.m, chip.lanes):
            for tn in _sizes(problem.n, chip.lanes):
                yield Int8Tiling(tm, tn, tk)


def _sizes(total: int, lanes: int) -> list[int]:
    """`total`, and 1, 2, 3, 4, 6, 8, 12, 16, ... sets of lanes below it."""
    sets = sorted({factor << power for factor in (1, 3) for power in range(7)})
    return [size for size in (count * lanes for count in sets) if size < total] + [total]


def estimate_cycles(problem: Int8Problem, tiling: Int8Tiling, chip: Chip) -> int:
    """Cycles of a pipelined kernel without bank conflicts: the first loads, for each further tile
    of the result the slower of the two engines, then the last tile's compute and store. Parts of
    a split k are as many tiles.
    """
    split = tiling.tk < problem.k
    steps = fill = drain = 0
    for tm, sweeps in _pieces(problem.m, tiling.tm):
        x = _x_cycles(problem, tiling, chip, tm)
        steps += 0 if split else sweeps * x
        for tn, columns in _pieces(problem.n, tiling.tn):
            load, compute, store = _tile_cycles(problem, tiling, chip, tm, tn)
            load += x if split else 0
            step = max(load + store, compute)
            steps += sweeps * columns * step
            fill = fill or load * tiling.tk // problem.k
            drain = (compute - step) * tiling.tk // problem.k + store
    return fill + steps + drain


def _pieces(total: int, tile: int) -> list[tuple[int, int]]:
    """Sizes of the tiles that cover `total`, and how many there are of each."""
    whole, rest = divmod(total, tile)
    return [(tile, whole)] * (whole > 0) + [(rest, 1)] * (rest > 0)


def _x_cycles(problem: Int8Problem, tiling: Int8Tiling, chip: Chip, tm: int) -> int:
    """Loads of all parts of `tm` rows of x."""
    parts = _pieces(problem.k, tiling.tk)
    return sum(n * transfer_cycles(tm, tk, I8, problem.x_pitch_bytes, chip) for tk, n in parts)


def _tile_cycles(
    problem: Int8Problem, tiling: Int8Tiling, chip: Chip, tm: int, tn: int
) -> tuple[int, int, int]:
    """Cycles of loads (without x), computes and the store of a `tm` x `tn` tile of the result."""
    load = transfer_cycles(tn, REQUANT_COLUMNS, I32, REQUANT_COLUMNS * I32.size_bytes, chip)
    compute = vector_cycles(tn, tm, I32.size_bytes, chip)
    compute += vector_cycles(tn, tm, I8.size_bytes, chip, chip.transpose_passes)
    for tk, parts in _pieces(problem.k, tiling.tk):
        load += parts * transfer_cycles(tn, tk, I8, problem.k, chip)
        compute += parts * matrix_cycles(tn, tm, tk, I8, chip)
    return load, compute, transfer_cycles(tm, tn, I8, problem.n, chip)
