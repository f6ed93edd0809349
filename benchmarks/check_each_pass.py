"""What `--check-each-pass` costs beside the compile it checks: the demo model, w8a16.

The plain compile is all passes, memory plan and linking, verified after each pass; the checked one
runs the model before and after each pass besides, kernels one by one, and the emitted program on
the simulator.
"""

from __future__ import annotations

from timing import paired, report
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.chip import load_chip
from tilewright.compiler.importers.huggingface import build_model
from tilewright.compiler.importers.synthetic import CHATGLM_DEMO
from tilewright.compiler.link import link
from tilewright.compiler.memory_plan import plan_memory
from tilewright.compiler.models.config import Fields
from tilewright.compiler.workbench.equivalence import EquivalenceCheck
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.runner import Instrument, run_pipeline

SEQ = 128
"""As examples/demo.py compiles it."""
PIPELINE = "compile{quant=w8a16}"
CHIP = "bm1684x"
ROUNDS = 7
LIMIT = 3.0
"""The check costs less than twice the compile: together less than three times."""


def compile_model(model: ModuleOp, instruments: list[Instrument]) -> None:
    """From the top module to a linked program."""
    module = model.clone()
    run_pipeline(module, passes_from_text(PIPELINE), instruments)
    chip = load_chip(CHIP)
    link(module, plan_memory(module, chip), chip)


def main() -> None:
    """Print both times and their ratio."""
    model = build_model(Fields(dict(CHATGLM_DEMO), "config.json"), SEQ).trace()
    compile_model(model, [EquivalenceCheck()])
    checked, plain, ratio = paired(
        lambda: compile_model(model, [EquivalenceCheck()]),
        lambda: compile_model(model, []),
        ROUNDS,
    )
    print(
        f"compile {plain:.2f} s, with --check-each-pass {checked:.2f} s (medians of {ROUNDS}): "
        f"the check costs {ratio - 1:.2f} x the compile"
    )
    report("checked compile / compile", ratio, LIMIT, "x")


if __name__ == "__main__":
    main()
