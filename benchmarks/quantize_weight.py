"""Quantizing the largest weight of a 6B model, held against a copy of it.

Prints the median time of both, taken in turns, and their ratio. The bound is 1.5: reading f16,
finding scales and writing int8 codes moves three quarters of the bytes that a copy does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from tilewright.compiler.weights.quantize import quantize_w8a16
from tilewright.dialects.element_types import F16

SHAPE = (13696, 4096)
"""`mlp.dense_4h_to_h` of ChatGLM2-6B, transposed: 112 MB."""
ROUNDS = 15
THREADS = 2
BOUND = 1.5


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal(SHAPE, dtype=np.float32) * np.float32(0.02)).astype(np.float16)
    copy, codes = np.zeros_like(weight), np.zeros(SHAPE, np.int8)

    def quantize(threads: int) -> Callable[[], object]:
        return lambda: quantize_w8a16(weight, F16, threads=threads, out=codes)

    quantize(1)()  # compiles, or loads what was compiled before
    actions = {
        "numpy copy": lambda: np.copyto(copy, weight),
        "quantize, 1 thread": quantize(1),
        f"quantize, {THREADS} threads": quantize(THREADS),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            times[name].append(seconds(action))
    base = statistics.median(times["numpy copy"])
    for name, taken in times.items():
        median = statistics.median(taken)
        ratios = [t / c for t, c in zip(taken, times["numpy copy"], strict=True)]
        print(
            f"{name:20} {median * 1e3:7.1f} ms  {median / base:5.2f} of a copy "
            f"(median of the rounds' ratios {statistics.median(ratios):.2f}, bound {BOUND})"
        )


if __name__ == "__main__":
    main()
