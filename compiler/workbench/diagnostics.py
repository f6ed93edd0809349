"""`--verify-diagnostics`: the errors that a test file says it expects, against those that come.

    // expected-error@+1 {{has no offsets}}
    %x = gdma.load ...

expects an error on the next line whose text contains `has no offsets`. The place is that of the
comment, or `@+N`, `@-N`, `@above`, `@below` (the nearest line without such a comment), `@unknown`.
In `expected-error-re` text within further `{{` `}}` is a regular expression. As in MLIR's
`SourceMgrDiagnosticVerifierHandler`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewright.dialects.errors import OptionError, TilewrightError

KINDS = ("error", "warning", "remark", "note")
_COMMENT = re.compile(
    rf"expected-(?P<kind>{'|'.join(KINDS)})(?P<re>-re)?\s*"
    r"(@(?P<place>[+-]\d+|above|below|unknown))?\s*\{\{(?P<text>.*)\}\}\s*$"
)


@dataclass(frozen=True)
class Diagnostic:
    """An error that has come, on a line of the file or on none."""

    line: int | None
    message: str


@dataclass(frozen=True)
class Expected:
    """What a comment expects; `line` is none for an error without a place."""

    kind: str
    text: str
    is_pattern: bool
    line: int | None
    comment_line: int

    def is_met_by(self, came: Diagnostic) -> bool:
        """Whether an error that has come is the one that is expected."""
        return self.kind == "error" and self.line == came.line and self.matches(came.message)

    def matches(self, message: str) -> bool:
        """Whether a message says what is expected."""
        if not self.is_pattern:
            return self.text in message
        parts = re.split(r"\{\{(.*?)\}\}", self.text)
        pattern = "".join(p if i % 2 else re.escape(p) for i, p in enumerate(parts))
        return re.search(pattern, message) is not None


def expected_in(text: str, name: str) -> list[Expected]:
    """What the comments of `text`, the file `name`, expect.

    Raises `OptionError` for a pattern that is no regular expression.
    """
    lines = text.split("\n")
    found = [_COMMENT.search(line) for line in lines]
    expected: list[Expected] = []
    for index, match in enumerate(found):
        if match is None:
            continue
        each = Expected(
            match["kind"],
            match["text"],
            match["re"] is not None,
            _line(match["place"], index, found),
            index + 1,
        )
        try:
            each.matches("")
        except re.error as error:
            raise OptionError(
                f"{each.text!r} is no pattern", where=f"{name}:{index + 1}", why=str(error)
            ) from error
        expected.append(each)
    return expected


def _line(place: str | None, index: int, found: Sequence[re.Match[str] | None]) -> int | None:
    if place == "unknown":
        return None
    if place in ("above", "below"):
        step = -1 if place == "above" else 1
        index += step
        while 0 <= index < len(found) and found[index] is not None:
            index += step
        return index + 1
    return index + 1 + int(place or 0)


def diagnostic_of(error: TilewrightError, name: str) -> Diagnostic:
    """An error as a diagnostic of the file `name`: its line is the one it says where."""
    place = re.search(rf"(?<![^\s(]){re.escape(name)}:(\d+)", error.where or "")
    message = " ".join(str(error).split())
    return Diagnostic(int(place[1]) if place else None, message)


def mismatches(
    expected: Sequence[Expected], came: Sequence[Diagnostic], name: str
) -> Iterator[str]:
    """What is wrong: errors that nobody expects, and what is expected and has not come."""
    missing = list(expected)
    for each in came:
        match = next((e for e in missing if e.is_met_by(each)), None)
        if match is None:
            place = name if each.line is None else f"{name}:{each.line}"
            yield f"{place}: unexpected error: {each.message}"
        else:
            missing.remove(match)
    for each in missing:
        where = "without a place" if each.line is None else f"on line {each.line}"
        yield f"{name}:{each.comment_line}: expected {each.kind} {each.text!r} {where} has not come"
