"""Chapter 1: load, multiply, store, one tile of the weight after the other."""

from __future__ import annotations

import toy

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.cost import matrix_cycles, transfer_cycles
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.passes import kernel_language as tk

CHANNELS = 64


@tk.kernel(toy.linear.tpu)
def plain(op: CompositeOp, x: tk.Tensor, weight: tk.Tensor, y: tk.Tensor, chip: Chip) -> None:
    row = x.load()
    for n in tk.range(0, weight.rows, CHANNELS):
        tile = weight[n : n + CHANNELS, :].load()
        sums = tk.dot(row, tile, transpose_right=True)
        y[:, n : n + CHANNELS] = tk.cast(sums, y.dtype)


STEPS = [toy.Step("plain loop, f16", plain, toy.halves())]


def the_machine() -> None:
    """The figures that the time model works with."""
    chip = load_chip("bm1684x")
    print(f"{chip.lanes} lanes, each with {chip.lane_bytes >> 10} KiB in {chip.banks} banks")
    print(
        f"gdma: {chip.dma_bytes_per_cycle:.0f} bytes a cycle, in runs of {chip.dma_run_bytes} bytes"
    )
    print(f"a command: {chip.gdma_command_cycles} cycles of gdma, {chip.bdc_command_cycles} of bdc")
    width = chip.matrix_width["f16"]
    print(f"bdc, matrices: {chip.matrix_rows} sums of {width} f16 products a lane and cycle")
    print(f"bdc, vectors: {chip.vector_bytes} bytes a lane and cycle")


def one_tile() -> None:
    """What the commands of one turn of the loop take, by the formulas of the time model."""
    chip, k = load_chip("bm1684x"), toy.K
    load = transfer_cycles(CHANNELS, k, tk.f16, 2 * k, chip)
    print(f"load {CHANNELS} x {k} f16: {2 * CHANNELS * k:,d} bytes, {load:,d} cycles")
    multiply = matrix_cycles(1, CHANNELS, k, tk.f16, chip)
    print(f"mm 1 x {CHANNELS} x {k}: {CHANNELS * k:,d} products, {multiply:,d} cycles")
    print(f"store 1 x {CHANNELS} f16: {transfer_cycles(1, CHANNELS, tk.f16, 2, chip):,d} cycles")


def run() -> None:
    toy.section("the machine")
    the_machine()
    toy.section("right numbers")
    toy.check(plain, toy.halves(1, 256, 300))
    toy.section("one tile")
    one_tile()
    toy.section("where the cycles go")
    toy.where_the_cycles_go(STEPS[0].build())
    toy.section("so far")
    toy.table(STEPS)


if __name__ == "__main__":
    run()
