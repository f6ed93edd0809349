"""`tw estimate`: size, fit and speed from a configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tilewright.compiler.cli.output import log, megabytes, percent, print_json, print_table
from tilewright.compiler.estimate import Estimate, estimate
from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.pipeline import CompileOptions
from tilewright.dialects.quantization import DEFAULT_SCHEME, DENSE

COLUMNS = (
    "quant",
    "weights",
    "memory",
    "fits",
    "prefill s",
    "bound",
    "token/s",
    "bound",
    "GDMA busy",
    "BDC busy",
    "speed-up",
)


def run_estimate(
    source: Path, quants: Sequence[str], common: CompileOptions, *, seq: int, json: bool
) -> None:
    """Print a row for each of `quants`, with what is `common` to them but for `quant`. What
    is said of head and embedding is for those that quantize. Without `quants`, it is f16 and
    w8a16, or for a checkpoint that is quantized already, as it is."""
    model = load_model(source, seq=seq)
    if not quants:
        quants = (common.act,) if model.packed else ("f16", DEFAULT_SCHEME)
    options = [
        replace(common, quant=quant)
        if quant not in DENSE
        else replace(common, quant=quant, quant_head=False, quant_embedding=False)
        for quant in quants
    ]
    rows = [estimate(model.name, model.module, seq, each, model.packed) for each in options]
    if json:
        print_json([row.to_json() for row in rows])
        return
    first = rows[0]
    print(f"{first.model} on {first.chip}, {seq} positions (predicted; nothing was executed)")
    print_table(COLUMNS, [table_row(row, first) for row in rows])
    for row in rows:
        if not row.fits:
            log(
                f"{row.quant} does not fit: {row.memory_bytes - row.global_bytes:,} bytes "
                f"more than the {row.global_bytes:,} of {row.chip}"
            )


def table_row(row: Estimate, first: Estimate) -> tuple[object, ...]:
    """The cells of `COLUMNS`; the speed-up is of decode, against the first row."""
    return (
        row.quant,
        megabytes(row.weight_bytes),
        megabytes(row.memory_bytes),
        row.fits,
        f"{row.prefill.seconds:.3f}",
        row.prefill.bound,
        f"{row.decode_tokens_per_s:.2f}",
        row.decode.bound,
        percent(row.decode.gdma_busy),
        percent(row.decode.bdc_busy),
        f"{row.decode_tokens_per_s / first.decode_tokens_per_s:.2f} x",
    )
