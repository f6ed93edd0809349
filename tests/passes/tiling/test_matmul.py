"""The tile sizes of matrix multiplications, as mathematics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends.chip import load_chip
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import FitError
from tilewright.dialects.memory_types import align_up
from tilewright.passes.tiling.matmul import candidates, choose_tiling
from tilewright.passes.tiling.matmul_cost import estimate_cycles
from tilewright.passes.tiling.matmul_tiles import Problem, Tiling, buffers, count, lane_bytes

CHIP = load_chip("bm1684x")


def problem(m: int, n: int, k: int, element: ElementType = F16, *, codes: bool = False) -> Problem:
    return Problem(
        m=m,
        n=n,
        k=k,
        element=element,
        result=element,
        x_pitch_bytes=k * element.size_bytes,
        scale=element if codes else None,
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    element = draw(st.sampled_from([F16, BF16, F32]))
    base = problem(
        draw(st.integers(1, 1500)),
        draw(st.integers(1, 5000)),
        draw(st.integers(1, 5000)),
        element,
    )
    scale = draw(st.sampled_from([None, element, F32]))
    return replace(
        base,
        scale=scale,
        bias=draw(st.sampled_from([None, element, F32])),
        result=draw(st.sampled_from([element, F32])),
        channels_are_rows=scale is not None or draw(st.booleans()),
        batches=draw(st.sampled_from([1, 1, 3])) if scale is None else 1,
    )


@given(problems())
def test_choice_fits_and_stays_within_the_problem(p: Problem):
    tiling = choose_tiling(p, CHIP)
    assert lane_bytes(p, tiling, CHIP) <= CHIP.lane_bytes
    assert 1 <= tiling.tm <= p.m
    assert 1 <= tiling.tn <= p.n
    assert 1 <= tiling.tk <= p.k
    if tiling.channels_left:
        assert p.channels_are_rows
        assert tiling.tm == p.m


@given(problems())
def test_choice_is_the_best_candidate_that_fits(p: Problem):
    best = estimate_cycles(p, choose_tiling(p, CHIP), CHIP)
    for tiling in candidates(p, CHIP):
        if lane_bytes(p, tiling, CHIP) <= CHIP.lane_bytes:
            assert best <= estimate_cycles(p, tiling, CHIP)


@given(problems())
def test_estimate_is_not_below_what_bytes_and_products_take(p: Problem):
    """Neither engine is faster than its peak: every operand is moved, every product computed."""
    tiling = choose_tiling(p, CHIP)
    moved = p.n * p.k * p.stored.size_bytes
    moved += p.m * p.k * p.element.size_bytes + p.m * p.n * p.result.size_bytes
    width = CHIP.lanes * CHIP.matrix_rows * CHIP.matrix_width[p.element.name]
    bound = max(moved / CHIP.dma_bytes_per_cycle, p.m * p.n * p.k / width)
    assert estimate_cycles(p, tiling, CHIP) >= int(p.batches * bound)


@given(problems())
def test_lane_bytes_count_every_tile(p: Problem):
    tiling = choose_tiling(p, CHIP)
    tiles = buffers(p, tiling)
    distinct = {tiles.x, tiles.stored, tiles.weight, tiles.product, tiles.output}
    assert lane_bytes(p, tiling, CHIP) >= sum(tile.lane_bytes(CHIP.lanes) for tile in distinct)


def test_lane_bytes_of_double_buffers():
    """x once, codes and output twice, the dequantized tile and its scale."""
    tiling = Tiling(channels_left=True, tm=1, tn=256, tk=4096)
    bank, codes, weight = CHIP.bank_bytes, 4 * 4096, 4 * 8192
    large = align_up(8192, bank) + 2 * align_up(codes, bank) + align_up(weight, bank)
    assert lane_bytes(problem(1, 13696, 4096, codes=True), tiling, CHIP) == large + bank


def test_one_row_puts_channels_over_the_lanes():
    for codes in (False, True):
        tiling = choose_tiling(problem(1, 13696, 4096, codes=codes), CHIP)
        assert tiling.channels_left
        assert tiling.tk == 4096
        # A stored piece of the row is whole DMA runs.
        assert tiling.tn * F16.size_bytes % CHIP.dma_run_bytes == 0


def test_columns_over_rows_need_rows_left():
    stored_kn = replace(problem(1, 256, 512), channels_are_rows=False)
    assert not choose_tiling(stored_kn, CHIP).channels_left


@pytest.mark.parametrize(("n", "k"), [(13696, 4096), (4096, 13696), (27392, 4096), (4096, 4096)])
@pytest.mark.parametrize("codes", [False, True])
def test_a_prefill_is_estimated_close_to_the_compute_bound(n: int, k: int, codes: bool):
    p = problem(512, n, k, codes=codes)
    compute = 512 * n * k / 8192
    assert estimate_cycles(p, choose_tiling(p, CHIP), CHIP) < 1.06 * compute


def test_a_chip_too_small_for_any_tile_is_an_error():
    tiny = replace(CHIP, lane_bytes=1024, banks=16)
    with pytest.raises(FitError, match="no tile of a 512x512x512 matrix multiplication in f16"):
        choose_tiling(problem(512, 512, 512), tiny)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_count_covers(total: int, tile: int):
    assert (count(total, tile) - 1) * tile < total <= count(total, tile) * tile
