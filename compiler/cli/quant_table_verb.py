"""`tw quant-table`: which weight gets which scheme, as a table to edit; chosen by the user, or for
a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tilewright.compiler.cli.output import megabytes, print_json, print_table
from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.language_model import ImportedModel
from tilewright.compiler.pipeline import CompileOptions, chosen_schemes
from tilewright.compiler.quantization.choose import ChosenRow, choose_schemes
from tilewright.compiler.quantization.costs import model_cost
from tilewright.compiler.quantization.linear_weights import LinearWeight, linear_weights
from tilewright.compiler.quantization.sizes import bits_per_weight, stored_bytes
from tilewright.compiler.quantization.table import format_table, write_table


def run_quant_table(
    source: Path, output: Path | None, options: CompileOptions, *, seq: int, json: bool
) -> None:
    """Write or print the table that `options` give."""
    model = _load(source, seq)
    weights = linear_weights(model.module)
    assigned = chosen_schemes(weights, options, model.kept_as_packed(options.requantize))
    title = _title(model.name, weights, assigned)
    if output is not None:
        write_table(output, weights, assigned, title=title)
    if json:
        print_json(_document(output, weights, assigned))
    elif output is None:
        print(format_table(weights, assigned, title=title), end="")
    else:
        print(f"{output}: {title.partition(': ')[2]}")


def run_quant_target(
    source: Path, output: Path | None, options: CompileOptions, *, seq: int, json: bool
) -> None:
    """Choose schemes for the target of `options`, say what was chosen, and write it as a table."""
    model = _load(source, seq)
    chosen = choose_schemes(model, options)
    weights, assigned = chosen.weights, chosen.assigned
    title = f"{_title(model.name, weights, assigned)}, chosen for {chosen.target.text}"
    if output is not None:
        write_table(output, weights, assigned, title=title)
    cost = model_cost(model.module, options, assigned)
    if json:
        print_json(
            {
                **_document(output, weights, assigned),
                "target": chosen.target.text,
                "reached": chosen.allocation.reached,
                "predicted_error": chosen.allocation.error,
                "artifact_weight_bytes": cost.total_bytes,
                "decode_tokens_per_s": cost.tokens_per_s,
                "groups": chosen.groups_json(),
            }
        )
        return
    print(f"{title} (predicted; nothing was executed)")
    print_table(
        ("weights", "count", "scheme", "bits a weight", "SNR dB", "share of error"),
        map(_cells, chosen.rows()),
    )
    speed = "" if cost.tokens_per_s is None else f", {cost.tokens_per_s:.2f} token/s"
    print(f"all weights {megabytes(cost.total_bytes)}{speed}")
    if output is not None:
        print(f"written to {output}: tw compile --quant-table {output}")


def _cells(row: ChosenRow) -> tuple[object, ...]:
    numbers = f"{row.bits:.2f}", f"{row.snr_db:.1f}", f"{row.share:.1%}"
    return row.name, row.count, row.quant, *numbers


def _load(source: Path, seq: int) -> ImportedModel:
    """A model, or one by its configuration alone."""
    return load_model(source, seq=seq) if source.suffix == ".json" else open_source(source, seq)


def _title(name: str, weights: Mapping[str, LinearWeight], assigned: Mapping[str, str]) -> str:
    size = sum(stored_bytes(weights[key], quant) for key, quant in assigned.items())
    bits = bits_per_weight(weights, assigned)
    return f"{name}: {len(assigned)} weights, {bits:.2f} bits a weight, {megabytes(size)}"


def _document(
    output: Path | None, weights: Mapping[str, LinearWeight], assigned: Mapping[str, str]
) -> dict[str, object]:
    return {
        "table": None if output is None else str(output),
        "weights": dict(assigned),
        "bits_per_weight": bits_per_weight(weights, assigned),
        "weight_bytes": sum(stored_bytes(weights[key], q) for key, q in assigned.items()),
    }
