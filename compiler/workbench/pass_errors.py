"""What is said of a pass that failed: which pass, at which op, why, and what was kept."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import DiagnosticException, PassFailedException, VerifyException

from tilewright.compiler.workbench.runner import Instrument, PassRun
from tilewright.dialects.errors import InternalError, IRError, TilewrightError
from tilewright.dialects.scopes import where_of

KEEP_HINT = "--print-ir-tree-dir=DIR keeps the IR before each pass"


@dataclass
class FailedRun(Instrument):
    """Remembers which pass of a pipeline failed."""

    run: PassRun | None = field(default=None, init=False)

    def pass_failed(self, run: PassRun, error: Exception) -> None:
        del error
        self.run = run


def pass_error(run: PassRun, error: Exception, kept: Iterable[str] = ()) -> TilewrightError:
    """The error to raise where `error` came out of a pass: it names the pass, the line of Python
    that raised, and the op if one is known; its hint ends in what was `kept`. What no pass may
    raise is a bug: `InternalError`."""
    kept = list(kept)
    if isinstance(error, TilewrightError):
        where = error.where or ""
        if f"pass {run.name}" not in where:
            where = ", in ".join(text for text in (where, f"pass {run.name}") if text)
        hint = "; ".join(text for text in (error.hint, *kept) if text)
        return error.placed(where, hint)
    legal = isinstance(error, VerifyException | PassFailedException | DiagnosticException)
    return (IRError if legal else InternalError)(
        f"pass {run.name} failed",
        where=op_of(error),
        why=f"{type(error).__name__}: {error}{raised_at(run.pass_, error)}",
        hint="; ".join(kept) or KEEP_HINT,
    )


def raised_at(pass_: ModulePass, error: Exception) -> str:
    """The innermost line in the pass's own file, or else that below the runner's: ` (mine.py:12)`.

    A pass often dies in a library that it calls, and its writer looks for the call."""
    frames = traceback.extract_tb(error.__traceback__)
    module = sys.modules.get(type(pass_).__module__)
    file = getattr(module, "__file__", None)
    own = [frame for frame in frames if frame.filename == file] or frames
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""


def op_of(error: BaseException) -> str | None:
    """The op that the innermost function with a variable `op` was at when it raised."""
    found: str | None = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        op = frame.f_locals.get("op")
        if isinstance(op, Operation) and op.parent is not None:
            found = where_of(op)
    return found
