"""`tw inspect`: what an artifact holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tilewright.backends.encoding.assembler import disassemble
from tilewright.backends.program import Kernel
from tilewright.compiler.artifact import Artifact, open_artifact
from tilewright.compiler.cli.output import megabytes, print_json, print_table
from tilewright.dialects.errors import OptionError


def run_inspect(model: Path, commands: str, *, module: bool, json: bool) -> None:
    """Print manifest, memory plan and kernels; or the tpu module; or one kernel's commands."""
    artifact = open_artifact(model)
    if module:
        print(artifact.module_text.rstrip())
    elif commands:
        _disassemble(artifact, commands, json=json)
    elif json:
        print_json(_document(artifact))
    else:
        _print(artifact)


def _launch_counts(artifact: Artifact) -> Counter[int]:
    return Counter(
        launch.kernel for function in artifact.program.functions for launch in function.launches
    )


def _disassemble(artifact: Artifact, name: str, *, json: bool) -> None:
    kernels = artifact.program.kernels
    found = [k for k in kernels if k.name == name] or [
        k for k in kernels if k.name.startswith(name)
    ]
    if not found:
        raise OptionError(
            f"no kernel is called {name!r}",
            hint=f"the kernels are {', '.join(sorted(k.name for k in kernels))}",
        )
    if json:
        print_json([{"kernel": k.name, "commands": disassemble(k).splitlines()} for k in found])
        return
    for kernel in found:
        print(disassemble(kernel).rstrip())


def _kernel_json(kernel: Kernel, launches: int) -> dict[str, object]:
    return {
        "name": kernel.name,
        "op": kernel.op,
        "launches": launches,
        "gdma_commands": len(kernel.gdma),
        "bdc_commands": len(kernel.bdc),
        "local_bytes": kernel.local_bytes,
    }


def _document(artifact: Artifact) -> dict[str, object]:
    manifest, program = artifact.manifest, artifact.program
    counts = _launch_counts(artifact)
    return {
        "format_version": manifest.format_version,
        "tilewright_version": manifest.tilewright_version,
        "model": manifest.model,
        "options": manifest.options,
        "pipeline": manifest.pipeline,
        "inputs": manifest.inputs,
        "chip": artifact.chip.name,
        "memory": [
            {"name": b.name, "address": b.address, "size_bytes": b.size_bytes, "kind": b.kind}
            for b in program.buffers
        ],
        "kernels": [_kernel_json(k, counts[i]) for i, k in enumerate(program.kernels)],
        "functions": [
            {
                "name": f.name,
                "launches": len(f.launches),
                "inputs": [
                    {"name": p.name, "shape": list(p.shape), "element": p.element.name}
                    for p in f.inputs
                ],
                "outputs": [
                    {"name": p.name, "shape": list(p.shape), "element": p.element.name}
                    for p in f.outputs
                ],
            }
            for f in program.functions
        ],
    }


def _in_short(value: Any) -> str:
    """A value of the manifest without what is listed in it, which --json has: of a calibration the
    method and the data, and how many layers have ranges, but no ranges."""
    if not isinstance(value, dict):
        return str(value)
    parts: dict[str, Any] = value
    return f"({', '.join(f'{name}: {_part(part)}' for name, part in parts.items())})"


def _part(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    return f"{len(value)} listed" if isinstance(value, (dict, list)) else str(value)


def _print(artifact: Artifact) -> None:
    manifest, program = artifact.manifest, artifact.program
    described = {**manifest.model, **manifest.options}
    print(" ".join(f"{name}={_in_short(value)}" for name, value in described.items()))
    print(
        f"format {manifest.format_version}, tilewright {manifest.tilewright_version}, "
        f"chip {artifact.chip.name}"
    )
    print("\nGlobal memory")
    by_kind: dict[str, list[int]] = {}
    for buffer in program.buffers:
        by_kind.setdefault(buffer.kind, []).append(buffer.size_bytes)
    last = program.buffers[-1]
    print_table(
        ("kind", "buffers", "bytes", "size"),
        [(k, len(v), sum(v), megabytes(sum(v))) for k, v in sorted(by_kind.items())],
    )
    print(
        f"from {program.buffers[0].address:#x} to {last.address + last.size_bytes:#x} "
        f"of {megabytes(artifact.chip.global_bytes)}"
    )
    print("\nFunctions")
    print_table(
        ("function", "launches", "inputs", "outputs"),
        [
            (
                f.name,
                len(f.launches),
                ", ".join(f"{p.name} {p.element.name}{list(p.shape)}" for p in f.inputs),
                ", ".join(f"{p.name} {p.element.name}{list(p.shape)}" for p in f.outputs),
            )
            for f in program.functions
        ],
    )
    print("\nKernels")
    counts = _launch_counts(artifact)
    print_table(
        ("kernel", "op", "launches", "GDMA commands", "BDC commands", "local bytes a lane"),
        [
            (k.name, k.op, counts[i], len(k.gdma), len(k.bdc), k.local_bytes)
            for i, k in enumerate(program.kernels)
        ],
    )
