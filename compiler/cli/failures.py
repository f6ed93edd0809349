"""How `tw` fails: an exception becomes a message on stderr and a code of docs/exit_codes.md."""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    PassFailedException,
    VerifyException,
)

from tilewright.dialects.errors import (
    InternalError,
    IRError,
    ModelReadError,
    OptionError,
    StorageError,
    TilewrightError,
)

OUT_OF_MEMORY = 12
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = {
    INTERRUPTED: "interrupted",
    129: "ended by a hangup (SIGHUP)",
    143: "ended by SIGTERM",
}
"""Exit codes of signals that a run unwinds for, and what is said of them."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PACKAGE = Path(__file__).resolve().parents[2]


def report(error: BaseException, *, with_traceback: bool = False) -> int:
    """Say on stderr why a run failed; returns its exit code."""
    if isinstance(error, BrokenPipeError) or _ended_by_a_closed_pipe(error):
        return BROKEN_PIPE
    if with_traceback and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        return _report_end(INTERRUPTED)
    if isinstance(error, SystemExit):
        return _report_end(error.code if isinstance(error.code, int) else int(bool(error.code)))
    if isinstance(error, MemoryError):
        _say("out of host memory")
        return OUT_OF_MEMORY
    known = known_error(error)
    _say(f"{known.title} [{known.code}]: {known}")
    return known.exit_code


def known_error(error: BaseException) -> TilewrightError:
    """The error that a user can act on; a bug of ours where there is none."""
    if isinstance(error, TilewrightError):
        return error
    why = str(error).strip() or None
    if isinstance(error, ArgSpecParseError):
        return OptionError("the pass pipeline cannot be parsed", why=why)
    if isinstance(error, ParseError):
        return ModelReadError("the IR cannot be parsed", where=str(error.span), why=error.msg)
    if isinstance(error, VerifyException | PassFailedException | DiagnosticException):
        return IRError("the IR is illegal", why=why)
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return StorageError(
            "no space left for the output",
            where=error.filename and str(error.filename),
            why=error.strerror,
            hint="free some space, or write to another disk",
        )
    return InternalError(
        f"unexpected {type(error).__name__}",
        where=_last_own_line(error),
        why=why,
        hint="this is a bug of Tilewright: please report it with what `tw --traceback VERB` says",
    )


def _report_end(code: int) -> int:
    if code in TERMINATED:
        _say(f"{TERMINATED[code]}; no half-written output is left")
    return code


def _ended_by_a_closed_pipe(error: BaseException) -> bool:
    # The parser of the command line turns a closed pipe into exit code 1.
    return isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)


def _last_own_line(error: BaseException) -> str | None:
    """The innermost line of Tilewright that the exception passed, as `passes/x.py:12 in f`."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    if not own:
        return None
    path = Path(own[-1].filename).relative_to(_PACKAGE).as_posix()
    return f"{path}:{own[-1].lineno} in {own[-1].name}"


def _say(message: str) -> None:
    with suppress(OSError):
        print(f"tw: {message}", file=sys.stderr, flush=True)
