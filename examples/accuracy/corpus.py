"""Text that every Python installation has: the documentation strings of its standard library."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

LEFT_OUT = ("test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo")
VOCABULARY = 128
"""Tokens are the bytes of ASCII."""
HELD_OUT = 10
"""Every so-many-th text is kept for evaluation."""

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Token ids of the texts to learn from, and of those kept apart."""

    training: Tokens
    evaluation: Tokens


def docstrings(root: Path) -> Iterator[str]:
    """The documentation strings in `root`, file by file in the order of their names, each once."""
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        if any(part in LEFT_OUT for part in path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # a few files of the library are broken on purpose
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and text.isascii() and text not in seen:
                    seen.add(text)
                    yield text


def load_corpus() -> Corpus:
    """The corpus of this installation; texts end in an empty line."""
    parts: tuple[list[str], list[str]] = ([], [])
    for number, text in enumerate(docstrings(Path(sysconfig.get_path("stdlib")))):
        parts[number % HELD_OUT == 0].append(text + "\n\n")
    training, evaluation = ("".join(texts).encode("ascii") for texts in parts)
    return Corpus(_tokens(training), _tokens(evaluation))


def _tokens(text: bytes) -> Tokens:
    return np.frombuffer(text, np.uint8).astype(np.int64)
