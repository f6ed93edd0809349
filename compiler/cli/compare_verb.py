"""`tw compare`: every op against float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.program import Function
from tilewright.compiler.artifact import Artifact, open_artifact
from tilewright.compiler.cli.output import print_json, print_table
from tilewright.compiler.cli.run_verb import language_model_of, parse_ids, session_of
from tilewright.compiler.compare import OpComparison, compare_function, first_out_of_bound
from tilewright.dialects.context import parse_module
from tilewright.dialects.errors import AccuracyError, OptionError

Array = npt.NDArray[Any]

DEFAULT_PROMPT_TOKENS = 5


def run_compare(
    model: Path, prompt_ids: str, function: str, *, seed: int, all_ops: bool, json: bool
) -> None:
    """Print how every op compares; raises `AccuracyError` at the first op out of its bound."""
    artifact = open_artifact(model)
    module = parse_module(artifact.module_text, f"{model}:module.mlir")
    names = [f.name for f in artifact.program.functions]
    if function and function not in names:
        raise OptionError(
            f"{model} has no function {function!r}", hint=f"it has {', '.join(names)}"
        )
    rows: list[OpComparison] = []
    if {"prefill", "decode"} <= set(names):
        rows = _compare_language_model(artifact, module, model, prompt_ids, function, seed)
    else:
        session = session_of(artifact)
        rng = np.random.default_rng(seed)
        for each in artifact.program.functions:
            if function in ("", each.name):
                inputs = made_up_inputs(each, rng)
                rows += compare_function(session, module, each.name, inputs)[1]
    worst = first_out_of_bound(rows)
    if json:
        print_json({"ok": worst is None, "ops": [row.to_json() for row in rows]})
    else:
        _print(rows, all_ops=all_ops)
    if worst is not None:
        raise AccuracyError(
            f"{worst.name} ({worst.op}) is out of its error bound in {worst.function}",
            where=worst.source or None,
            why=f"error {worst.worst_error:.3g} where {worst.worst_bound:.3g} is allowed "
            f"({worst.ratio:.2f} times the bound)",
            hint="this is the first op, in order of execution, that leaves its bound",
        )


def made_up_inputs(function: Function, rng: np.random.Generator) -> dict[str, Array]:
    """Random inputs: standard normal floats, index 0 for integers."""
    return {
        port.name: rng.standard_normal(port.shape)
        if port.element.is_float
        else np.zeros(port.shape, np.int32)
        for port in function.inputs
    }


def _compare_language_model(
    artifact: Artifact, module: Any, path: Path, prompt_ids: str, function: str, seed: int
) -> list[OpComparison]:
    language_model = language_model_of(artifact, path)
    vocabulary = int(artifact.manifest.model["vocab_size"])
    prompt = parse_ids(prompt_ids)
    if not prompt:
        count = min(DEFAULT_PROMPT_TOKENS, language_model.seq - 1)
        rng = np.random.default_rng(seed)
        prompt = [int(i) for i in rng.integers(0, vocabulary, max(count, 1))]
    language_model.check_prompt(prompt, 2 if language_model.seq > 1 else 1)
    session = language_model.session

    def compared(name: str, inputs: Mapping[str, Array]) -> tuple[Array, list[OpComparison]]:
        outputs, rows = compare_function(session, module, name, inputs)
        return next(iter(outputs.values())), rows

    logits, prefill_rows = compared("prefill", language_model.prefill_inputs(prompt))
    if function == "prefill":
        return prefill_rows
    token = int(np.argmax(logits[0]))
    _, decode_rows = compared("decode", language_model.decode_inputs(token, len(prompt)))
    return decode_rows if function == "decode" else prefill_rows + decode_rows


def _print(rows: list[OpComparison], *, all_ops: bool) -> None:
    groups: dict[tuple[str, str], list[OpComparison]] = {}
    for row in rows:
        key = (row.function, row.name if all_ops else row.op)
        groups.setdefault(key, []).append(row)
    print_table(
        (
            "function",
            "op",
            "executed",
            "least cosine",
            "least SNR dB",
            "worst error/bound",
            "worst at",
        ),
        [_cells(function, name, group) for (function, name), group in groups.items()],
    )
    inside = sum(row.in_bound for row in rows)
    print(f"{inside} of {len(rows)} ops within their error bound of float64")


def _cells(function: str, name: str, group: Iterable[OpComparison]) -> tuple[object, ...]:
    members = list(group)
    worst = max(members, key=lambda row: row.ratio)
    snr = min(row.snr_db for row in members)
    return (
        function,
        name,
        len(members),
        f"{min(row.cosine for row in members):.8f}",
        f"{snr:.1f}" if np.isfinite(snr) else "exact",
        f"{worst.ratio:.3f}",
        worst.name,
    )
