"""Chapter 3: which operand lies over the lanes, and how large its tiles are."""

from __future__ import annotations

import ch2
import numpy as np
import toy

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.cost import matrix_cycles
from tilewright.dialects.errors import FitError
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.passes import kernel_language as tk

CHANNELS = 256


@tk.kernel(toy.linear.w8a16)
def channels_left(
    op: CompositeOp, x: tk.Tensor, codes: tk.Tensor, scale: tk.Tensor, y: tk.Tensor, chip: Chip
) -> None:
    rows = x.load()
    for n in tk.range(0, codes.rows, CHANNELS):
        channels = slice(n, n + CHANNELS)
        tile = tk.dequant(codes[channels, :].load(), scale[channels, :].load(), x.dtype)
        sums = tk.dot(tile, rows, transpose_right=True)
        y[:, channels] = tk.transpose(tk.cast(sums, y.dtype))


STEPS = [*ch2.STEPS, toy.Step("channels over the lanes", channels_left, toy.codes())]


def in_pieces(channels: int, depth: int) -> tk.Kernel:
    """The same with tiles of `channels` x `depth`: the f32 sums stay in local memory meanwhile."""

    @tk.kernel(toy.linear.w8a16)
    def kernel(
        op: CompositeOp, x: tk.Tensor, codes: tk.Tensor, scale: tk.Tensor, y: tk.Tensor, chip: Chip
    ) -> None:
        rows = x.load()
        for n in tk.range(0, codes.rows, channels):
            part = slice(n, n + channels)
            factors = scale[part, :].load()
            sums = tk.zeros(channels, x.rows)
            for k in tk.range(0, x.cols, depth):
                piece = slice(k, k + depth)
                tile = tk.dequant(codes[part, piece].load(), factors, x.dtype)
                tk.accumulate(sums, tile, rows[:, piece], transpose_right=True)
            y[:, part] = tk.transpose(tk.cast(sums, y.dtype))

    return kernel


def sides() -> None:
    """Cycles of the products of 256 channels, with rows of x or channels over the lanes."""
    chip = load_chip("bm1684x")
    print("rows of x   over the lanes: rows   channels")
    for m in (1, 4, 16, 64, 256):
        rows = matrix_cycles(m, CHANNELS, toy.K, tk.f16, chip)
        channels = matrix_cycles(CHANNELS, m, toy.K, tk.f16, chip)
        print(f"{m:9d}   {rows:20,d}   {channels:8,d}")


def same_bits() -> None:
    """Chapters 2 and 3 on the same numbers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1024)).astype(np.float16)
    codes = rng.integers(-127, 128, (300, 1024)).astype(np.int8)
    scale = np.full((300, 1), 1 / 127, np.float16)
    one, other = (
        tk.build(kernel, *toy.codes(1, 1024, 300)).run([x, codes, scale])
        for kernel in (ch2.dequantized, channels_left)
    )
    print(f"the bits of chapter 2: {one.tobytes() == other.tobytes()}")


def sweep() -> None:
    """Cycles, and KiB of the 256 KiB of a lane, for tiles of so many channels and depths."""
    depths = (128, 256, 512, toy.K)
    print("channels" + "".join(f"  {f'depth {depth}':>15s}" for depth in depths))
    for channels in (64, 256, 1536):
        cells: list[str] = []
        for depth in depths:
            try:
                built = tk.build(in_pieces(channels, depth), *toy.codes(), pipelined=False)
                cells.append(f"{built.cycles:,d} {built.kernel.local_bytes >> 10:4d}K")
            except FitError:
                cells.append("does not fit")
        print(f"{channels:8d}" + "".join(f"  {cell:>15s}" for cell in cells))


def run() -> None:
    toy.section("which side")
    sides()
    toy.section("right numbers")
    toy.check(channels_left, toy.codes(1, 256, 300))
    toy.check(in_pieces(64, 128), toy.codes(1, 320, 300))
    same_bits()
    toy.section("which tiles")
    sweep()
    toy.section("where the cycles go")
    toy.where_the_cycles_go(STEPS[-1].build())
    toy.section("so far")
    toy.table(STEPS)


if __name__ == "__main__":
    run()
