"""`tw calibrate`: ranges of a model's linear layers on data, for int8 and for error reports."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import get_args

from tilewright.compiler.calibration import (
    Calibration,
    LayerRange,
    Method,
    calibrate,
    load_data,
    save_calibration,
)
from tilewright.compiler.calibration.methods import METHODS, MethodName
from tilewright.compiler.calibration.observe import DEAD_RANGE
from tilewright.compiler.cli.output import log, megabytes, print_json, print_table
from tilewright.compiler.importers.registry import open_source
from tilewright.dialects.errors import OptionError, StorageError

WIDEST = 10
"""Layers in the table."""
_NAMES: Mapping[str, MethodName] = {name: name for name in get_args(MethodName)}


def run_calibrate(
    source: Path,
    data: Path,
    output: Path,
    *,
    method: str,
    percentile: float | None,
    seq: int,
    samples: int | None,
    function: str,
    statistics: bool,
    hessian: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Calibrate and write the outcome, with a line on stderr for every sample."""
    if method not in _NAMES:
        raise OptionError(
            f"unknown method of calibration {method!r}", hint=f"one of {', '.join(METHODS)}"
        )
    chosen = Method(_NAMES[method], percentile)
    if output.suffix != ".json":
        raise OptionError(
            f"a calibration is written to a .json file, not to {output.name!r}",
            hint=f"{output.stem}.calib.json",
        )
    if not output.parent.is_dir():
        raise StorageError(
            f"the folder of the output does not exist: {output.parent}", where=str(output)
        )
    start = perf_counter()
    model = open_source(source, seq)
    loaded = load_data(data, model, function=function, limit=samples)

    def progress(done: int, total: int) -> None:
        if not quiet:
            log(f"[{done:4d}/{total:4d}] {perf_counter() - start:.1f} s")

    calibration = calibrate(model, loaded, chosen, hessian=hessian, on_sample=progress)
    save_calibration(calibration, output, statistics=statistics or hessian)
    for key, layer in calibration.ranges.items():
        if layer.input_largest == 0 or layer.output_largest == 0:
            side = "input" if layer.input_largest == 0 else "output"
            log(f"warning: the {side} of {key} was 0 throughout; its range is {DEAD_RANGE:g}")
    seconds = perf_counter() - start
    if json:
        _print_json(calibration, output, seconds)
    else:
        _print_text(calibration, output, seconds)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _print_json(calibration: Calibration, output: Path, seconds: float) -> None:
    print_json(
        {
            "calibration": str(output),
            "digest": calibration.digest,
            **{
                name: value
                for name, value in calibration.content().items()
                if name not in ("layers", "edited")
            },
            "seconds": seconds,
            "peak_memory_bytes": peak_bytes(),
            "layers": [{"key": key, **asdict(layer)} for key, layer in calibration.ranges.items()],
        }
    )


def _print_text(calibration: Calibration, output: Path, seconds: float) -> None:
    by_width = sorted(
        calibration.ranges.items(), key=lambda item: item[1].input_absmax, reverse=True
    )
    print_table(
        ("layer", "input", "seen", "output", "seen", "rows"),
        [_row(key, layer) for key, layer in by_width[:WIDEST]],
    )
    if len(by_width) > WIDEST:
        print(f"(the {WIDEST} with the widest inputs of {len(by_width)} layers)")
    print(
        f"{output}: {calibration.method}, {calibration.samples} samples, "
        f"{calibration.tokens} tokens, {len(calibration.ranges)} layers, {seconds:.1f} s, "
        f"{megabytes(peak_bytes())} of memory at the peak"
    )


def _row(key: str, layer: LayerRange) -> tuple[object, ...]:
    return (
        key,
        layer.input_absmax,
        layer.input_largest or 0.0,
        layer.output_absmax,
        layer.output_largest or 0.0,
        layer.count,
    )
