"""How `tw` prints: results on stdout, logs and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tilewright.compiler.tables import table_lines


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table with a header line; columns that hold only numbers stand to the right."""
    for line in table_lines(columns, rows):
        print(line)


def log(message: str) -> None:
    """A line of progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def megabytes(size_bytes: float) -> str:
    """Bytes in a readable unit (decimal)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.2f} {unit}"
    return f"{size_bytes:.0f} B"


def percent(share: float) -> str:
    """A share of one as a percentage."""
    return f"{100 * share:.1f} %"
