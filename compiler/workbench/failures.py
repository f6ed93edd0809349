"""How a pass fails, in a form that can be compared, written down and found again."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from xdsl.passes import ModulePass
from xdsl.utils.exceptions import DiagnosticException, PassFailedException, VerifyException

from tilewright.compiler.workbench.pass_errors import op_of, raised_at
from tilewright.dialects.errors import (
    InternalError,
    IRError,
    MiscompileError,
    ModelReadError,
    TilewrightError,
)

FailureKind = Literal["miscompilation", "illegal IR", "refusal", "exception"]
"""The module computes something else; the pass has left IR that a verifier or a stage's legality
rejects, or raised as if it had; it has refused the module; it has raised what no pass should."""


@dataclass(frozen=True)
class Failure:
    """What went wrong in a pipeline, and where.

    `detail` says what it is independently of sizes and names: which function raised what, which
    rule is broken. `pattern` and `op` are the step of the pass that is at fault, if known.
    """

    kind: FailureKind
    pass_name: str
    pass_number: int
    """From 1."""
    detail: str
    message: str
    exit_code: int
    """What `tw` ends with (docs/exit_codes.md)."""
    pattern: str = ""
    op: str = ""
    step: int = 0
    """Number of the step, from 1; 0 if it is not known."""
    steps: int = 0
    """How many steps the pass takes."""

    def is_like(self, other: Failure | None) -> bool:
        """Whether both are one failure: kind, pass and detail; the pattern, where both know it."""
        if other is None:
            return False
        patterns = {self.pattern, other.pattern} - {""}
        return (
            (self.kind, self.pass_name, self.detail) == (other.kind, other.pass_name, other.detail)
        ) and len(patterns) < 2

    def to_json(self) -> dict[str, object]:
        """As `reproducer.json` and `tw bisect --json` hold it."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, object]) -> Failure:
        """The failure that `to_json` wrote. Raises `ModelReadError` for anything else."""
        kinds = {kind: kind for kind in get_args(FailureKind)}
        kind = kinds.get(str(document.get("kind")))
        number, code, step, steps = (
            document.get(key) for key in ("pass_number", "exit_code", "step", "steps")
        )
        if (
            kind is None
            or not isinstance(number, int)
            or not isinstance(code, int)
            or not isinstance(step, int)
            or not isinstance(steps, int)
        ):
            raise ModelReadError("the reproducer does not say how it fails")
        names = ("pass_name", "detail", "message", "pattern", "op")
        pass_name, detail, message, pattern, op = (str(document.get(name, "")) for name in names)
        return Failure(kind, pass_name, number, detail, message, code, pattern, op, step, steps)


def failure_of(error: Exception, pass_: ModulePass, pass_number: int) -> Failure:
    """The failure that `error` is, raised by a pass or by what looked at it."""
    if isinstance(error, MiscompileError):
        kind: FailureKind = "miscompilation"
        detail = error.title
    elif isinstance(error, IRError | VerifyException | PassFailedException | DiagnosticException):
        kind, detail = "illegal IR", _rule(error)
    elif isinstance(error, TilewrightError) and not isinstance(error, InternalError):
        kind, detail = "refusal", f"{type(error).__name__}: {_rule(error)}"
    else:
        kind, detail = "exception", f"{type(error).__name__} in {_raised_in(error)}"
    if isinstance(error, TilewrightError):
        code, message = error.exit_code, str(error)
    else:
        code = IRError.exit_code if kind == "illegal IR" else InternalError.exit_code
        message = f"{type(error).__name__}: {error}{raised_at(pass_, error)}"
    return Failure(kind, pass_.name, pass_number, detail, message, code, op=op_of(error) or "")


def _rule(error: Exception) -> str:
    """What is broken, without the sizes, names and types of the case at hand."""
    text = error.what if isinstance(error, TilewrightError) else str(error).partition("\n")[0]
    return re.sub(r"@\w+|%\w+|-?\d+", "#", text)


def _raised_in(error: Exception) -> str:
    """The innermost function that the exception passed, as `file.py:function`."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
