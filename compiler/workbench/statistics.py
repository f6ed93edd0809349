"""What each pass does, counted: the steps of its patterns, and the ops before and after it."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.compiler.workbench.runner import Instrument, PassRun
from tilewright.compiler.workbench.sources import Source
from tilewright.passes.actions import Watcher


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--stats`."""
    parser.add_argument_group("what passes do, on stderr").add_argument(
        "--stats",
        "--mlir-pass-statistics",
        action="store_true",
        help="the steps of each pass by pattern, and the ops before and after it",
    )


def instruments_of(options: argparse.Namespace, source: Source) -> Sequence[Instrument]:
    """A `Statistics` if it is asked for."""
    del source
    return (Statistics(as_json=options.report_format == "json"),) if options.stats else ()


@dataclass(frozen=True)
class PassCounts:
    """What one pass did: how often each pattern, and how many ops of each name there were."""

    name: str
    steps: Counter[str]
    before: Counter[str]
    after: Counter[str]

    def changes(self) -> Iterator[tuple[str, int, int]]:
        """The ops whose number the pass has changed: name, before, after."""
        for name in sorted(self.before | self.after):
            if self.before[name] != self.after[name]:
                yield name, self.before[name], self.after[name]

    def to_json(self) -> dict[str, object]:
        """As `--report-format=json` prints it (docs/json.md)."""
        return {
            "pass": self.name,
            "steps": dict(sorted(self.steps.items())),
            "ops": [
                {"name": name, "before": self.before[name], "after": self.after[name]}
                for name in sorted(self.before | self.after)
            ],
        }


@dataclass
class Statistics(Instrument):
    """Counts through a run and prints the counts when it is over."""

    as_json: bool = False
    counts: list[PassCounts] = field(default_factory=list[PassCounts], init=False)
    _before: Counter[str] = field(default_factory=Counter[str], init=False)

    def __post_init__(self) -> None:
        self._steps = _StepCounts()
        self.watcher = self._steps

    def before_pass(self, run: PassRun) -> None:
        self._steps.clear()
        self._before = count_ops(run.module)

    def after_pass(self, run: PassRun) -> None:
        steps = Counter(self._steps.counts)
        self.counts.append(PassCounts(run.name, steps, self._before, count_ops(run.module)))

    def finish(self) -> None:
        if self.as_json:
            document = {"statistics": [each.to_json() for each in self.counts]}
            print(json.dumps(document), file=sys.stderr)
        else:
            print("\n".join(report(self.counts)), file=sys.stderr)


def count_ops(module: ModuleOp) -> Counter[str]:
    """The number of ops of each name, the module itself left out."""
    counts = Counter(op.name for op in module.walk())
    counts[module.name] -= 1
    return +counts


def report(counts: Sequence[PassCounts]) -> Iterator[str]:
    """A paragraph a pass: its total, its patterns' steps, and the ops whose number has changed."""
    yield "Pass statistics"
    for each in counts:
        before, after = each.before.total(), each.after.total()
        yield f"{each.name}: {before:,} ops -> {after:,} ({after - before:+,})"
        for pattern, steps in sorted(each.steps.items()):
            yield f"  {steps:8,}  step{'s' * (steps > 1)} of {pattern}"
        for name, old, new in each.changes():
            yield f"  {new - old:+8,}  {name} ({old:,} -> {new:,})"


class _StepCounts(Watcher):
    """How many steps of each pattern have ended."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._pattern = ""

    def clear(self) -> None:
        """Forget the steps of the pass before."""
        self.counts = Counter()

    def begin(self, pattern: str, op: Operation) -> bool:
        del op
        self._pattern = pattern
        return True

    def end(self, new_ops: Sequence[Operation]) -> None:
        del new_ops
        self.counts[self._pattern] += 1
