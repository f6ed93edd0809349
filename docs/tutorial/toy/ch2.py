"""Chapter 2: int8 codes, half the bytes."""

from __future__ import annotations

import ch1
import numpy as np
import toy

from tilewright.backends.chip import Chip
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.passes import kernel_language as tk

CHANNELS = 64


@tk.kernel(toy.linear.w8a16)
def dequantized(
    op: CompositeOp, x: tk.Tensor, codes: tk.Tensor, scale: tk.Tensor, y: tk.Tensor, chip: Chip
) -> None:
    row = x.load()
    for n in tk.range(0, codes.rows, CHANNELS):
        channels = slice(n, n + CHANNELS)
        tile = tk.dequant(codes[channels, :].load(), scale[channels, :].load(), x.dtype)
        sums = tk.dot(row, tile, transpose_right=True)
        y[:, channels] = tk.cast(sums, y.dtype)


STEPS = [*ch1.STEPS, toy.Step("int8 codes", dequantized, toy.codes())]


def quantized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and a scale for each row: the largest weight of a row gets the code 127."""
    scale = (np.abs(weight).max(axis=1, keepdims=True) / 127).astype(np.float16)
    codes = np.rint(weight / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
    return codes, scale


def what_codes_cost() -> None:
    """The error of the weights, which the machine cannot help, and that of the kernel."""
    rng = np.random.default_rng(0)
    weight = 0.02 * rng.standard_normal((300, 1024), dtype=np.float32)
    x = rng.standard_normal((1, 1024)).astype(np.float16)
    codes, scale = quantized(weight)
    restored = codes.astype(np.float64) * scale.astype(np.float64)
    built = tk.build(dequantized, *toy.codes(1, 1024, 300), pipelined=False)
    y = built.run([x, codes, scale]).astype(np.float64)
    wide = x.astype(np.float64)
    for name, exact in (("the codes' product", restored), ("the weight's product", weight)):
        product = wide @ exact.astype(np.float64).T
        error = np.linalg.norm(y - product) / np.linalg.norm(product)
        print(f"against {name:21s}: relative error {error:.1e}")


def run() -> None:
    toy.section("right numbers")
    toy.check(dequantized, toy.codes(1, 256, 300))
    toy.section("what codes cost")
    what_codes_cost()
    toy.section("where the cycles go")
    toy.where_the_cycles_go(STEPS[-1].build())
    toy.section("so far")
    toy.table(STEPS)


if __name__ == "__main__":
    run()
