"""`tw compare --source` and `--against`: errors against the float model, and what has become worse
from one artifact to the next."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tilewright.compiler.calibration import model_fingerprint
from tilewright.compiler.calibration.data import check_vocabulary, read_tokens
from tilewright.compiler.cli.output import percent, print_json, print_table
from tilewright.compiler.compare import Execution, OpComparison, compare
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.language_model import ImportedModel
from tilewright.compiler.output import write_atomically
from tilewright.compiler.perplexity import measure_perplexity, windows_of
from tilewright.compiler.reports.artifact_runs import Inputs, OpenModel
from tilewright.compiler.reports.figures import decibels
from tilewright.compiler.reports.model_error import ModelErrors, OpError, model_errors
from tilewright.compiler.reports.prediction import set_predictions
from tilewright.compiler.reports.reference_runs import (
    Reference,
    program_reference,
    source_reference,
)
from tilewright.compiler.reports.tolerance import Change, Tolerance, changes, perplexity_change
from tilewright.compiler.runtime import SCORE
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.context import make_context
from tilewright.dialects.errors import AccuracyError, OptionError
from tilewright.passes.add_score_function import AddScoreFunctionPass

SORTS = ("snr", "share", "order")


@contextmanager
def _source_reference(source: Path, model: OpenModel) -> Generator[Reference]:
    """The float model that an artifact was compiled from, with the artifact's functions."""
    imported: ImportedModel = open_source(
        source, model.positions if model.is_language_model else 512
    )
    if SCORE in model.functions:
        module = imported.module.clone()
        AddScoreFunctionPass().apply(make_context(), module)
        imported = replace(imported, module=module)
    with imported.open_weights() as weights:
        _check_source(source, imported, weights, model)
        yield source_reference(imported, weights)


def _check_source(
    path: Path, imported: ImportedModel, weights: WeightSource, model: OpenModel
) -> None:
    """Raise `OptionError` where the artifact was compiled from other weights."""
    compiled = model.artifact.manifest.model.get("fingerprint")
    found = model_fingerprint(imported.module, weights)
    if compiled != found:
        raise OptionError(
            f"{path} is not what the artifact was compiled from",
            why=f"the fingerprint of its weights is {found}, the artifact's {compiled}",
            hint="give the checkpoint that tw compile was given",
        )


def compare_with_source(
    path: Path, source: Path, inputs: Inputs, *, html: Path | None, sort: str
) -> tuple[ModelErrors, list[OpComparison], list[OpError]]:
    """The errors of all ops against the float model, the check of the first run of each function
    against float64, and the errors' rows as they are to be shown."""
    if sort not in SORTS:
        raise OptionError(f"--sort {sort!r}", hint=f"one of {', '.join(SORTS)}")
    model = OpenModel.of(path)
    runs = inputs.runs(model)
    checked: dict[str, list[OpComparison]] = {}
    # The first run of each function is judged op by op, too.
    lengths = {run.function: _executions(model, run.function) for run in runs}

    def on_op(execution: Execution) -> None:
        rows = checked.setdefault(execution.function, [])
        if len(rows) < lengths[execution.function]:
            rows.append(compare(execution))

    with _source_reference(source, model) as reference:
        errors = model_errors(model.session, model.module, reference, runs, on_op=on_op)
        set_predictions(errors, reference.module, model.activations)
    rows = sorted_rows(errors, sort)
    if html is not None:
        from tilewright.compiler.reports.page import errors_page

        name = str(model.artifact.manifest.model.get("name", path.stem))
        write_atomically(html, errors_page(name, path.name, errors).encode())
    return errors, [row for rows in checked.values() for row in rows], rows


def _executions(model: OpenModel, function: str) -> int:
    return len(model.session.function(function).launches)


def sorted_rows(errors: ModelErrors, sort: str) -> list[OpError]:
    """All rows in the order that is asked for, worst first."""
    rows = list(errors.rows.values())
    if sort == "snr":
        rows.sort(key=lambda row: row.sums.snr_db)
    elif sort == "share":
        rows.sort(key=lambda row: -(row.share or 0.0))
    return rows


def print_errors(errors: ModelErrors, rows: Sequence[OpError], top: int) -> None:
    """The table of `tw compare --source`."""
    columns = ("function", "op", "kind", "scheme", "SNR: formula", "measured")
    more = ("cosine", "by itself", "share", "worst channel")
    print_table((*columns, *more), [_cells(row) for row in rows[:top]])
    if len(rows) > top:
        print(f"(the first {top} of {len(rows)}; --all shows all)")
    print(
        "SNR in dB against the unquantized float model, errors accumulated; by itself: what the "
        "layer makes of the inputs that it got; share: of the errors that layers make."
    )
    for (function, name), sums in errors.outputs.items():
        print(f"{function}: {name} has {_db(sums.snr_db)} dB, cosine {sums.cosine:.8f}")
    if errors.without:
        kinds = sorted({f"{key.kind} {key.name}" for key in errors.without})
        print(f"without a counterpart in the source: {', '.join(kinds)}")


def _cells(row: OpError) -> tuple[object, ...]:
    worst = row.sums.worst_channel
    return (
        row.key.function,
        row.key.name,
        row.op,
        row.scheme,
        "-" if row.predicted is None else _db(decibels(row.predicted)),
        _db(row.sums.snr_db),
        f"{row.sums.cosine:.6f}",
        "-" if row.own is None else _db(row.own.snr_db),
        "-" if row.share is None else percent(row.share),
        f"{worst} ({_db(float(row.sums.channel_snr_db[worst]))})",
    )


def _db(value: float) -> str:
    return "exact" if value == float("inf") else f"{value:.1f}"


def run_against(
    path: Path,
    against: Path,
    inputs: Inputs,
    tolerance: Tolerance,
    *,
    source: Path | None,
    top: int,
    json: bool,
) -> None:
    """Compare two artifacts; raises `AccuracyError` where the newer one is worse than allowed."""
    new, old = OpenModel.of(path), OpenModel.of(against)
    check_alike(new, old)
    if inputs.data is not None and SCORE in new.functions and SCORE not in old.functions:
        inputs = replace(inputs, function=inputs.function or "prefill")
    found = _changes(new, old, inputs, tolerance, source)
    if "perplexity" in tolerance.limits:
        before, after = _perplexity(old, inputs), _perplexity(new, inputs)
        found.insert(0, perplexity_change(before, after, tolerance.limits["perplexity"]))
    worse = [each for each in found if each.is_regression]
    if json:
        print_json({"ok": not worse, "changes": [each.to_json() for each in found]})
    else:
        _print_changes(found, worse, top)
    if worse:
        first = worse[0]
        raise AccuracyError(
            f"{path.name} is less accurate than {against.name}: {len(worse)} of {len(found)} "
            "figures are beyond the tolerance",
            where=f"{first.name} ({first.op or first.figure}) in {first.function}",
            why=f"{first.figure} was {first.old:.6g} and is {first.new:.6g}: worse by "
            f"{first.worse_by:.3g}, where {first.limit:g} is allowed",
            hint=_schemes_hint(first),
        )


def _schemes_hint(change: Change) -> str | None:
    if change.old_scheme == change.new_scheme:
        return None
    return f"it was {change.old_scheme} and is {change.new_scheme}"


def _changes(
    new: OpenModel, old: OpenModel, inputs: Inputs, tolerance: Tolerance, source: Path | None
) -> list[Change]:
    if not set(tolerance.limits) - {"perplexity"}:
        return []
    runs = inputs.runs(new)
    measured: list[ModelErrors] = []
    for model in (old, new):
        if source is None:
            what = f"{old.path} in float64"
            reference = program_reference(old.session, old.module, what)
            measured.append(model_errors(model.session, model.module, reference, runs))
            continue
        with _source_reference(source, model) as reference:
            measured.append(model_errors(model.session, model.module, reference, runs))
    return changes(measured[0], measured[1], tolerance)


def check_alike(new: OpenModel, old: OpenModel) -> None:
    """Raise `OptionError` where two artifacts are not of one model in one size."""
    sides = [dict(model.artifact.manifest.model) for model in (new, old)]
    different = [
        f"{name} is {sides[0].get(name)} in {new.path} and {sides[1].get(name)} in {old.path}"
        for name in sorted({*sides[0], *sides[1]} - {"name"})
        if sides[0].get(name) != sides[1].get(name)
    ]
    if not different:
        for name in new.functions.keys() & old.functions.keys():
            ports = [[(p.name, p.shape) for p in m.functions[name].inputs] for m in (new, old)]
            if ports[0] != ports[1]:
                different.append(f"{name} takes {ports[0]} and {ports[1]}")
        if not new.functions.keys() & old.functions.keys():
            different.append("they have no function in common")
    if different:
        raise OptionError(
            "the artifacts are not of one model in one size",
            why="; ".join(different),
            hint="compare two compilations of the same model",
        )


def _perplexity(model: OpenModel, inputs: Inputs) -> float:
    if inputs.data is None or inputs.data.suffix == ".npz":
        raise OptionError("a tolerance of perplexity needs text", hint="--data tokens.jsonl")
    if SCORE not in model.functions:
        raise OptionError(
            f"{model.path} has no function {SCORE!r}",
            why="perplexity needs the logits of every position",
            hint="compile it with --top-passes add-score-function",
        )
    samples = read_tokens(inputs.data)
    check_vocabulary(samples, model.vocabulary)
    windows = windows_of([each.ids.tolist() for each in samples], model.positions)
    return measure_perplexity(model.language_model(), windows[: inputs.samples]).value


def _print_changes(found: Sequence[Change], worse: Sequence[Change], top: int) -> None:
    shown = [each for each in found if each.worse_by > 0][:top]
    if not shown:
        print(f"none of {len(found)} figures has become worse")
        return
    print_table(
        ("figure", "function", "op", "scheme", "was", "is", "worse by", "allowed"),
        [
            (
                each.figure,
                each.function,
                each.name,
                each.new_scheme
                if each.old_scheme == each.new_scheme
                else f"{each.old_scheme} -> {each.new_scheme}",
                f"{each.old:.6g}",
                f"{each.new:.6g}",
                f"{each.worse_by:.3g}",
                f"{each.limit:g}",
            )
            for each in shown
        ],
    )
    print(f"{len(worse)} of {len(found)} figures are worse than allowed")
