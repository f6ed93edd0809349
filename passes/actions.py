"""Pattern applications as actions: each can be watched, counted and held back.

A pass rewrites a module in steps, and says so for each step:

    if actions.begin("LowerMatMulToW8A16", op):
        ...                     # rewrite op
        actions.end(new_ops)

Without a watcher that costs a look at a context variable. A watcher may record steps (a trace), or
hold back all from some number on (bisection): `begin` is then false and the op stays as it is. So a
pass must leave a module that can be executed whichever of its steps it takes, in order from the
first. (MLIR has the same notion in `mlir/IR/Action.h`.)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from xdsl.ir import Operation


class Watcher:
    """Sees the steps of passes. The methods here do nothing: override what is needed."""

    def begin(self, pattern: str, op: Operation) -> bool:
        """Called before `pattern` rewrites `op`; false holds the step back."""
        del pattern, op
        return True

    def end(self, new_ops: Sequence[Operation]) -> None:
        """Called after the step that began last, with the ops that it has made."""
        del new_ops


_WATCHERS: ContextVar[tuple[Watcher, ...]] = ContextVar("watchers", default=())


@contextmanager
def watching(watcher: Watcher) -> Generator[None]:
    """Show the steps of all passes that run inside to `watcher`, after those already there."""
    from tilewright.passes.xdsl_walkers import announcing_walkers  # it is built on this module

    token = _WATCHERS.set((*_WATCHERS.get(), watcher))
    try:
        with announcing_walkers():
            yield
    finally:
        _WATCHERS.reset(token)


def watched() -> bool:
    """Whether anybody watches: patterns may save the work of saying what they do."""
    return bool(_WATCHERS.get())


def begin(pattern: str, op: Operation) -> bool:
    """Say that `pattern` is about to rewrite `op`; false if a watcher holds the step back.

    Watchers are asked in order; those after the first that says no do not hear of the step.
    """
    return all(watcher.begin(pattern, op) for watcher in _WATCHERS.get())


def end(new_ops: Sequence[Operation] = ()) -> None:
    """Say that the step that began last is done, and which ops it has made."""
    for watcher in _WATCHERS.get():
        watcher.end(new_ops)
