"""The cost model of tiled matrix multiplications: what `choose_tiling` compares.

The estimate of a tiling is its first loads, then for each step the slower of the two engines, then
the last compute and store (a software pipeline of two buffers a tile). Bank conflicts are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.backends.chip import Chip
from tilewright.backends.cost import matrix_cycles, transfer_cycles, vector_cycles
from tilewright.dialects.element_types import F32, I8
from tilewright.passes.tiling.matmul_tiles import Problem, Tiling, count


def estimate_cycles(problem: Problem, tiling: Tiling, chip: Chip) -> int:
    """Cycles that a pipelined kernel with this tiling takes, without bank conflicts."""
    return max(_estimate(problem, tiling, chip), least_cycles(problem, chip))


def least_cycles(problem: Problem, chip: Chip) -> int:
    """What no tiling can beat: every operand moved once, every product formed at the peak rate."""
    m, n, k = problem.m, problem.n, problem.k
    moved = n * problem.stored_cols(k) + m * k * problem.element.size_bytes
    moved += m * n * problem.result.size_bytes
    rate = chip.lanes * chip.matrix_rows * chip.matrix_width[problem.element.name]
    return int(problem.batches * max(moved / chip.dma_bytes_per_cycle, m * n * k / rate))


def _estimate(problem: Problem, tiling: Tiling, chip: Chip) -> int:
    if tiling.tk < problem.k:
        return _estimate_split(problem, tiling, chip)
    if tiling.tn >= problem.n:
        run = _weight_resident(problem, tiling, chip)
    else:
        run = _x_resident(problem, tiling, chip)
    # The next matrix of a stack loads while this one ends.
    overlap = (problem.batches - 1) * min(run.fill, run.drain)
    return problem.batches * (run.fill + run.steady + run.drain) - overlap


@dataclass(frozen=True)
class _Step:
    """Cycles of the two engines for one tile of the result."""

    load: int
    compute: int
    store: int


@dataclass(frozen=True)
class _Run:
    """A pipeline of steps: its first load, then until the last tile is loaded, then the rest."""

    fill: int
    steady: int
    drain: int


def _pipeline(full: _Step, last: _Step, steps: int) -> _Run:
    """`steps` steps, the last one smaller. The GDMA does load(i + 1), store(i), load(i + 2)."""
    if steps == 1:
        return _Run(last.load, 0, last.compute + last.store)
    steady = max(full.compute, full.load if steps > 2 else last.load)
    if steps > 2:
        steady += (steps - 3) * max(full.compute, full.store + full.load)
        steady += max(full.compute, full.store + last.load)
    return _Run(full.load, steady, max(full.store, last.compute) + last.store)


def _x_resident(problem: Problem, tiling: Tiling, chip: Chip) -> _Run:
    """A row of tiles for each x tile; the next x tile loads while a row ends."""
    rows = _pieces(problem.m, tiling.tm)
    columns = _pieces(problem.n, tiling.tn)
    tiles = sum(number for _, number in columns)
    fill = steady = drain = 0
    for tm, row_tiles in rows:
        full, last = (
            _step(problem, tiling, chip, tm, tn) for tn in (columns[0][0], columns[-1][0])
        )
        run = _pipeline(full, last, tiles)
        first_load = _x_load(problem, chip, tm, tiling.tk) + run.fill
        if drain == 0:
            fill, row_tiles = first_load, row_tiles - 1
            steady, drain = run.steady, run.drain
        steady += row_tiles * (run.steady + max(first_load, drain))
    return _Run(fill, steady, drain)


def _weight_resident(problem: Problem, tiling: Tiling, chip: Chip) -> _Run:
    """The whole weight stays; x tiles stream."""
    rows = _pieces(problem.m, tiling.tm)
    once = _weight_load(problem, chip, problem.n, problem.k)
    once += _scale_load(problem, chip, problem.n)
    once += _dequant(problem, chip, problem.n, problem.k)

    def step(tm: int) -> _Step:
        tile = _step(problem, tiling, chip, tm, problem.n)
        compute = tile.compute - _dequant(problem, chip, problem.n, problem.k)
        return _Step(_x_load(problem, chip, tm, problem.k), compute, tile.store)

    tiles = sum(number for _, number in rows)
    run = _pipeline(step(rows[0][0]), step(rows[-1][0]), tiles)
    return _Run(once + run.fill, run.steady, run.drain)


def _x_load(problem: Problem, chip: Chip, tm: int, tk: int) -> int:
    return transfer_cycles(tm, tk, problem.element, problem.x_pitch_bytes, chip)


def _dequant(problem: Problem, chip: Chip, tn: int, tk: int) -> int:
    if problem.scale is None:
        return 0
    return vector_cycles(tn, tk, problem.element.size_bytes, chip)


def _step(problem: Problem, tiling: Tiling, chip: Chip, tm: int, tn: int) -> _Step:
    """Cycles of one `tm` x `tn` tile of the result: k not split, or its last part."""
    tk = min(tiling.tk, problem.k)
    load = _weight_load(problem, chip, tn, tk) + _scale_load(problem, chip, tn)
    compute = _multiply(problem, tiling, chip, tm, tn, tk)
    if problem.bias is not None:
        load += transfer_cycles(1, tn, problem.bias, tn * problem.bias.size_bytes, chip)
    compute += _finish(problem, tiling, chip, tm, tn)
    store = transfer_cycles(tm, tn, problem.result, problem.n * problem.result.size_bytes, chip)
    return _Step(load, compute, store)


def _weight_load(problem: Problem, chip: Chip, tn: int, tk: int) -> int:
    if problem.scale is not None:
        held = problem.code_format.row_bytes(tk)
        return transfer_cycles(tn, held, I8, problem.weight_pitch_bytes, chip)
    rows, cols = (tn, tk) if problem.channels_are_rows else (tk, tn)
    return transfer_cycles(rows, cols, problem.element, problem.weight_pitch_bytes, chip)


def _scale_load(problem: Problem, chip: Chip, tn: int) -> int:
    """The scales and zero points of `tn` channels, once for all of k."""
    if problem.scale is None:
        return 0
    groups = problem.groups(problem.k)
    load = transfer_cycles(tn, groups, problem.scale, groups * problem.scale.size_bytes, chip)
    if problem.zero_point:
        load += transfer_cycles(tn, groups, I8, groups, chip)
    return load


def _multiply(problem: Problem, tiling: Tiling, chip: Chip, tm: int, tn: int, tk: int) -> int:
    rows, cols = (tn, tm) if tiling.channels_left else (tm, tn)
    cycles = matrix_cycles(rows, cols, tk, problem.element, chip)
    return cycles + _dequant(problem, chip, tn, tk)


def _finish(problem: Problem, tiling: Tiling, chip: Chip, tm: int, tn: int) -> int:
    """Bias, epilogue, rounding and transposition of a finished tile."""
    cycles = 0
    rows, cols = (tn, tm) if tiling.channels_left else (tm, tn)
    epilogue = problem.epilogue
    if problem.bias is not None or (
        tiling.tk < problem.k and problem.result != F32 and not epilogue.commands
    ):
        cycles += vector_cycles(rows, cols, F32.size_bytes, chip)
    if epilogue.commands:
        cycles += vector_cycles(rows, cols, F32.size_bytes, chip, epilogue.passes)
        cycles += (epilogue.commands - 1) * chip.bdc_command_cycles
    if tiling.channels_left:
        size = problem.result.size_bytes
        cycles += vector_cycles(rows, cols, size, chip, chip.transpose_passes)
    return cycles


def _estimate_split(problem: Problem, tiling: Tiling, chip: Chip) -> int:
    """Partial sums: x and w tiles stream; the sums are rounded and stored when k is through.

    Both engines are followed through the first three tiles; all others take as long as the third.
    """
    rows, columns = (_pieces(problem.m, tiling.tm), _pieces(problem.n, tiling.tn))
    cycles = 0.0
    for i, (tm, row_tiles) in enumerate(rows):
        for j, (tn, column_tiles) in enumerate(columns):
            first, each = _split_tile(problem, tiling, chip, tm, tn)
            tiles = problem.batches * row_tiles * column_tiles
            cycles += tiles * each + (first - each if i == j == 0 else 0.0)
    return int(cycles)


def _pieces(total: int, tile: int) -> list[tuple[int, int]]:
    """Sizes of the tiles that cover `total`, and how many there are of each."""
    whole, rest = divmod(total, tile)
    return [(tile, whole)] * (whole > 0) + [(rest, 1)] * (rest > 0)


def _split_tile(
    problem: Problem, tiling: Tiling, chip: Chip, tm: int, tn: int
) -> tuple[float, float]:
    """Cycles of the first `tm` x `tn` tile, and of each one behind it."""
    tk = tiling.tk
    parts = count(problem.k, tk)
    # The last part takes less: prorate all, but for the loads that nothing hides.
    share = problem.k / (parts * tk)
    whole_load = _x_load(problem, chip, tm, tk) + _weight_load(problem, chip, tn, tk)
    load = whole_load * share
    multiply = _multiply(problem, tiling, chip, tm, tn, tk)
    step = _step(problem, tiling, chip, tm, tn)
    finish = step.compute - multiply
    followed = min(parts, _FOLLOWED_PARTS)
    first, each = _follow(followed, load, multiply * share, finish, step.store)
    scales = _scale_load(problem, chip, tn)
    first, each = first + scales, each + scales
    rest = (parts - followed) * max(load, multiply * share)
    return first + rest + whole_load - load, each + rest


_FOLLOWED_PARTS = 8
"""Parts of a split k after which one takes as long as the other."""


def _follow(
    parts: int, load: float, multiply: float, finish: int, store: int
) -> tuple[float, float]:
    """When the store of the first tile ends, and how long the third one takes.

    What the last tile of all does not load for its successor is taken off the first.

    The queue of the GDMA: the loads of a tile, then the first two of the next one, then its store.
    A part takes the buffers of the last but one, so it waits until that is multiplied.
    """
    gdma = bdc = ahead = 0.0
    ends: list[float] = []
    loaded = [0.0] * parts
    multiplied = [0.0] * parts
    for part in range(min(parts, 2)):
        gdma = loaded[part] = gdma + load
    for _ in range(3):
        for part in range(parts):
            bdc = multiplied[part] = max(bdc, loaded[part]) + multiply
            if part + 2 < parts:
                free = multiplied[part] if part > 0 else 0.0
                gdma = loaded[part + 2] = max(gdma, free) + load
        own = gdma
        for part in range(min(parts, 2)):
            gdma = loaded[part] = max(gdma, multiplied[-2]) + load
        bdc += finish
        ahead = max(0.0, gdma - max(own, bdc))
        gdma = max(gdma, bdc) + store
        ends.append(gdma)
    return ends[0] - ahead, ends[2] - ends[1]
