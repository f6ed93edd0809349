"""Compile time (weights aside) of ChatGLM2-6B's layer 28 and 280 times: it grows with distinct
kernels, not with depth.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from timing import paired, report

from tilewright.compiler.artifact.commands import encode_program
from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.synthetic import CHATGLM2_6B
from tilewright.compiler.pipeline import CompileOptions, build_program, lower
from tilewright.dialects.context import print_module

SEQ = 512
ROUNDS = 3
LIMIT = 1.5


def compile_layers(folder: Path, layers: int) -> None:
    """Everything but the weights: import, lowering, kernels, memory plan, launches, text and
    records.
    """
    path = folder / f"{layers}.json"
    path.write_text(json.dumps({**CHATGLM2_6B, "num_layers": layers}))
    options = CompileOptions("w8a16")
    tpu_module = lower(load_model(path, seq=SEQ).module, options)
    built = build_program(tpu_module, options.chip, check_fit=False)
    encode_program(built.program)
    print_module(tpu_module)


def main() -> None:
    """Print both times and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_layers(folder, 1)
        deep, flat, ratio = paired(
            lambda: compile_layers(folder, 280), lambda: compile_layers(folder, 28), ROUNDS
        )
    print(f"28 layers {flat:.2f} s, 280 layers {deep:.2f} s (medians of {ROUNDS})")
    report("280 layers / 28 layers", ratio, LIMIT, "x")


if __name__ == "__main__":
    main()
