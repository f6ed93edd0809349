"""`tw estimate` of ChatGLM2-6B: how long it takes, what it predicts, and the published silicon
figures beside it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from time import perf_counter

from timing import report

from tilewright.compiler.estimate import estimate
from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.synthetic import CHATGLM2_6B
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.silicon import language_model_measurements

SEQ = 512
SECONDS_LIMIT = 10.0
SPEED_UP_LEAST = 1.85
GDMA_BUSY_LEAST = 0.95
PREFILL_DIFFERENCE_MOST = 0.10


def main() -> None:
    """Print the predictions and check them against the limits."""
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(CHATGLM2_6B))
        model = load_model(path, seq=SEQ)
        rows = {
            quant: estimate("ChatGLM2-6B", model.module, SEQ, CompileOptions(quant))
            for quant in ("f16", "w8a16")
        }
    report("seconds for both", perf_counter() - start, SECONDS_LIMIT, "s")
    f16, w8a16 = rows["f16"], rows["w8a16"]
    speed_up = w8a16.decode_tokens_per_s / f16.decode_tokens_per_s
    report("decode speed-up, w8a16 over f16 (least, negated)", -speed_up, -SPEED_UP_LEAST, "x")
    for quant, row in rows.items():
        busy = row.decode.gdma_busy
        report(f"{quant} decode: GDMA busy (least, negated)", -busy, -GDMA_BUSY_LEAST)
    difference = abs(w8a16.prefill.cycles / f16.prefill.cycles - 1)
    report("prefill: w8a16 against f16", difference, PREFILL_DIFFERENCE_MOST)
    for m in language_model_measurements():
        if m.model == "ChatGLM2-6B" and m.quant in rows and m.seq_len == SEQ:
            row = rows[m.quant]
            print(
                f"{m.quant:6s} prefill {row.prefill.seconds:.3f} s (silicon {m.first_token_s}), "
                f"decode {row.decode_tokens_per_s:.2f} token/s (silicon {m.tokens_per_s})"
            )


if __name__ == "__main__":
    main()
