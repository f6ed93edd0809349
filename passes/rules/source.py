"""Where rules are written, and errors that point there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tilewright.dialects.errors import OptionError
from tilewright.dialects.source_lines import readable_file
from tilewright.passes.rules.syntax import Span


class RuleError(OptionError):
    """Rules that make no sense; `problems` says all that is wrong with them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = len(self.problems) - 1
        super().__init__(
            "\n".join(problem.text for problem in self.problems)
            if more
            else f"{first.place}: {first.message}",
            why=None if more else first.picture,
            hint=None if more else first.hint,
        )


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what it is, and the line with a caret below."""

    place: str
    """`file:line:column`."""
    message: str
    picture: str
    hint: str | None = None
    order: tuple[int, int] = (0, 0)
    """Line and column, to sort by."""

    @property
    def text(self) -> str:
        lines = [f"{self.place}: {self.message}"]
        lines += [f"  {line}" for line in self.picture.splitlines()]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


@dataclass
class Source:
    """A text with rules, called `name` in messages; `first_line` is the number of its first line.

    `text` keeps the lines and columns of the file that it is from.
    """

    name: str
    text: str
    locate: Callable[[], int] = field(default=lambda: 1)
    """Finds the number of the first line; asked only when there is something to say."""
    folder: str | None = None
    """Where modules are looked for, too, whose functions it uses: that of a file of rules."""

    @cached_property
    def first_line(self) -> int:
        return self.locate()

    def place(self, span: Span) -> str:
        """`file:line:column` of the beginning of `span`."""
        return f"{self.name}:{span.line + self.first_line - 1}:{span.column}"

    def problem(self, message: str, span: Span, hint: str | None = None) -> Problem:
        """A mistake at `span`."""
        lines = self.text.splitlines() or [""]
        line = lines[min(span.line, len(lines)) - 1].expandtabs(1)
        end = span.end_column if span.end_line == span.line else len(line) + 1
        picture = line + "\n" + " " * (span.column - 1) + "^" * max(1, end - span.column)
        return Problem(self.place(span), message, picture, hint, (span.line, span.column))

    def error(self, message: str, span: Span, hint: str | None = None) -> RuleError:
        """A single mistake at `span`, to raise."""
        return RuleError([self.problem(message, span, hint)])


_BLOCK = re.compile(r"^[ \t]*```rules[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


def file_source(path: Path) -> Source:
    """The rules in a file. Raises `OptionError` where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        return Source(str(path), text, folder=str(path.resolve().parent))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read the rules of {path}", why=str(error)) from error


def docstring_source(cls: type) -> Source | None:
    """The rules in the ```rules blocks of the docstring of `cls`; None if it has none.

    Everything else of the docstring is blank, so that places are those of the Python file.
    """
    doc = cls.__doc__ or ""
    kept = [match.span(1) for match in _BLOCK.finditer(doc)]
    if not kept:
        return None
    text, end = "", 0
    for start, stop in kept:
        text += _blank(doc[end:start]) + doc[start:stop]
        end = stop
    return Source(_file_of(cls), text, lambda: _line_of_docstring(cls))


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _file_of(cls: type) -> str:
    try:
        return readable_file(inspect.getfile(cls))
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"


def _line_of_docstring(cls: type) -> int:
    """The line on which the docstring of `cls` begins; 1 where the source is not at hand."""
    try:
        lines, first = inspect.getsourcelines(cls)
        tree = ast.parse(inspect.cleandoc("\n" + "".join(lines)) if lines else "")
    except (OSError, TypeError, SyntaxError):
        return 1
    body = tree.body[0]
    assert isinstance(body, ast.ClassDef)
    statement = body.body[0]
    return max(first, 1) + statement.lineno - 1
