"""`tw quant-table`: which weight gets which scheme, as a table to edit; chosen by the user, or for
a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from math import log10
from pathlib import Path

from tilewright.compiler.cli.output import megabytes, print_json, print_table
from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.language_model import ImportedModel
from tilewright.compiler.pipeline import CompileOptions, chosen_schemes
from tilewright.compiler.quantization.costs import model_cost
from tilewright.compiler.quantization.layer_error import LayerErrors, Statistics
from tilewright.compiler.quantization.linear_weights import LinearWeight, linear_weights
from tilewright.compiler.quantization.sizes import bits_per_weight, stored_bytes
from tilewright.compiler.quantization.table import format_table, write_table
from tilewright.compiler.quantization.targets import (
    PER,
    Allocation,
    Target,
    allocate_to,
    candidates_of,
    undecided,
)
from tilewright.dialects.errors import OptionError


def run_quant_table(
    source: Path, output: Path | None, options: CompileOptions, *, seq: int, json: bool
) -> None:
    """Write or print the table that `options` give."""
    model = _load(source, seq)
    weights = linear_weights(model.module)
    assigned = chosen_schemes(weights, options, model.packed)
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
    source: Path,
    output: Path | None,
    options: CompileOptions,
    target: Target,
    candidates: Sequence[str],
    *,
    per: str,
    seq: int,
    json: bool,
) -> None:
    """Choose schemes for a target, say what was chosen, and write it as a table."""
    if per not in PER:
        raise OptionError(f"--quant-target-per {per!r}", hint=" or ".join(PER))
    model = _load(source, seq)
    weights = linear_weights(model.module)
    free = undecided(weights, options, model.packed)
    possible = candidates_of(free, candidates, options)
    statistics = _statistics(options.calibration, free)
    has_weights = any(model.weights.glob("*.safetensors")) or model.weights.is_file()
    with model.open_weights() if has_weights else nullcontext() as container:
        predicted = LayerErrors(container, options.choice.compute)
        errors = {
            key: dict(
                zip(quants, predicted.of(free[key], list(quants), statistics(key)), strict=True)
            )
            for key, quants in possible.items()
        }
    allocation = allocate_to(
        target, model.module, weights, options, errors, per=per, packed=model.packed
    )
    title = f"{_title(model.name, weights, allocation.assigned)}, chosen for {target.text}"
    if output is not None:
        write_table(output, weights, allocation.assigned, title=title)
    cost = model_cost(model.module, options, allocation.assigned)
    if json:
        print_json(
            {
                **_document(output, weights, allocation.assigned),
                "target": target.text,
                "reached": allocation.reached,
                "predicted_error": allocation.error,
                "artifact_weight_bytes": cost.total_bytes,
                "decode_tokens_per_s": cost.tokens_per_s,
                "groups": _groups_json(allocation),
            }
        )
        return
    print(f"{title} (predicted; nothing was executed)")
    print_table(
        ("weights", "count", "scheme", "bits a weight", "SNR dB", "share of error"),
        _rows(allocation, weights),
    )
    speed = "" if cost.tokens_per_s is None else f", {cost.tokens_per_s:.2f} token/s"
    print(f"all weights {megabytes(cost.total_bytes)}{speed}")
    if output is not None:
        print(f"written to {output}: tw compile --quant-table {output}")


def _load(source: Path, seq: int) -> ImportedModel:
    """A model, or one by its configuration alone."""
    return load_model(source, seq=seq) if source.suffix == ".json" else open_source(source, seq)


def _statistics(path: str, keys: Iterable[str]) -> Callable[[str], Statistics | None]:
    """What is known of the inputs of a layer, by the key of its weight; nothing if no calibration
    is given. Raises `OptionError` for one that kept no statistics of a layer."""
    if not path:
        return lambda key: None
    from tilewright.compiler.calibration import load_calibration

    calibration = load_calibration(Path(path))
    lacking = next((key for key in keys if calibration.statistics(key) is None), None)
    if lacking is not None:
        raise OptionError(
            f"the calibration has no statistics of the inputs of {lacking}",
            where=path,
            hint="run tw calibrate with --statistics or --hessian",
        )
    return calibration.statistics


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


def _rows(allocation: Allocation, weights: Mapping[str, LinearWeight]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    total = allocation.error
    for group, index in zip(allocation.groups, allocation.chosen, strict=True):
        quant, error = group.candidates[index], group.choices[index].error
        bits = bits_per_weight(weights, dict.fromkeys(group.keys, quant))
        snr = -10 * log10(error / len(group.keys)) if error else float("inf")
        share = error / total if total else 0.0
        rows.append(
            (group.name, len(group.keys), quant, f"{bits:.2f}", f"{snr:.1f}", f"{share:.1%}")
        )
    return rows


def _groups_json(allocation: Allocation) -> list[dict[str, object]]:
    return [
        {
            "weights": group.name,
            "count": len(group.keys),
            "scheme": group.candidates[index],
            "predicted_error": group.choices[index].error,
        }
        for group, index in zip(allocation.groups, allocation.chosen, strict=True)
    ]
