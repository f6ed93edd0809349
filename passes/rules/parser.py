"""From text to `syntax`, by the grammar in grammar.lark."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

from lark import Lark, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from tilewright.passes.rules import syntax
from tilewright.passes.rules.grammar_tables import make_parser
from tilewright.passes.rules.source import Problem, Source
from tilewright.passes.rules.syntax import Span
from tilewright.passes.rules.syntax_builder import span_of

_WORDS = {
    "NAME": "a name",
    "PATH": "an op such as top.Add",
    "INT": "a whole number",
    "FLOAT": "a number",
    "STRING": "a text in quotes",
    "DOC": "documentation (///)",
    "COMPARE": "a comparison",
    "OPTIONAL": "'?'",
    "ELLIPSIS": "'...'",
    "_COLON": "':'",
    "_COMMA": "','",
    "_EQUALS": "'='",
    "_ARROW": "'->'",
    "_LPAR": "'('",
    "RPAR": "')'",
    "_LSQB": "'['",
    "RSQB": "']'",
    "_LBRACE": "'{'",
    "RBRACE": "'}'",
    "$END": "the end of the file",
}
"""How messages call terminals; keywords are called what they are."""

_OPERATORS = frozenset(("COMPARE", "PLUS", "MINUS", "TIMES", "OVER", "MODULO", "AND", "OR", "IN"))
_OPERANDS = frozenset(("INT", "FLOAT", "STRING", "TRUE", "FALSE", "NONE", "NAME", "MINUS", "_LPAR"))
_ITEM = re.compile(r"^[ \t]*(?:///(?!/)|(?:rule|lowering|use)\b)", re.MULTILINE)


@cache
def rule_parser() -> Lark:
    """The parser, made once."""
    return make_parser()


def parse(source: Source) -> tuple[syntax.FileSyntax, list[Problem]]:
    """What `source` holds, and all its mistakes of syntax.

    Items with mistakes are left out of what is returned.
    """
    try:
        return _file(rule_parser().parse(source.text)), []
    except UnexpectedInput as error:
        first = error
    found = syntax.FileSyntax()
    problems: list[Problem] = []
    for part in _items(source.text):
        try:
            read = _file(rule_parser().parse(part))
        except UnexpectedInput as error:
            problems.append(_problem(source, error))
        else:
            found.uses += read.uses
            found.rules += read.rules
    return found, problems or [_problem(source, first)]


def _file(tree: object) -> syntax.FileSyntax:
    assert isinstance(tree, syntax.FileSyntax)
    return tree


def _items(text: str) -> list[str]:
    """`text` item by item (imports, rules), each with all the others blanked out."""
    starts = [match.start() for match in _ITEM.finditer(text)]
    # Documentation belongs to the item below it.
    heads = [
        start
        for before, start in zip([None, *starts], starts, strict=False)
        if before is None or not text[before:start].lstrip().startswith("///")
    ]
    bounds = [0, *heads[1:], len(text)]
    return [
        re.sub(r"[^\n]", " ", text[:start]) + text[start:end] for start, end in pairwise(bounds)
    ]


def _problem(source: Source, error: UnexpectedInput) -> Problem:
    if isinstance(error, UnexpectedToken):
        token, expected = error.token, error.accepts or error.expected
        if token.type == "$END":
            lines = source.text.rstrip().splitlines() or [""]
            span = Span(len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 2)
            return source.problem(f"expected {_expected(expected)}, but the text ends", span)
        return source.problem(f"expected {_expected(expected)}, not {str(token)!r}", span_of(token))
    assert isinstance(error, UnexpectedCharacters)
    span = Span(error.line, error.column, error.line, error.column + 1)
    found = re.match(r"\w+|.", error.char + source.text[error.pos_in_stream + 1 :], re.DOTALL)
    shown = found.group() if found else error.char
    return source.problem(
        f"expected {_expected(error.allowed)}, not {shown!r}",
        Span(span.line, span.column, span.line, span.column + len(shown)),
    )


def _expected(terminals: set[str] | None) -> str:
    names = set(terminals or ())
    words: list[str] = []
    if {"INT", "FLOAT", "_LPAR"} <= names:
        names -= _OPERANDS | {"NOT", "_LSQB"}
        words.append("an expression")
    if {"PLUS", "TIMES"} <= names:
        names -= _OPERATORS | {"_LSQB"}
        words.append("an operator")
    words += [_WORDS.get(name, f"'{name.strip('_').lower()}'") for name in sorted(names)]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
