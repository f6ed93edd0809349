"""A pass of your own in the pipeline: see the IR change, the numbers hold, and the cycles drop.

`MulConst` by one does nothing. The pass removes it from a `tpu` module; the kernels that computed
it are gone with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler import dsl
from tilewright.compiler.pipeline import CompileOptions, build_program, lower, run_passes
from tilewright.compiler.runtime import Session
from tilewright.dialects import tpu

ROWS, COLUMNS = 128, 512


@dataclass(frozen=True)
class RemoveUnitScalingPass(ModulePass):
    """Replace `tpu.MulConst %x {value = 1}` by `%x`."""

    name = "remove-unit-scaling"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for scaling in list(op.walk()):
            if isinstance(scaling, tpu.MulConstOp) and scaling.value.value.data == 1.0:
                scaling.result.replace_all_uses_with(scaling.x)
                scaling.detach()
                scaling.erase()


@dsl.function(x=dsl.f32(ROWS, COLUMNS))
def main(x: dsl.Tensor) -> dsl.Tensor:
    return dsl.silu(x * 1.0) + x


def run() -> None:
    before = lower(dsl.trace(main), CompileOptions("f16"))
    after = before.clone()
    run_passes(after, [RemoveUnitScalingPass()])
    print(after)

    x = np.random.default_rng(0).standard_normal((ROWS, COLUMNS))
    results: list[np.ndarray] = []
    for name, module in (("before", before), ("after", after)):
        built = build_program(module, "bm1684x")
        session = Session(built.program, built.chip, {}.__getitem__)
        results += session.run("main", {"x": x}).values()
        print(f"{name:7s} {len(built.program.functions[0].launches)} launches")
    print("equal to the bit:", np.array_equal(results[0], results[1]))


if __name__ == "__main__":
    run()
