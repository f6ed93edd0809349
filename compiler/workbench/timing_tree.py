"""Where the time of a run goes: a tree of parsing, passes with their patterns, verifying, printing.

       seconds    share  what
        0.0021    2.3 %  parse
        0.0713   78.1 %  convert-top-to-tpu
        0.0688   75.4 %    LowerMatMulToW8A16 (28 steps)

A step that a pattern announces (`passes.actions`) is timed from its beginning to its end; what a
pass does between its steps is its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from xdsl.ir import Operation

from tilewright.compiler.workbench.runner import Instrument, PassRun
from tilewright.compiler.workbench.sources import Source
from tilewright.passes.actions import Watcher


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--timing` and the format of reports."""
    group = parser.add_argument_group("where the time goes, on stderr")
    group.add_argument(
        "--timing",
        action="store_true",
        help="seconds of reading, of each pass with its patterns, of verifying and printing",
    )
    group.add_argument(
        "--report-format",
        "--timing-format",
        "--mlir-output-format",
        choices=("text", "json"),
        default="text",
        help="how --timing, --stats and --cost are printed; json: a line for each of them",
    )


def instruments_of(options: argparse.Namespace, source: Source) -> Sequence[Instrument]:
    """A `Timing` if it is asked for."""
    del source
    return (Timing(as_json=options.report_format == "json"),) if options.timing else ()


@dataclass
class Span:
    """A piece of the run: its wall seconds include those of its parts."""

    name: str
    seconds: float = 0.0
    steps: int = 0
    parts: list[Span] = field(default_factory=list["Span"])

    def to_json(self) -> dict[str, object]:
        """As `--report-format=json` prints it (docs/json.md)."""
        return {
            "name": self.name,
            "wall_s": self.seconds,
            "steps": self.steps,
            "parts": [part.to_json() for part in self.parts],
        }


@dataclass
class Timing(Instrument):
    """Collects the time of every piece of a run and prints it when the run is over."""

    as_json: bool = False
    spans: list[Span] = field(default_factory=list[Span], init=False)
    _start: float = field(default_factory=perf_counter, init=False)
    _ended: PassRun | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._steps = _StepTimes()
        self.watcher = self._steps

    def phase(self, name: str, seconds: float) -> None:
        self.spans.append(Span(name, seconds))

    def before_pass(self, run: PassRun) -> None:
        del run
        self._steps.clear()

    def after_pass(self, run: PassRun) -> None:
        self._pass_ended(run)

    def pass_failed(self, run: PassRun, error: Exception) -> None:
        del error
        if run is not self._ended:
            self._pass_ended(run)

    def _pass_ended(self, run: PassRun) -> None:
        self._ended = run
        parts = [*self._steps.spans.values()]
        if run.verify_s:
            parts.append(Span("verify", run.verify_s))
        self.spans.append(Span(run.name, run.pass_s + run.verify_s, 0, parts))

    def finish(self) -> None:
        total = Span("total", perf_counter() - self._start, 0, list(self.spans))
        rest = total.seconds - sum(span.seconds for span in self.spans)
        total.parts.append(Span("rest", max(rest, 0.0)))
        if self.as_json:
            print(json.dumps({"timing": total.to_json()}), file=sys.stderr)
        else:
            print("\n".join(report(total)), file=sys.stderr)


def report(total: Span) -> Iterator[str]:
    """The lines of the tree; percentages are of the whole run."""
    yield "Execution time (wall clock)"
    yield f"{'seconds':>10}  {'share':>7}  what"
    for part in total.parts:
        yield from _lines(part, total.seconds, 0)
    yield from _lines(Span(total.name, total.seconds), total.seconds, 0)


def _lines(span: Span, total_s: float, depth: int) -> Iterator[str]:
    share = 100 * span.seconds / total_s if total_s else 0.0
    steps = f" ({span.steps} step{'s' * (span.steps > 1)})" if span.steps else ""
    yield f"{span.seconds:10.4f}  {share:5.1f} %  {'  ' * depth}{span.name}{steps}"
    for part in span.parts:
        yield from _lines(part, total_s, depth + 1)


class _StepTimes(Watcher):
    """Seconds and number of the steps of each pattern."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        self._open: list[tuple[str, float]] = []

    def clear(self) -> None:
        """Forget the steps of the pass before."""
        self.spans = {}
        self._open = []

    def begin(self, pattern: str, op: Operation) -> bool:
        del op
        self._open = [(pattern, perf_counter())]
        return True

    def end(self, new_ops: Sequence[Operation]) -> None:
        del new_ops
        if self._open:
            pattern, start = self._open.pop()
            span = self.spans.setdefault(pattern, Span(pattern))
            span.seconds += perf_counter() - start
            span.steps += 1
