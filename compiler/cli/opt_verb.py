"""`tw opt`: passes on IR text, as mlir-opt and xdsl-opt run them (docs/workbench.md)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from xdsl.passes import ModulePass

from tilewright.compiler.cli.opt_options import instruments_for, parse_options
from tilewright.compiler.cli.output import log
from tilewright.compiler.output import write_atomically
from tilewright.compiler.workbench.ir_printing import style_of
from tilewright.compiler.workbench.pass_errors import FailedRun, pass_error
from tilewright.compiler.workbench.pipelines import part_of, passes_from_text, pipeline_text
from tilewright.compiler.workbench.runner import Instrument, run_pipeline
from tilewright.compiler.workbench.sources import SPLIT_MARK, Source, read_sources
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import InternalError, TilewrightError

DIAGNOSTICS_DIFFER = 1
"""The exit code where a file's comments expect other errors than have come."""

T = TypeVar("T")


def run_opt(arguments: Sequence[str]) -> int:
    """Run `tw opt` with its own arguments; returns the exit code.

    Prints nothing on stdout unless every pass succeeds on every module.
    """
    options = parse_options(arguments)
    if options.list_passes or options.show_dialects:
        return _list(options)
    if options.run_reproducer is not None:
        from tilewright.compiler.cli.failure_verbs import run_replay

        return run_replay(Path(options.run_reproducer), json=False)
    every = [each for text in options.pipeline for each in passes_from_text(text)]
    passes = part_of(every, options.start_from, options.stop_after)
    if options.print_legality:
        from tilewright.compiler.workbench.legality import legality_tables

        print("\n".join(legality_tables([each.name for each in passes])))
        return 0
    if options.dump_pass_pipeline:
        log(f"builtin.module({pipeline_text(passes, all_options=True)})")
    sources = read_sources(options.input, split=options.split_input_file)
    if options.verify_diagnostics:
        return _verify_diagnostics(sources, passes, options)
    _write([_run_on(source, passes, options) for source in sources], options)
    return 0


def _write(printed: Sequence[str], options: argparse.Namespace) -> None:
    result = f"{SPLIT_MARK}\n".join(printed)
    if options.output == "-":
        sys.stdout.write(result)
    elif options.output != os.devnull:
        write_atomically(options.output, result)


def _run_on(source: Source, passes: Sequence[ModulePass], options: argparse.Namespace) -> str:
    """The text of a module after `passes`; raises what they raise as a `TilewrightError`."""
    instruments = instruments_for(options, source)
    try:
        return _run_under(instruments, source, passes, options)
    finally:
        for each in instruments:
            each.finish()


def _run_under(
    instruments: Sequence[Instrument],
    source: Source,
    passes: Sequence[ModulePass],
    options: argparse.Namespace,
) -> str:
    def timed(phase: str, work: Callable[[], T]) -> T:
        start = perf_counter()
        result = work()
        for each in instruments:
            each.phase(phase, perf_counter() - start)
        return result

    module = timed(
        "parse",
        lambda: parse_module(
            source.text,
            source.name,
            places="all" if options.verify_diagnostics else "missing",
            allow_unregistered=options.allow_unregistered_dialect,
            implicit_module=not options.no_implicit_module,
        ),
    )
    timed("verify", lambda: verify_module(module))
    failure = FailedRun()
    try:
        run_pipeline(module, passes, (failure, *instruments), verify_each=options.verify_each)
    except Exception as error:
        if failure.run is None:
            raise
        kept = [text for text in (each.kept() for each in instruments) if text]
        raise pass_error(failure.run, error, kept) from error
    return timed("print", lambda: style_of(options).text(module))


def _verify_diagnostics(
    sources: Sequence[Source], passes: Sequence[ModulePass], options: argparse.Namespace
) -> int:
    """Run on every module and hold the errors against the file's comments; print the modules that
    come through."""
    from tilewright.compiler.workbench.diagnostics import (
        Diagnostic,
        diagnostic_of,
        expected_in,
        mismatches,
    )

    printed: list[str] = []
    wrong: list[str] = []
    for source in sources:
        came: list[Diagnostic] = []
        try:
            printed.append(_run_on(source, passes, options))
        except InternalError:
            raise
        except TilewrightError as error:
            came.append(diagnostic_of(error, source.name))
        wrong += mismatches(expected_in(source.text, source.name), came, source.name)
    for line in wrong:
        log(line)
    if wrong:
        return DIAGNOSTICS_DIFFER
    _write(printed, options)
    return 0


def _list(options: argparse.Namespace) -> int:
    from tilewright.compiler.cli.catalog_verbs import list_passes

    if options.list_passes:
        list_passes(json=False)
    if options.show_dialects:
        from tilewright.dialects.context import make_context

        print("\n".join(sorted(make_context().registered_dialect_names)))
    return 0
