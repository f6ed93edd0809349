"""Every error that `tw` can end with, read off the source: classes, codes, messages and hints.

A message is the first argument of the exception where it is made; what it fills in stands in
braces.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tilewright.dialects import errors
from tilewright.dialects.errors import TilewrightError

_ROOMS = ("dialects", "backends", "passes", "compiler")
_LONGEST_EXPRESSION = 24
"""What is filled in is shown as the expression that gives it, up to that many characters."""


@dataclass(frozen=True, order=True)
class Message:
    """A message as the source has it, and the module that says it."""

    module: str
    text: str
    hint: str


def error_classes() -> list[type[TilewrightError]]:
    """The classes of errors, by code."""
    found = [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, TilewrightError) and value is not TilewrightError
    ]
    return sorted(found, key=lambda error: error.code)


def messages() -> dict[str, list[Message]]:
    """The messages of every class, by its name, sorted by module and text."""
    found: dict[str, set[Message]] = {error.__name__: set() for error in error_classes()}
    root = Path(__file__).parents[1]
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for name, message in _messages_of(path, module.removesuffix(".__init__")):
                if name in found:
                    found[name].add(message)
    return {name: sorted(each) for name, each in found.items()}


def _messages_of(path: Path, module: str) -> Iterator[tuple[str, Message]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            text = _text(node.args[0])
            hint = next((_text(k.value) for k in node.keywords if k.arg == "hint"), None)
            if text is not None:
                yield node.func.id, Message(module, text, hint or "")


def _text(node: ast.expr) -> str | None:
    """A literal or formatted string as it reads; `None` for another expression."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(part) for part in node.values)
    return None


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.FormattedValue):
        shown = ast.unparse(node.value)
        return "{" + (shown if len(shown) <= _LONGEST_EXPRESSION else "...") + "}"
    return _text(node) or ""


def errors_page() -> str:
    """`docs/reference/errors.md`: every error, its exit code, and all messages with their hints."""
    return "\n".join(_page()).rstrip() + "\n"


def _page() -> Iterator[str]:
    yield "# Errors\n"
    yield "Generated from the sources; do not edit. Exit codes without an error are in"
    yield "docs/exit_codes.md. `{...}` is what a message fills in; after an arrow, its hint.\n"
    yield "| code | exit | title | meaning |"
    yield "| --- | --- | --- | --- |"
    for error in error_classes():
        meaning = " ".join((error.__doc__ or "").split())
        yield f"| {error.code} | {error.exit_code} | {error.title} | {meaning} |"
    yield ""
    for name, listed in messages().items():
        error = next(each for each in error_classes() if each.__name__ == name)
        yield f"## {error.code}: {error.title}\n"
        module = None
        for message in listed:
            if message.module != module:
                module = message.module
                yield f"`{module}`:\n"
            yield f"- {message.text}" + (f" -> {message.hint}" if message.hint else "")
            if message is listed[-1] or listed[listed.index(message) + 1].module != module:
                yield ""
