"""ChatGLM2-6B at full size: a synthetic 12.5 GB checkpoint compiled to w8a16, and one decode step
executed.

Peers in the same run: copying the checkpoint's files and reading the copies again (compile time);
the f16 weights' size (artifact size); torch's `_weight_int8pack_mm` over the same weights (decode
step). Needs about 35 GB of disk in the folder that is given, and torch for the last part.

    python benchmarks/full_size.py FOLDER [--layers N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from timing import peak_rss_bytes, report

from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.cli.run_verb import language_model_of
from tilewright.compiler.importers.synthetic import CHATGLM2_6B, write_checkpoint

SEQ = 512
COPY_RATIO_LIMIT = 2.5
RSS_LIMIT_GB = 2.0
SIZE_RATIO_LIMIT = 0.55
TORCH_RATIO_LIMIT = 3.0
READ_BYTES = 16 << 20
STEPS = 3


def copy_and_reread(source: Path, target: Path) -> float:
    """Seconds to copy every file of a folder and read the copies."""
    start = perf_counter()
    shutil.copytree(source, target)
    buffer = bytearray(READ_BYTES)
    for path in sorted(target.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    elapsed = perf_counter() - start
    shutil.rmtree(target)
    return elapsed


COMPILE = """
import sys, json, resource, time
from pathlib import Path
from tilewright.compiler.compile import compile_to_artifact
from tilewright.compiler.pipeline import CompileOptions
start = time.perf_counter()
source, target, seq = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
made = compile_to_artifact(source, target, CompileOptions("w8a16"), seq=seq)
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "bytes": made.artifact_bytes,
    "stages": dict(made.stages_s),
}))
"""


def compile_part(checkpoint: Path, artifact: Path, folder: Path) -> None:
    """Compile in a process of its own, beside the copy."""
    before = copy_and_reread(checkpoint, folder / "copy")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(checkpoint), str(artifact), str(SEQ)],
        capture_output=True,
        text=True,
        check=True,
    )
    made = json.loads(done.stdout)
    after = copy_and_reread(checkpoint, folder / "copy")
    copy = (before + after) / 2
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in made["stages"].items())
    print(
        f"compile {made['seconds']:.1f} s ({stages}); "
        f"copy and re-read {before:.1f} and {after:.1f} s"
    )
    size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    report("compile / (copy + re-read)", made["seconds"] / copy, COPY_RATIO_LIMIT, "x")
    report("peak resident memory", made["rss"] / 1e9, RSS_LIMIT_GB, "GB")
    report("artifact / f16 weights", made["bytes"] / size, SIZE_RATIO_LIMIT, "x")


def decode_part(path: Path) -> None:
    """Execute decode steps, with every command, beside torch over the same weights."""
    start = perf_counter()
    artifact = open_artifact(path)
    print(f"open and verify the artifact: {perf_counter() - start:.1f} s")
    language_model = language_model_of(artifact, path)
    language_model.session.fill_states(0)
    simulated: list[float] = []
    for step in range(STEPS):
        start = perf_counter()
        language_model.decode(1000 + step, step)
        simulated.append(perf_counter() - start)
    peer = torch_seconds(artifact)
    print(f"decode steps {', '.join(f'{s:.2f}' for s in simulated)} s; torch {peer:.2f} s")
    report("decode step / torch _weight_int8pack_mm", min(simulated) / peer, TORCH_RATIO_LIMIT, "x")
    print(
        f"peak resident memory of this process {peak_rss_bytes() / 1e9:.2f} GB (weights are mapped)"
    )


def torch_seconds(artifact: object) -> float:
    """Seconds that torch takes for all quantized weights of the artifact, once warmed up (best of
    `STEPS`).
    """
    import torch

    from tilewright.compiler.artifact import Artifact

    assert isinstance(artifact, Artifact)
    operands: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for name in artifact.weights():
        if name.endswith(".codes"):
            codes = torch.from_numpy(np.array(artifact.weight(name)))
            scale = np.array(artifact.weight(name.removesuffix("codes") + "scale"))
            x = torch.randn(1, codes.shape[1], dtype=torch.bfloat16)
            operands.append(
                (x, codes, torch.from_numpy(scale.astype(np.float32)).to(torch.bfloat16))
            )
    best = float("inf")
    for _ in range(STEPS):
        start = perf_counter()
        for x, codes, scale in operands:
            torch.ops.aten._weight_int8pack_mm(x, codes, scale.reshape(-1))
        best = min(best, perf_counter() - start)
    return best


def main() -> None:
    """Write the checkpoint if it is not there, compile, decode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=28)
    options = parser.parse_args()
    checkpoint: Path = options.folder / f"chatglm2-{options.layers}"
    artifact: Path = options.folder / f"chatglm2-{options.layers}.twm"
    if not (checkpoint / "config.json").is_file():
        write_checkpoint(checkpoint, {**CHATGLM2_6B, "num_layers": options.layers})
    compile_part(checkpoint, artifact, options.folder)
    decode_part(artifact)


if __name__ == "__main__":
    main()
