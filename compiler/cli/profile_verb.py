"""`tw profile`: where the cycles go."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from tilewright.backends.program import Function
from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.cli.output import megabytes, percent, print_json, print_table
from tilewright.compiler.output import write_atomically
from tilewright.compiler.performance import ProgramTimes
from tilewright.compiler.profile import (
    ProfileRow,
    by_kernel,
    by_layer,
    chrome_trace,
    merge_equal,
)
from tilewright.dialects.errors import OptionError


def run_profile(model: Path, function: str, *, trace: Path | None, json: bool) -> None:
    """Print cycles, busy shares and bytes per layer and per kernel."""
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
    total = times.function(function)
    return {
        "function": function.name,
        "cycles": total.cycles,
        "seconds": total.seconds,
        "gdma_busy": total.gdma_busy,
        "bdc_busy": total.bdc_busy,
        "bytes_in": total.bytes_in,
        "bytes_out": total.bytes_out,
        "layers": [row.to_json() for row in by_layer(times, function)],
        "kernels": [row.to_json() for row in by_kernel(times, function)],
    }


def _print(times: ProgramTimes, function: Function) -> None:
    total = times.function(function)
    print(
        f"{function.name}: {total.cycles:,} cycles, {total.seconds * 1e3:.3f} ms "
        f"with the host's launch, {total.launches} launches, {megabytes(total.bytes_in)} in, "
        f"{megabytes(total.bytes_out)} out, GDMA {percent(total.gdma_busy)} busy, "
        f"BDC {percent(total.bdc_busy)} busy, {total.bound}-bound"
    )
    columns = ("cycles", "share", "GDMA busy", "BDC busy", "bytes", "of roofline")

    def cells(row: ProfileRow) -> tuple[object, ...]:
        share = row.cycles / total.cycles if total.cycles else 0.0
        return (
            row.cycles,
            percent(share),
            percent(row.gdma_busy),
            percent(row.bdc_busy),
            megabytes(row.bytes_moved),
            percent(row.roofline),
        )

    print()
    print_table(
        ("layer", "times", *columns),
        [(name, n, *cells(row)) for name, n, row in merge_equal(by_layer(times, function))],
    )
    print()
    print_table(
        ("kernel", "launches", *columns),
        [(row.name, row.launches, *cells(row)) for row in by_kernel(times, function)],
    )
    print()
