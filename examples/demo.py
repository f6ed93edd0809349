"""The main job from end to end: `make demo`.

Writes a small checkpoint in ChatGLM2's real layout (seeded random weights), compiles it in f16 and
w8a16, generates tokens on the simulated TPU, compares every op with float64, and predicts the real
ChatGLM2-6B from its configuration alone. Every step is a `tw` command that you can run by hand.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from tilewright.compiler.cli import run
from tilewright.compiler.cli.output import megabytes, print_table
from tilewright.compiler.importers.synthetic import CHATGLM2_6B, CHATGLM_DEMO, write_checkpoint
from tilewright.compiler.silicon import language_model_measurements

SEQ = 128
PROMPT = "64,127,790,30,5"
NEW_TOKENS = 8


def tw(arguments: str) -> None:
    """Run a `tw` command and show it."""
    print(f"\n$ tw {arguments}", flush=True)
    code = run(shlex.split(arguments))
    if code:
        sys.exit(code)


def tw_json(arguments: str) -> Any:
    """Run a `tw` command and return what it prints with `--json`."""
    captured = io.StringIO()
    with contextlib.redirect_stdout(captured):
        code = run(shlex.split(arguments + " --json"))
    if code:
        sys.exit(code)
    return json.loads(captured.getvalue())


def small_model(folder: Path) -> None:
    """Compile, run and compare the small checkpoint in both precisions."""
    checkpoint = folder / "chatglm2-small"
    write_checkpoint(checkpoint, CHATGLM_DEMO, dtype="f16", seed=0)
    files = ", ".join(sorted(path.name for path in checkpoint.iterdir()))
    print(f"A checkpoint in ChatGLM2's layout: {files}")
    results: dict[str, tuple[int, dict[str, Any]]] = {}
    for quant in ("f16", "w8a16"):
        artifact = folder / f"{quant}.twm"
        tw(f"compile {checkpoint} --quant {quant} --seq {SEQ} --quiet -o {artifact}")
        tw(f"run {artifact} --prompt-ids {PROMPT} --max-new-tokens {NEW_TOKENS}")
        tw(f"compare {artifact} --prompt-ids {PROMPT}")
        row = tw_json(f"run {artifact} --prompt-ids {PROMPT} --max-new-tokens {NEW_TOKENS}")
        results[quant] = artifact.stat().st_size, row
    print("\nThe small model on the simulated BM1684X:")
    size, base = results["f16"]
    print_table(
        ("quant", "artifact", "prefill cycles", "speed-up", "decode cycles", "token/s", "speed-up"),
        [
            (
                quant,
                megabytes(bytes_on_disk),
                row["prefill_cycles"],
                f"{base['prefill_cycles'] / row['prefill_cycles']:.2f} x",
                row["decode_cycles_per_token"],
                f"{row['decode_tokens_per_s']:.1f}",
                f"{base['decode_cycles_per_token'] / row['decode_cycles_per_token']:.2f} x",
            )
            for quant, (bytes_on_disk, row) in results.items()
        ],
    )
    ratio = results["w8a16"][0] / size
    print(f"The w8a16 artifact is {ratio:.2f} of the f16 one.")


def real_model(folder: Path) -> None:
    """Predict ChatGLM2-6B and put the published silicon figures beside it."""
    config = folder / "chatglm2-6b" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(CHATGLM2_6B))
    tw(f"estimate {config} --quant f16,w8a16 --seq 512")
    rows = {row["quant"]: row for row in tw_json(f"estimate {config} --quant f16,w8a16 --seq 512")}
    print("\nChatGLM2-6B at 512 positions: predicted, and as published for real BM1684X silicon:")
    measured = [
        m
        for m in language_model_measurements()
        if m.model == "ChatGLM2-6B" and m.quant in rows and m.seq_len == 512
    ]
    print_table(
        ("quant", "prefill s", "silicon", "token/s", "silicon", "predicted / silicon"),
        [
            (
                m.quant,
                f"{rows[m.quant]['prefill_s']:.2f}",
                m.first_token_s,
                f"{rows[m.quant]['decode_tokens_per_s']:.2f}",
                m.tokens_per_s,
                f"{rows[m.quant]['decode_tokens_per_s'] / m.tokens_per_s:.2f}",
            )
            for m in measured
        ],
    )


def main() -> None:
    """Run the demo in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        small_model(Path(folder))
        real_model(Path(folder))


if __name__ == "__main__":
    main()
