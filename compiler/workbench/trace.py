"""A record of every rewrite: which pattern rewrote which op into what, and where it stood.

    tw trace m.mlir -p compile --html trace.html

A pass that announces its steps (`passes.actions`) is recorded step by step. Of one that changes a
module without saying so, each function that it has changed is a step of the pattern
`(whole pass)`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from xdsl.dialects.builtin import FileLineColLoc, ModuleOp, StringAttr
from xdsl.ir import Operation

from tilewright.compiler.output import write_atomically
from tilewright.compiler.workbench.runner import Instrument, PassRun
from tilewright.compiler.workbench.sources import Source
from tilewright.dialects.scopes import name_of, source_of
from tilewright.dialects.tpu import LaunchOp
from tilewright.passes.actions import Watcher

WHOLE_PASS = "(whole pass)"
_LONG_LITERAL = re.compile(r'"([0-9a-fA-Fx]{64})[0-9a-fA-F]+"')
"""Encoded records and large constants: the rest of them says nothing to a reader."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--trace`."""
    parser.add_argument_group("which pattern did it").add_argument(
        "--trace",
        metavar="FILE",
        help="write every step of every pattern, before and after, to FILE as JSON (tw trace)",
    )


def instruments_of(options: argparse.Namespace, source: Source) -> Sequence[Instrument]:
    """A `TraceWriter` if a file is given; modules of a split file have files of their own."""
    if options.trace is None:
        return ()
    path = Path(options.trace)
    if source.count > 1:
        path = path.with_name(f"{path.stem}-{source.number:02d}{path.suffix}")
    return (TraceWriter(path),)


@dataclass(frozen=True)
class Step:
    """One rewrite. Locations are `name (file:line)`, as far as they are known."""

    number: int
    """From 1, through the whole pipeline."""
    pass_number: int
    pass_name: str
    pattern: str
    op: str
    function: str
    """The symbol that the op stands in."""
    location: str
    before: str
    """The text of the op."""
    new_ops: tuple[str, ...] = ()
    """The names of the ops made."""
    new_locations: tuple[str, ...] = ()
    """Where they say they stand."""
    after: str = ""
    """Their text, one below the other."""

    def to_json(self) -> dict[str, object]:
        """As `tw trace --json` prints it (docs/json.md)."""
        return asdict(self)


class Recorder(Watcher):
    """Collects steps; `run` is the pass that takes them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.run: PassRun | None = None
        self._begun: Step | None = None
        self._launched: dict[str, list[str]] = {}

    def start(self, run: PassRun) -> None:
        """Expect the steps of a pass."""
        self.run = run
        self._launched = {}
        for op in run.module.walk():
            if isinstance(op, LaunchOp):
                places = self._launched.setdefault(op.kernel.string_value(), [])
                places.append(location_text(op))

    def location(self, op: Operation) -> str:
        """Where an op stands in the source; for one of a kernel, where the kernel is launched."""
        own = location_text(op)
        if own:
            return own
        places = [text for text in self._launched.get(_symbol_around(op), []) if text]
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        return f"{places[0]}{more}" if places else ""

    def begin(self, pattern: str, op: Operation) -> bool:
        run = self.run
        if run is not None:
            self._begun = Step(
                len(self.steps) + 1,
                run.number,
                run.name,
                pattern,
                op.name,
                _symbol_around(op),
                self.location(op),
                op_text(op),
            )
        return True

    def end(self, new_ops: Sequence[Operation]) -> None:
        if self._begun is None:
            return
        step = replace(
            self._begun,
            new_ops=tuple(op.name for op in new_ops),
            new_locations=tuple(dict.fromkeys(self.location(op) for op in new_ops)),
            after="\n".join(op_text(op) for op in new_ops),
        )
        self._begun = None
        self.steps.append(step)


@dataclass
class Trace(Instrument):
    """Records the steps of all passes."""

    recorder: Recorder = field(default_factory=Recorder, init=False)
    _symbols: dict[str, str] = field(default_factory=dict[str, str], init=False)
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.watcher = self.recorder

    @property
    def steps(self) -> list[Step]:
        return self.recorder.steps

    def before_pass(self, run: PassRun) -> None:
        self.recorder.start(run)
        self._count = len(self.steps)
        self._symbols = _symbol_texts(run.module)

    def after_pass(self, run: PassRun) -> None:
        if len(self.steps) == self._count:
            self._record_changes(run)

    def _record_changes(self, run: PassRun) -> None:
        """A step for each symbol of the module that a silent pass has changed."""
        after = _symbol_texts(run.module)
        for symbol in dict.fromkeys((*self._symbols, *after)):
            old, new = self._symbols.get(symbol, ""), after.get(symbol, "")
            if old == new:
                continue
            number = len(self.steps) + 1
            step = Step(number, run.number, run.name, WHOLE_PASS, "", symbol, "", old, after=new)
            self.steps.append(step)


@dataclass
class TraceWriter(Trace):
    """Writes the steps to a file when the run is over, whether it has failed or not."""

    path: Path = Path("trace.json")

    def finish(self) -> None:
        write_atomically(self.path, steps_json(self.steps))


def steps_json(steps: Sequence[Step]) -> str:
    """The steps as one JSON document: a list of objects."""
    return json.dumps([step.to_json() for step in steps], indent=1, ensure_ascii=False) + "\n"


def op_text(op: Operation) -> str:
    """The text of an op with its regions; encoded bytes are cut."""
    return _LONG_LITERAL.sub(r'"\1..."', str(op))


def location_text(op: Operation) -> str:
    """The name and source line of an op: `name (file:line)`, or what is known of them."""
    name, source = name_of(op.location), source_of(op)
    if isinstance(op.location, FileLineColLoc):
        source = f"{source}:{op.location.column.data}"
    return f"{name} ({source})" if name and source else name or source


def _symbol_around(op: Operation) -> str:
    at: Operation | None = op
    while at is not None:
        symbol = _symbol_of(at)
        if symbol:
            return symbol
        at = at.parent_op()
    return ""


def _symbol_of(op: Operation) -> str:
    name = op.properties.get("sym_name")
    return name.data if isinstance(name, StringAttr) else ""


def _symbol_texts(module: ModuleOp) -> dict[str, str]:
    """The text of the functions, kernels and programs by name; ops without one are one text."""
    texts: dict[str, list[str]] = {}
    for op in module.ops:
        texts.setdefault(_symbol_of(op), []).append(op_text(op))
    return {symbol: "\n".join(lines) for symbol, lines in texts.items()}
