"""IR files as `tw opt` reads them: one module or several, each op with its line in the file."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tilewright.compiler.output import storage_errors
from tilewright.dialects.errors import ModelReadError

SPLIT_MARK = "// -----"
_SPLIT_LINE = re.compile(rf"^{SPLIT_MARK}[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """The text of one module; `name` is the file that messages point to."""

    name: str
    text: str
    number: int = 1
    """Counts the modules of the file, from 1."""
    count: int = 1

    def folder(self, parent: str) -> Path:
        """A folder for what is written about this module, made where it is missing.

        Modules of a split file get folders of their own. Raises `StorageError`.
        """
        folder = Path(parent) if self.count == 1 else Path(parent, f"{self.number:02d}")
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def read_sources(name: str, *, split: bool = False) -> list[Source]:
    """The modules of the file `name` (`-`: stdin); one unless `split`.

    Raises `ModelReadError` where the file cannot be read.
    """
    text = _read(name)
    shown = "<stdin>" if name == "-" else name
    chunks = split_modules(text) if split else [text]
    return [Source(shown, chunk, i, len(chunks)) for i, chunk in enumerate(chunks, start=1)]


def split_modules(text: str) -> list[str]:
    """The modules between lines `// -----`, each behind as many empty lines as precede it in
    `text`, so that messages name its lines."""
    chunks: list[str] = []
    begin = 0
    for mark in _SPLIT_LINE.finditer(text):
        chunks.append("\n" * text.count("\n", 0, begin) + text[begin : mark.start()])
        begin = mark.end()
    return [*chunks, "\n" * text.count("\n", 0, begin) + text[begin:]]


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelReadError("the IR cannot be read", where=name, why=why) from error
