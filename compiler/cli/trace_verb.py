"""`tw trace`: which pattern rewrote which op into what."""

from __future__ import annotations

from pathlib import Path

from tilewright.compiler.cli.output import log, print_json, print_table
from tilewright.compiler.output import write_atomically
from tilewright.compiler.workbench.pass_errors import FailedRun, pass_error
from tilewright.compiler.workbench.pipelines import passes_from_text, pipeline_text
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.compiler.workbench.sources import read_sources
from tilewright.compiler.workbench.trace import Step, Trace
from tilewright.compiler.workbench.trace_page import trace_page
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module


def run_trace(name: str, pipeline: str, html: Path | None, *, json: bool) -> None:
    """Print a line a step; `html` is a page to step through. A pass that fails ends the trace: what
    has happened until then is printed and written all the same."""
    passes = passes_from_text(pipeline)
    (source,) = read_sources(name)
    module = parse_module(source.text, source.name, places="missing")
    verify_module(module)
    trace, failed = Trace(), FailedRun()
    try:
        run_pipeline(module, passes, (failed, trace))
    except Exception as error:
        if failed.run is None:
            raise
        raise pass_error(failed.run, error) from error
    finally:
        _print(trace.steps, json=json)
        if html is not None:
            title = Path(source.name).name
            write_atomically(html, trace_page(title, pipeline_text(passes), trace.steps))
            log(f"{len(trace.steps)} steps in {html}")


def _print(steps: list[Step], *, json: bool) -> None:
    if json:
        print_json([step.to_json() for step in steps])
        return
    columns = ("step", "pass", "pattern", "op", "at", "in", "makes")
    rows = [
        (
            step.number,
            step.pass_name,
            step.pattern,
            step.op,
            step.location,
            step.function and f"@{step.function}",
            " ".join(step.new_ops),
        )
        for step in steps
    ]
    print_table(columns, rows)
