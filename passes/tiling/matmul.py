"""The choice of tile sizes and loop orders for matrix multiplications, by a cost model."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.backends.chip import Chip
from tilewright.dialects.errors import FitError
from tilewright.passes.tiling.matmul_cost import estimate_cycles
from tilewright.passes.tiling.matmul_tiles import Problem, Tiling, lane_bytes


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
    per_run = chip.dma_run_bytes * 8 // problem.stored_bits
    if problem.k % problem.depth_unit == 0:
        parts = (_round_up(size * per_run, problem.depth_unit) for size in (1, 2, 4))
        depths += [depth for depth in dict.fromkeys(parts) if depth < problem.k]
    widths = _sizes(problem.n, chip.lanes)
    if problem.channels_are_rows:
        for tk in depths:
            for tn in widths:
                yield Tiling(channels_left=True, tm=problem.m, tn=tn, tk=tk)
    for tk in depths:
        for tm in _sizes(problem.m, chip.lanes):
            for tn in widths:
                yield Tiling(channels_left=False, tm=tm, tn=tn, tk=tk)


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _sizes(total: int, lanes: int) -> list[int]:
    """`total`, and 1, 2, 3, 4, 6, 8, 12, 16, ... sets of lanes below it."""
    sizes = {total}
    power = lanes
    while power < total and power <= 64 * lanes:
        sizes |= {size for size in (power, 3 * power // 2) if size < total and size % lanes == 0}
        power *= 2
    return sorted(sizes)
