"""A pass up to its nth step: counted, held back, and shown at work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from tilewright.compiler.workbench.fingerprints import symbol_of
from tilewright.dialects.context import make_context
from tilewright.dialects.scopes import where_of
from tilewright.dialects.tpu import LaunchOp
from tilewright.passes.actions import Watcher, watching


@dataclass(frozen=True)
class Step:
    """A step of a pass: `pattern` at `op`, which had the text `before` and has become `after`."""

    number: int
    """From 1."""
    pattern: str
    op: str
    """In the words of the model, with its source line."""
    before: str
    after: str


class StepCounter(Watcher):
    """Counts the steps of a pass, and which patterns there are."""

    def __init__(self) -> None:
        self.count = 0
        self.patterns: set[str] = set()

    def begin(self, pattern: str, op: Operation) -> bool:
        del op
        self.count += 1
        self.patterns.add(pattern)
        return True


class HoldBack(Watcher):
    """Lets `limit` steps pass and holds all others back; `last` is the last that has begun."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.last: Step | None = None

    def begin(self, pattern: str, op: Operation) -> bool:
        self.count += 1
        if self.count == self.limit:
            self.last = Step(self.count, pattern, described(op), str(op), "")
        return self.count <= self.limit

    def end(self, new_ops: Sequence[Operation]) -> None:
        if self.last is not None and self.count == self.limit and not self.last.after:
            after = "\n".join(str(op) for op in new_ops)
            self.last = Step(
                self.last.number, self.last.pattern, self.last.op, self.last.before, after
            )


def described(op: Operation) -> str:
    """`op` in the words of the model: a kernel by the op that launches it first."""
    module = op.parent_op()
    if "tpu.kernel" in op.attributes and isinstance(module, ModuleOp):
        name = symbol_of(op)
        for launch in module.walk():
            if isinstance(launch, LaunchOp) and launch.kernel.string_value() == name:
                return f"kernel @{name}, launched by {where_of(launch)}"
    return where_of(op)


def count_steps(pass_: ModulePass, module: ModuleOp) -> int:
    """How many steps `pass_` takes on a copy of `module`, before it fails if it does.

    0 for a pass that does not say its steps.
    """
    counter = StepCounter()
    with watching(counter):
        try:
            pass_.apply(make_context(), module.clone())
        except Exception:
            # What a failing pass has done up to there is what is asked.
            return counter.count
    return counter.count


def apply_steps(pass_: ModulePass, module: ModuleOp, limit: int) -> None:
    """Apply the first `limit` steps of `pass_` to `module`, and what it does without saying so.

    Raises what the pass raises.
    """
    with watching(HoldBack(limit)):
        pass_.apply(make_context(), module)


def show_step(pass_: ModulePass, module: ModuleOp, number: int) -> Step | None:
    """Step `number` of `pass_` on a copy of `module`; None where it does not come to it.

    A step that raises has become nothing.
    """
    watcher = HoldBack(number)
    with watching(watcher), suppress(Exception):
        pass_.apply(make_context(), module.clone())
    return watcher.last
