"""The `tw` command: runs a verb; ends with an exit code of docs/exit_codes.md, whatever happens."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from itertools import islice
from types import FrameType

from tilewright.compiler.cli.settings import Settings

LOAD = "--load"
"""The option that names a Python file to use as a plugin."""


def main() -> None:
    """Entry point of `tw`."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)
    # A name in the output that the terminal cannot show is no reason to fail.
    if sys.__stdout__ is not None:
        sys.__stdout__.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:], own_process=True)
    _drop_unwritten_output()
    sys.exit(code)


def run(arguments: list[str], *, own_process: bool = False) -> int:
    """Run `tw` with `arguments`; returns the exit code (docs/exit_codes.md) and raises nothing.

    `own_process`: the process ends with this run.
    """
    settings = Settings(own_process=own_process)
    try:
        code = _invoke(arguments, settings)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:
        from tilewright.compiler.cli.failures import report

        return report(error, with_traceback=settings.traceback)
    return code


def _invoke(arguments: list[str], settings: Settings) -> int:
    """Run a verb; `opt` by itself, without what the other verbs' command lines are made with: that
    takes a third of the time in which it starts."""
    if arguments[:1] == ["opt"]:
        # What imports make stays: looking for garbage in it takes a fifth of the time.
        gc.disable()
        try:
            from tilewright.compiler.cli.opt_verb import run_opt
        finally:
            if settings.own_process:
                gc.freeze()
            gc.enable()
        return run_opt(arguments[1:])
    from tilewright.compiler.cli.app import invoke

    return invoke(_loads_first(arguments), settings)


def _loads_first(arguments: list[str]) -> list[str]:
    """`tw VERB --load FILE` as `tw --load FILE VERB`: no verb needs an option for it."""
    loads: list[str] = []
    others: list[str] = []
    left = iter(arguments)
    for each in left:
        if each == LOAD:
            loads += [each, *islice(left, 1)]
        else:
            (loads if each.startswith(f"{LOAD}=") else others).append(each)
    return [*loads, *others]


def _unwind(number: int, _: FrameType | None) -> None:
    """Ends the process as an exception does, so that half-written files are removed on the way."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _drop_unwritten_output() -> None:
    """What could not be flushed has been reported; Python would complain of it once more."""
    stdout = sys.__stdout__
    if stdout is None:
        return
    try:
        stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
