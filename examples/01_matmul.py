"""A linear layer, from Python to the simulated chip: numbers and cycles.

A function of the DSL runs once on placeholder tensors; what it does becomes a `top` module. Weights
are references by key: their values come when the module is compiled.
"""

from __future__ import annotations

import numpy as np

from tilewright.compiler import dsl
from tilewright.compiler.executable import compile_module
from tilewright.compiler.pipeline import CompileOptions

ROWS, DEPTH, COLUMNS = 1, 4096, 1000
projection = dsl.Linear(DEPTH, COLUMNS, bias=True)


@dsl.function(x=dsl.f32(ROWS, DEPTH))
def main(x: dsl.Tensor) -> dsl.Tensor:
    return projection(x)


def run() -> None:
    module = dsl.trace(main)
    print(module)

    generator = np.random.default_rng(0)
    weights = {
        "weight": generator.standard_normal((COLUMNS, DEPTH)).astype(np.float32) / 64,
        "bias": generator.standard_normal(COLUMNS).astype(np.float32),
    }
    x = generator.standard_normal((ROWS, DEPTH)).astype(np.float32)
    exact = x.astype(np.float64) @ weights["weight"].T + weights["bias"]

    for quant in ("f16", "w8a16"):
        executable = compile_module(module, weights, CompileOptions(quant))
        (y,) = executable.run("main", x=x)
        error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
        time = executable.times()["main"]
        print(
            f"{quant:6s} {time.cycles:9,d} cycles, {time.bytes_in:11,d} bytes in, "
            f"GDMA {time.gdma_busy:.1%} busy, relative error {error:.1e}"
        )
    print(executable.tpu_module)


if __name__ == "__main__":
    run()
