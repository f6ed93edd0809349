"""The `tw` command. `main` reports Tilewright's own errors without a traceback and ends with their exit codes."""

from __future__ import annotations

import sys

INTERRUPTED = 130
OUT_OF_MEMORY = 12


def main() -> None:
    """Entry point of `tw`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `tw` with `arguments`; returns the exit code (docs/exit_codes.md)."""
    from tilewright.compiler.cli.app import invoke
    from tilewright.dialects.errors import TilewrightError

    try:
        code = invoke(arguments)
        if code == INTERRUPTED:
            print("tw: interrupted; no half-written output is left", file=sys.stderr)
        return code
    except TilewrightError as error:
        print(f"tw: {error.title} [{error.code}]: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("tw: out of host memory", file=sys.stderr)
        return OUT_OF_MEMORY
