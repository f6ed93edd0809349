"""`tw compile`: a checkpoint or top IR into an artifact."""

from __future__ import annotations

from pathlib import Path

from tilewright.compiler.cli.output import log, megabytes, print_json
from tilewright.compiler.compile import compile_to_artifact
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.quantization.choose import ChosenSchemes
from tilewright.compiler.weights.materialize import WeightProgress


def run_compile(
    source: Path,
    output: Path,
    options: CompileOptions,
    *,
    seq: int,
    quiet: bool,
    json: bool,
) -> None:
    """Compile, with a line on stderr for every stage and tensor."""

    def stage(name: str, seconds: float) -> None:
        if not quiet:
            log(f"[{name}] {seconds:.2f} s")

    def weight(done: WeightProgress) -> None:
        if not quiet:
            log(weight_line(done))

    def choice(chosen: ChosenSchemes) -> None:
        if not quiet:
            for line in chosen.lines():
                log(line)

    compiled = compile_to_artifact(
        source, output, options, seq=seq, on_stage=stage, on_weight=weight, on_choice=choice
    )
    if compiled.tuning is not None and not quiet:
        for line in compiled.tuning.lines():
            log(line)
    if json:
        print_json(
            {
                "artifact": str(compiled.path),
                "artifact_bytes": compiled.artifact_bytes,
                "weight_bytes": compiled.weight_bytes,
                "memory_bytes": compiled.memory_bytes,
                "quant": options.quant,
                "seq": seq,
                "chip": options.chip,
                "kernels": compiled.kernels,
                "launches": dict(compiled.launches),
                "f32_scales": compiled.f32_scales,
                "quant_target": None if compiled.chosen is None else compiled.chosen.to_json(),
                "tuning": None if compiled.tuning is None else compiled.tuning.to_json(),
                "stages_s": dict(compiled.stages_s),
            }
        )
        return
    launches = ", ".join(f"{count} launches of {name}" for name, count in compiled.launches.items())
    print(
        f"{compiled.path}: {megabytes(compiled.artifact_bytes)}, {compiled.kernels} kernels, "
        f"{launches}, {megabytes(compiled.memory_bytes)} of global memory"
    )


def weight_line(done: WeightProgress) -> str:
    """One tensor's progress, in the form of llama-quantize; what it becomes is a scheme or a
    type."""
    shape = " x ".join(str(size) for size in done.shape)
    target = done.scheme or done.element.name
    return (
        f"[{done.index:4d}/{done.total:4d}] {done.name:60s} {shape:>15s} "
        f"{done.source_dtype.lower():>5s} -> {target:11s} {megabytes(done.size_bytes):>10s}"
    )
