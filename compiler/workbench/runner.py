"""Runs a list of passes, with instruments that look on.

Everything that watches a pipeline (printing, timing, checking, tracing, costs, reproducers) is an
`Instrument`; the compiler itself runs its passes here without any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.dialects.context import make_context
from tilewright.dialects.dominance import verify_module
from tilewright.passes.actions import Watcher, watching
from tilewright.passes.registry import check_stage


@dataclass
class PassRun:
    """One pass of a pipeline on a module; `number` counts from 1."""

    number: int
    count: int
    """How many passes the pipeline has."""
    pass_: ModulePass
    module: ModuleOp
    pass_s: float = 0.0
    verify_s: float = 0.0

    @property
    def name(self) -> str:
        return self.pass_.name


@dataclass
class Instrument:
    """Looks on while a pipeline runs. The methods here do nothing: override what is needed.

    An instrument may raise: the pipeline stops there. `watcher` sees the steps of the passes.
    `phase`, `kept` and `finish` are for whoever has made the instruments: the pipeline itself does
    not call them.
    """

    watcher: Watcher | None = field(default=None, init=False)

    def begin(self, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
        """Before the first pass, on the verified module."""
        del module, passes

    def before_pass(self, run: PassRun) -> None:
        """Before a pass."""
        del run

    def after_pass(self, run: PassRun) -> None:
        """After a pass whose result is legal."""
        del run

    def pass_failed(self, run: PassRun, error: Exception) -> None:
        """After a pass that raised, or left illegal IR, or that an instrument objected to.

        The module is as the pass has left it. `error` is raised further.
        """
        del run, error

    def end(self, module: ModuleOp) -> None:
        """After the last pass."""
        del module

    def phase(self, name: str, seconds: float) -> None:
        """Work beside the passes that is done: `parse`, `verify` of the input, `print`."""
        del name, seconds

    def kept(self) -> str | None:
        """After a failure: what this instrument has kept that helps to find out why, as a hint."""
        return None

    def finish(self) -> None:
        """When the module is done with, printed or failed: say what there is to say."""


def run_pipeline(
    module: ModuleOp,
    passes: Iterable[ModulePass],
    instruments: Sequence[Instrument] = (),
    *,
    verify_each: bool = True,
    context: Context | None = None,
) -> None:
    """Run `passes` on `module` in order; verify the module after each, and the stage's legality.

    Instruments are told in their order. Raises what passes, verifiers and instruments raise.
    """
    passes = list(passes)
    context = make_context() if context is None else context
    for each in instruments:
        each.begin(module, passes)
    for number, pass_ in enumerate(passes, start=1):
        run = PassRun(number, len(passes), pass_, module)
        for each in instruments:
            each.before_pass(run)
        try:
            _apply(run, context, instruments)
            if verify_each:
                _verify(run)
            for each in instruments:
                each.after_pass(run)
        except Exception as error:
            for each in instruments:
                each.pass_failed(run, error)
            raise
    for each in instruments:
        each.end(module)


def _apply(run: PassRun, context: Context, instruments: Sequence[Instrument]) -> None:
    with ExitStack() as stack:
        for each in instruments:
            if each.watcher is not None:
                stack.enter_context(watching(each.watcher))
        start = perf_counter()
        try:
            run.pass_.apply(context, run.module)
        finally:
            run.pass_s = perf_counter() - start


def _verify(run: PassRun) -> None:
    start = perf_counter()
    verify_module(run.module)
    check_stage(run.module, run.name)
    run.verify_s = perf_counter() - start
