"""What small models compile to, command by command, against what was blessed before.

A change that is meant to change nothing changes nothing here. `make golden` writes the files anew,
on purpose; their diff is part of the review.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.compiler.small_models import TINY_CHATGLM, TINY_LLAMA, model_of

from tilewright.backends.encoding.assembler import disassemble
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.timing import time_kernel
from tilewright.compiler.performance import ProgramTimes
from tilewright.compiler.pipeline import Built, CompileOptions, build_program, lower

FOLDER = Path(__file__).parent
SEQ = 48
CONFIGS = {"chatglm": TINY_CHATGLM, "llama": TINY_LLAMA}
CASES = [(model, quant) for model in CONFIGS for quant in ("f32", "f16", "w8a16")]
CASES.append(("chatglm", "w4a16-channel"))
LISTINGS = {
    "rms_norm": ("f16", "tpu.RMSNorm"),
    "w8a16_matmul": ("w8a16", "tpu.W8A16MatMul"),
    "w4a16_matmul": ("w4a16-channel", "tpu.W4A16MatMul"),
}
"""Kernels of chatglm's decode whose listings are kept: quantization and op."""
HINT = "if that is meant: make golden"


@cache
def built(model: str, quant: str) -> Built:
    module = model_of(CONFIGS[model], SEQ).trace()
    return build_program(lower(module, CompileOptions(quant)), "bm1684x")


def digest(kernel: Kernel) -> str:
    """SHA-256 of the records of both engines."""
    return hashlib.sha256(kernel.gdma.tobytes() + kernel.bdc.tobytes()).hexdigest()


def description(model: str, quant: str) -> dict[str, Any]:
    """What the golden file of a model holds."""
    program = built(model, quant)
    times = ProgramTimes(program.program, program.chip).by_name()
    return {
        "functions": {
            name: {"launches": time.launches, "cycles": time.cycles} for name, time in times.items()
        },
        "memory_bytes": program.plan.used_bytes,
        "kernels": {
            kernel.name: {
                "op": kernel.op,
                "gdma_commands": len(kernel.gdma),
                "bdc_commands": len(kernel.bdc),
                "local_bytes": kernel.local_bytes,
                "cycles": time_kernel(kernel, program.chip).cycles,
                "sha256": digest(kernel),
            }
            for kernel in program.program.kernels
        },
    }


def differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> Iterator[str]:
    """What has changed, a line each: `kernels / silu_1x688_f16: cycles 120 -> 90 (-25.0 %)`."""
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        where = f"{path}: {key}" if path else key
        if before is None:
            yield f"{where} is new"
        elif after is None:
            yield f"{where} is gone"
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{path} / {key}" if path else key)
        else:
            share = f" ({after / before - 1:+.1%})" if isinstance(before, int) and before else ""
            yield f"{where} {before} -> {after}{share}"


@pytest.mark.parametrize(("model", "quant"), CASES)
def test_kernels(model: str, quant: str, bless: bool) -> None:
    path = FOLDER / f"{model}-{quant}.json"
    new = description(model, quant)
    if bless:
        path.write_text(json.dumps(new, indent=2) + "\n")
    changes = list(differences(json.loads(path.read_text()), new))
    if changes:
        pytest.fail("\n".join([f"{path.name}: {HINT}", *changes]), pytrace=False)


@pytest.mark.parametrize("name", LISTINGS)
def test_listings(name: str, bless: bool) -> None:
    path = FOLDER / f"{name}.txt"
    quant, op = LISTINGS[name]
    program = built("chatglm", quant).program
    decode = next(f for f in program.functions if f.name == "decode")
    kernels = (program.kernels[launch.kernel] for launch in decode.launches)
    new = disassemble(next(kernel for kernel in kernels if kernel.op == op))
    if bless:
        path.write_text(new)
    old = path.read_text()
    if old != new:
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{path.name} as blessed", "now", lineterm=""
        )
        pytest.fail("\n".join([f"{path.name}: {HINT}", *lines]), pytrace=False)


def test_no_golden_file_is_left_over() -> None:
    expected = {f"{model}-{quant}.json" for model, quant in CASES}
    expected |= {f"{name}.txt" for name in LISTINGS}
    files = {path.name for path in FOLDER.iterdir() if path.suffix in (".json", ".txt")}
    assert files == expected


def test_the_differences_are_readable() -> None:
    old = {"a": {"cycles": 100, "sha256": "x"}, "b": 1, "c": 2}
    new = {"a": {"cycles": 90, "sha256": "y"}, "b": 1, "d": 3}
    assert list(differences({"kernels": old}, {"kernels": new})) == [
        "kernels / a: cycles 100 -> 90 (-10.0%)",
        "kernels / a: sha256 x -> y",
        "kernels: c is gone",
        "kernels: d is new",
    ]
    assert list(differences(old, old)) == []


def test_a_changed_command_changes_the_digest() -> None:
    kernel = built("chatglm", "f16").program.kernels[0]
    gdma = kernel.gdma.copy()
    gdma["wait"][-1] ^= 1
    assert digest(kernel) != digest(replace(kernel, gdma=gdma))
