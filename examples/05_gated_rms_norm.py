"""An op of your own with a kernel of your own: `RMSNorm(x, weight) * SiLU(gate)` in one launch.

The op is a function of the DSL: from it follow shapes, verifier, reference semantics and error
bound. The kernel is a function over tiles. Both are used and checked like Tilewright's own.
"""

from __future__ import annotations

import numpy as np

from tilewright.backends.chip import Chip
from tilewright.compiler import dsl
from tilewright.compiler.executable import compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.passes import kernel_language as tk

COLS = 4096


@dsl.custom_op("example.GatedRMSNorm")
def gated_rms_norm(
    x: dsl.Operand, gate: dsl.Operand, weight: dsl.Operand, *, eps: float = 1e-5
) -> dsl.Tensor:
    """RMSNorm, gated."""
    return dsl.rms_norm(x, weight, eps=eps) * dsl.silu(gate)


@tk.kernel(gated_rms_norm.tpu)
def kernel(
    op: CompositeOp, x: tk.Tensor, gate: tk.Tensor, weight: tk.Tensor, y: tk.Tensor, chip: Chip
) -> None:
    """Tokens are rows, which lie over the lanes; a single token is spread over all lanes."""
    eps = op.number("eps")
    if x.rows == 1 and x.cols % chip.lanes == 0:
        one_token(eps, x, gate, weight, y, chip)
        return
    rows = tk.fit_rows(x, gate, y, chip=chip, replicated=[weight])
    w = tk.load(weight, replicated=True)
    for row in tk.range(0, x.rows, rows):
        t = x[row : row + rows, :].load()
        g = gate[row : row + rows, :].load()
        r = tk.rsqrt(tk.mean(t * t) + eps)
        y[row : row + rows, :] = tk.cast(t * r * w * tk.silu(g), y.dtype)


def one_token(
    eps: float, x: tk.Tensor, gate: tk.Tensor, weight: tk.Tensor, y: tk.Tensor, chip: Chip
) -> None:
    """Each lane sums the squares of its part; a product with ones adds up what the lanes have."""
    cols = x.cols
    for tensor in (x, gate, weight, y):
        tensor.reshape(chip.lanes, cols // chip.lanes)
    t, g, w = x.load(), gate.load(), weight.load()
    total = tk.dot(tk.full(chip.lanes, chip.lanes, 1.0), tk.sum(t * t))
    r = tk.rsqrt(total * (1 / cols) + eps)
    y.store(tk.cast(t * r * w * tk.silu(g), y.dtype))


def cycles(rows: int, *, fused: bool) -> int:
    """Compile the op, or the ops that it stands for, and run it."""

    @dsl.function(x=dsl.f32(rows, COLS), gate=dsl.f32(rows, COLS), weight=dsl.f32(COLS))
    def main(x: dsl.Tensor, gate: dsl.Tensor, weight: dsl.Tensor) -> dsl.Tensor:
        if fused:
            return gated_rms_norm(x, gate, weight)
        return dsl.rms_norm(x, weight, eps=1e-5) * dsl.silu(gate)

    executable = compile_module(dsl.trace(main), {}, CompileOptions("f16"))
    rng = np.random.default_rng(0)
    x, gate = rng.standard_normal((2, rows, COLS)).astype(np.float16)
    weight = rng.standard_normal(COLS).astype(np.float16)
    (y,) = executable.run("main", x=x, gate=gate, weight=weight)
    t, g = x.astype(np.float64), gate.astype(np.float64)
    exact = t / np.sqrt((t * t).mean(-1, keepdims=True) + 1e-5) * weight * g / (1 + np.exp(-g))
    assert np.linalg.norm(y - exact) < 1e-3 * np.linalg.norm(exact)
    return executable.times()["main"].cycles


def run() -> None:
    for rows in (512, 1):
        separate, fused = cycles(rows, fused=False), cycles(rows, fused=True)
        print(
            f"[{rows}, {COLS}]  separate kernels {separate:9,d} cycles, fused {fused:9,d}, "
            f"gain {separate / fused:.2f} x"
        )
    matrix, vector = ((70, COLS), tk.f16), ((COLS,), tk.f16)
    for checked in tk.check(gated_rms_norm.tpu, matrix, matrix, vector):
        print(checked)


if __name__ == "__main__":
    run()
