"""A pass of your own in the pipeline: see its steps, the numbers hold, and the cycles drop.

`MulConst` by one does nothing. The pass, a rule in a docstring, removes it from a `tpu` module; the
kernels that computed it are gone with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.ir import Operation

from tilewright.compiler import dsl
from tilewright.compiler.pipeline import CompileOptions, build_program, lower, run_passes
from tilewright.compiler.runtime import Session
from tilewright.dialects.scopes import where_of
from tilewright.passes.actions import Watcher, watching
from tilewright.passes.rules.rule_pass import RulePass

ROWS, COLUMNS = 128, 512


@dataclass(frozen=True)
class RemoveUnitScalingPass(RulePass):
    """Leave out what multiplies by one.

    ```rules
    /// 1 * x is x.
    rule RemoveUnitScaling {
      match { y = tpu.MulConst(x) {value: 1.0} }
      replace y with x
    }
    ```
    """

    name = "remove-unit-scaling"


class PrintSteps(Watcher):
    """Says where rules apply; a watcher could also hold them back."""

    def begin(self, pattern: str, op: Operation) -> bool:
        print(f"{pattern}: {where_of(op)}")
        return True

    def end(self, new_ops: Sequence[Operation]) -> None:
        print(f"  makes {len(new_ops)} ops")


@dsl.function(x=dsl.f32(ROWS, COLUMNS))
def main(x: dsl.Tensor) -> dsl.Tensor:
    return dsl.silu(x * 1.0) + x


def run() -> None:
    before = lower(dsl.trace(main), CompileOptions("f16"))
    after = before.clone()
    with watching(PrintSteps()):
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
