"""Chapter 5: bias and one rounding, any number of rows, and the commands themselves."""

from __future__ import annotations

import ch4
import numpy as np
import toy

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.encoding.assembler import assemble, disassemble
from tilewright.compiler import dsl
from tilewright.dialects import tpu
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.passes import kernel_language as tk
from tilewright.passes.tiling.matmul import choose_tiling
from tilewright.passes.tiling.matmul_tiles import Problem

TPU_MLIR = {1: 1_042_335, 512: 3_685_515}
"""Cycles of TPU-MLIR's own schedules by its own cost model (docs/machine.md)."""


@dsl.custom_op("toy.Projection", quantized=("weight",))
def projection(x: dsl.Operand, weight: dsl.Operand, bias: dsl.Operand | None = None) -> dsl.Tensor:
    """`y = x @ weight.T + bias`."""
    return dsl.linear(x, weight, bias)


MOST_ROWS = 512
"""Rows of x in a tile: their f32 sums are in local memory too."""


def tile_sizes(x: tk.Tensor, chip: Chip) -> tuple[int, int]:
    """Rows of x and channels of a tile: what fits, in whole sets of lanes.

    A quarter of local memory is for x, which may need two buffers; half is for the weight: two
    tiles of codes, two in 16 bits. Channels beyond a DMA run of results gain nothing.
    """
    width = x.dtype.size_bytes
    rows = chip.lanes * max(1, chip.lane_bytes // 4 // (x.cols * width))
    channels = chip.lanes * max(1, chip.lane_bytes // 2 // (2 * x.cols * (1 + width)))
    return min(rows, MOST_ROWS), min(channels, chip.dma_run_bytes // width)


@tk.kernel(projection.w8a16)
def finished(
    op: CompositeOp,
    x: tk.Tensor,
    codes: tk.Tensor,
    scale: tk.Tensor,
    bias: tk.Tensor | None,
    y: tk.Tensor,
    chip: Chip,
) -> None:
    rows, channels = tile_sizes(x, chip)
    channels_left = x.rows < chip.lanes
    if bias is not None and channels_left:
        bias.reshape(codes.rows, 1)
    for m in tk.range(0, x.rows, rows):
        lines = slice(m, m + rows)
        tokens = x[lines, :].load()
        for n in tk.range(0, codes.rows, channels):
            part = slice(n, n + channels)
            tile = tk.dequant(codes[part, :].load(), scale[part, :].load(), x.dtype)
            if channels_left:
                sums = tk.dot(tile, tokens, transpose_right=True)
                if bias is not None:
                    sums = sums + bias[part, :].load()
                y[lines, part] = tk.transpose(tk.cast(sums, y.dtype))
            else:
                sums = tk.dot(tokens, tile, transpose_right=True)
                if bias is not None:
                    sums = sums + bias[:, part].load(replicated=True)
                y[lines, part] = tk.cast(sums, y.dtype)


def with_bias(m: int = toy.M, k: int = toy.K, n: int = toy.N) -> list[toy.Operand]:
    return [*toy.codes(m, k, n), ((n,), tk.f16)]


FINISHED = toy.Step("bias and one rounding", finished, with_bias(), pipelined=True)
STEPS = [*ch4.STEPS, FINISHED]


def numbers(m: int, k: int, n: int) -> tuple[list[np.ndarray], np.ndarray]:
    """x, codes, scales and bias, and `x @ weight.T` in float64."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((m, k)).astype(np.float16)
    codes = rng.integers(-127, 128, (n, k), dtype=np.int8)
    scale = np.full((n, 1), 2.0**-12, np.float16)
    bias = rng.standard_normal(n).astype(np.float16)
    weight = codes.astype(np.float32) * scale.astype(np.float32)
    return [x, codes, scale, bias], x.astype(np.float64) @ weight.astype(np.float64).T


def commands(built: tk.Built) -> None:
    """The first commands of both queues; and what is written can be read back."""
    kernel, text = built.kernel, disassemble(built.kernel)
    for engine, count in (("gdma", 6), ("bdc", 4)):
        lines = [line for line in text.splitlines() if line.startswith(engine)]
        print("\n".join([*lines[:count], f"... {len(lines)} commands"]))
    gdma, bdc = assemble(text)
    same = gdma.tobytes() == kernel.gdma.tobytes() and bdc.tobytes() == kernel.bdc.tobytes()
    print(f"{gdma.nbytes + bdc.nbytes:,d} bytes of records; the text is assembled to them: {same}")


def run_them() -> None:
    """The simulator executes the records: one token at the real size, 512 at a smaller one."""
    for m, k, n in ((1, toy.K, toy.N), (512, 1024, 1000)):
        arrays, product = numbers(m, k, n)
        y = tk.build(finished, *with_bias(m, k, n)).run(arrays).astype(np.float64)
        exact = product + arrays[3].astype(np.float64)
        error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
        print(f"[{m}, {k}] @ [{k}, {n}] + bias: relative error {error:.1e}")


def one_rounding() -> None:
    """The bias added to the f32 sums, and to results that are rounded already."""
    arrays, product = numbers(64, 512, 1000)
    exact = product + arrays[3].astype(np.float64)
    once = tk.build(finished, *with_bias(64, 512, 1000)).run(arrays)
    rounded = tk.build(finished, *toy.codes(64, 512, 1000)).run(arrays[:3])
    for name, y in (("once", once), ("twice", rounded + arrays[3])):
        wrong = y != exact.astype(np.float16)
        print(f"rounded {name:5s}: {wrong.mean():6.2%} of the results are not the nearest f16")


def beside_the_compiler() -> None:
    """Cycles of this kernel and of the compiler's own for the same op."""
    print(" rows of x  bias   this one   compiler's   of its speed")
    for m in (1, 16, 128, 512):
        for operands in (toy.codes(m), with_bias(m)):
            mine, theirs = tk.build(finished, *operands), tk.build(tpu.W8A16MatMulOp, *operands)
            share = theirs.cycles / mine.cycles
            bias = "yes" if len(operands) > 3 else "no"
            print(f"{m:10d}  {bias:4s}  {mine.cycles:9,d}  {theirs.cycles:11,d}  {share:12.1%}")
    deep = toy.codes(512, toy.N, toy.K)
    mine, theirs = tk.build(finished, *deep).cycles, tk.build(tpu.W8A16MatMulOp, *deep).cycles
    print(f"512 rows of {toy.N} to {toy.K}: this one {mine:,d}, the compiler's {theirs:,d}")
    problem = Problem(512, toy.N, toy.K, tk.f16, tk.f16, 2 * toy.K, scale=tk.f16)
    tiling = choose_tiling(problem, load_chip("bm1684x"))
    print(f"the compiler's tiles for 512 rows: {tiling.tn} channels, {tiling.tk} deep")
    for m, cycles in TPU_MLIR.items():
        print(f"TPU-MLIR's schedule for {m} rows: {cycles:,d} by its own cost model")


def run() -> None:
    toy.section("one rounding")
    one_rounding()
    toy.section("right numbers")
    for m, k, n in ((1, 256, 300), (37, 100, 77), (70, 96, 130)):
        toy.check(finished, with_bias(m, k, n))
    toy.section("commands")
    commands(FINISHED.build())
    toy.section("the simulator")
    run_them()
    toy.section("where the cycles go, 512 rows")
    toy.where_the_cycles_go(tk.build(finished, *with_bias(512)))
    toy.section("beside the compiler")
    beside_the_compiler()
    toy.section("all steps")
    toy.table(STEPS)


if __name__ == "__main__":
    run()
