"""A matrix product, from Python to IR and numbers.

A function of the DSL runs once on placeholder tensors; what it does becomes a `top` module. Weights
are references by key: their values come when the module runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.compiler import dsl
from tilewright.dialects.context import make_context
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass

ROWS, DEPTH, COLUMNS = 4, 64, 96
projection = dsl.Linear(DEPTH, COLUMNS, bias=True)


@dsl.function(x=dsl.f32(ROWS, DEPTH))
def main(x: dsl.Tensor) -> dsl.Tensor:
    return projection(x)


def run() -> None:
    module = dsl.trace(main)
    print(module)

    generator = np.random.default_rng(0)
    arrays: dict[str, npt.NDArray[np.float32]] = {
        key: generator.standard_normal(leaf.shape).astype(np.float32)
        for key, leaf in projection.leaves()
    }
    x = generator.standard_normal((ROWS, DEPTH)).astype(np.float32)

    def weights(key: str, op: Operation) -> npt.NDArray[Any]:
        return arrays[key]

    result = run_function(module, "main", [x], weights=weights, states={}, semantics="float64")[0]
    expected = x.astype(np.float64) @ arrays["weight"].T + arrays["bias"]
    print("largest difference from numpy:", np.abs(result - expected).max())

    ConvertTopToTpuPass(quant="w8a16").apply(make_context(), module)
    print("with int8 weights:")
    print(module)


if __name__ == "__main__":
    run()
