"""`tw profile`: where the cycles go."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from pathlib import Path

from tilewright.backends.program import Function
from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.cli.output import megabytes, percent, print_json, print_table
from tilewright.compiler.output import write_atomically
from tilewright.compiler.performance import ProgramTimes
from tilewright.compiler.profile import (
    EngineProfile,
    ProfileRow,
    by_kernel,
    by_layer,
    chrome_trace,
    merge_equal,
    whole,
)
from tilewright.dialects.errors import OptionError


def run_profile(model: Path, function: str, *, trace: Path | None, json: bool) -> None:
    """Print cycles, bytes and what both engines do, per layer and per kernel."""
    artifact = open_artifact(model)
    times = ProgramTimes(artifact.program, artifact.chip)
    functions = [f for f in artifact.program.functions if function in ("", f.name)]
    if not functions:
        names = ", ".join(f.name for f in artifact.program.functions)
        raise OptionError(f"{model} has no function {function!r}", hint=f"it has {names}")
    if trace is not None:
        document = chrome_trace(times, functions[-1])
        write_atomically(trace, json_module.dumps(document))
    if json:
        print_json([_json(times, each) for each in functions])
        return
    for each in functions:
        _print(times, each)


def _json(times: ProgramTimes, function: Function) -> dict[str, object]:
    total, row = times.function(function), whole(times, function)
    return {
        "function": function.name,
        "cycles": total.cycles,
        "seconds": total.seconds,
        **row.gdma.to_json("gdma"),
        **row.bdc.to_json("bdc"),
        "bytes_in": total.bytes_in,
        "bytes_out": total.bytes_out,
        "roofline": row.roofline,
        "layers": [row.to_json() for row in by_layer(times, function)],
        "kernels": [row.to_json() for row in by_kernel(times, function)],
    }


COLUMNS = (
    "cycles",
    "share",
    "bytes",
    "of roofline",
    "GDMA busy",
    "idle",
    "waits for",
    "BDC busy",
    "idle",
    "waits for",
)
"""Of each engine: cycles with a command, cycles after the last one, and the rest by cause."""
CAUSES, TOTAL_CAUSES = 2, 4
"""As many causes are named in a table, and for a whole function; the others are summed up."""


def _print(times: ProgramTimes, function: Function) -> None:
    total, row = times.function(function), whole(times, function)
    print(
        f"{function.name}: {total.cycles:,} cycles, {total.seconds * 1e3:.3f} ms "
        f"with the host's launch, {total.launches} launches, {megabytes(total.bytes_in)} in, "
        f"{megabytes(total.bytes_out)} out, {total.bound}-bound, "
        f"{percent(row.roofline)} of the roofline"
    )
    for name, engine in (("GDMA", row.gdma), ("BDC", row.bdc)):
        busy, waiting = (
            causes_text(engine, causes, TOTAL_CAUSES)
            for causes in (engine.busy_by, engine.waiting_for)
        )
        print(
            f"  {name}: busy {percent(engine.busy)} ({busy}), "
            f"waiting {percent(engine.waiting)} ({waiting}), idle {percent(engine.idle)}"
        )
    print()
    print_table(
        ("layer", "times", *COLUMNS),
        [
            (name, n, *_cells(row, total.cycles))
            for name, n, row in merge_equal(by_layer(times, function))
        ],
    )
    print()
    print_table(
        ("kernel", "launches", *COLUMNS),
        [
            (row.name, row.launches, *_cells(row, total.cycles))
            for row in by_kernel(times, function)
        ],
    )
    print()


def _cells(row: ProfileRow, cycles: int) -> tuple[object, ...]:
    engines = [
        (
            percent(engine.busy),
            percent(engine.idle),
            causes_text(engine, engine.waiting_for, CAUSES),
        )
        for engine in (row.gdma, row.bdc)
    ]
    return (
        row.cycles,
        percent(row.cycles / cycles if cycles else 0.0),
        megabytes(row.bytes_moved),
        percent(row.roofline),
        *engines[0],
        *engines[1],
    )


def causes_text(engine: EngineProfile, causes: Mapping[str, int], count: int) -> str:
    """The first causes with their share: `load 61.0 %, store 2.5 %, other 0.1 %`; else `-`."""
    named = list(causes.items())
    rest = sum(cycles for _, cycles in named[count:])
    shown = [*named[:count], *([("other", rest)] if rest else [])]
    return ", ".join(f"{cause} {percent(engine.share(n))}" for cause, n in shown) or "-"
