"""`tw compare`: every op against float64, against the float model, or against another artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.cli.output import print_json, print_table
from tilewright.compiler.cli.run_verb import parse_ids
from tilewright.compiler.compare import OpComparison, compare_function, first_out_of_bound
from tilewright.compiler.reports.artifact_runs import (
    DEFAULT_PROMPT_TOKENS,
    OpenModel,
    made_up_inputs,
)
from tilewright.compiler.reports.figures import finite
from tilewright.dialects.errors import AccuracyError, OptionError

Array = npt.NDArray[Any]

TOP = 20
"""Rows of a report of errors, unless all are asked for."""


def run_compare(
    model: Path,
    prompt_ids: str,
    function: str,
    *,
    source: Path | None,
    against: Path | None,
    tolerance: str,
    data: Path | None,
    samples: int | None,
    seed: int,
    all_ops: bool,
    sort: str,
    html: Path | None,
    json: bool,
) -> None:
    """Print how every op compares; raises `AccuracyError` at the first op out of its bound, or
    where the artifact is worse than `against` by more than `tolerance`."""
    if against is None and source is None:
        if data is not None or html is not None:
            raise OptionError(
                f"--{'html' if data is None else 'data'} is for a comparison with another model",
                hint="--source CHECKPOINT"
                if data is None
                else "--source CHECKPOINT or --against OLD.twm",
            )
        _check(model, prompt_ids, function, seed=seed, all_ops=all_ops, json=json)
        return
    from tilewright.compiler.cli.compare_source import (
        compare_with_source,
        print_errors,
        run_against,
    )
    from tilewright.compiler.reports.artifact_runs import Inputs
    from tilewright.compiler.reports.tolerance import Tolerance

    inputs = Inputs(parse_ids(prompt_ids), data, function, seed, samples)
    if against is not None:
        if html is not None:
            raise OptionError(
                "--html is not for --against",
                hint="tw compare --source CHECKPOINT --html writes the page of one artifact",
            )
        limits = Tolerance.parse(tolerance)
        top = 1 << 30 if all_ops else TOP
        run_against(model, against, inputs, limits, source=source, top=top, json=json)
        return
    assert source is not None
    errors, checked, rows = compare_with_source(model, source, inputs, html=html, sort=sort)
    worst = first_out_of_bound(checked)
    if json:
        print_json(
            {
                "ok": worst is None,
                "ops": [row.to_json() for row in checked],
                "errors": [row.to_json() for row in rows],
                "outputs": [
                    {"function": f, "name": n, "snr_db": finite(s.snr_db), "cosine": s.cosine}
                    for (f, n), s in errors.outputs.items()
                ],
            }
        )
    else:
        print_errors(errors, rows, len(rows) if all_ops else TOP)
        _print_bounds(checked)
        if html is not None:
            print(f"written to {html}")
    _raise_out_of_bound(worst)


def _check(
    path: Path, prompt_ids: str, function: str, *, seed: int, all_ops: bool, json: bool
) -> None:
    """Every op against float64."""
    model = OpenModel.of(path)
    if function and function not in model.functions:
        raise OptionError(
            f"{path} has no function {function!r}", hint=f"it has {', '.join(model.functions)}"
        )
    rows: list[OpComparison] = []
    if model.is_language_model:
        rows = _compare_language_model(model, prompt_ids, function, seed)
    else:
        rng = np.random.default_rng(seed)
        for each in model.functions.values():
            if function in ("", each.name):
                inputs = made_up_inputs(each, rng)
                rows += compare_function(model.session, model.module, each.name, inputs)[1]
    worst = first_out_of_bound(rows)
    if json:
        print_json({"ok": worst is None, "ops": [row.to_json() for row in rows]})
    else:
        _print(rows, all_ops=all_ops)
    _raise_out_of_bound(worst)


def _raise_out_of_bound(worst: OpComparison | None) -> None:
    if worst is not None:
        raise AccuracyError(
            f"{worst.name} ({worst.op}) is out of its error bound in {worst.function}",
            where=worst.source or None,
            why=f"error {worst.worst_error:.3g} where {worst.worst_bound:.3g} is allowed "
            f"({worst.ratio:.2f} times the bound)",
            hint="this is the first op, in order of execution, that leaves its bound",
        )


def _compare_language_model(
    model: OpenModel, prompt_ids: str, function: str, seed: int
) -> list[OpComparison]:
    language_model = model.language_model()
    prompt = parse_ids(prompt_ids)
    if not prompt:
        count = min(DEFAULT_PROMPT_TOKENS, language_model.seq - 1)
        rng = np.random.default_rng(seed)
        prompt = [int(i) for i in rng.integers(0, model.vocabulary, max(count, 1))]
    language_model.check_prompt(prompt, 2 if language_model.seq > 1 else 1)

    def compared(name: str, inputs: Mapping[str, Array]) -> tuple[Array, list[OpComparison]]:
        outputs, rows = compare_function(model.session, model.module, name, inputs)
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
    _print_bounds(rows)


def _print_bounds(rows: list[OpComparison]) -> None:
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
