"""Checks what stands behind the colon of a value in `match`."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.passes.rules import syntax
from tilewright.passes.rules.rule import Dim, Origin, ValueKind
from tilewright.passes.rules.scope import NameKind, Scope, did_you_mean
from tilewright.passes.rules.syntax import Span, Word
from tilewright.passes.rules.values import ELEMENTS

_ORIGINS = {origin.value: origin for origin in Origin}


def check_kinds(scope: Scope, binder: syntax.Binder) -> ValueKind | None:
    """What the words behind the colon ask; mistakes are noted in `scope`."""
    if not binder.kinds:
        return None
    origin: Origin | None = None
    rank: int | None = None
    element = None
    dims: tuple[Dim, ...] | None = None
    words = list(binder.kinds)
    while words:
        kind = words.pop(0)
        if kind.word in _ORIGINS and kind.dims is None:
            origin = _ORIGINS[kind.word]
        elif kind.word == "rank" and words and words[0].word.isdecimal():
            rank = int(words.pop(0).word)
        elif kind.word in ELEMENTS or (kind.word == "_" and kind.dims is not None):
            element = ELEMENTS.get(kind.word)
            dims = None if kind.dims is None else _dims(scope, kind.dims, kind.span)
        else:
            known = (*_ORIGINS, "rank", *ELEMENTS)
            scope.problem(
                "rank is followed by a number"
                if kind.word == "rank"
                else f"{kind.word} is no kind of value",
                kind.span,
                did_you_mean(kind.word, known) or f"kinds are {', '.join(known)}, f32[_, n]",
            )
    return ValueKind(origin, rank, element, dims, binder.span)


def _dims(scope: Scope, dims: Sequence[syntax.Expression | None], span: Span) -> tuple[Dim, ...]:
    found: list[Dim] = []
    for dim in dims:
        match dim:
            case None:
                found.append(Dim(rest=True))
            case syntax.Literal(value) if type(value) is int:
                found.append(Dim(size=value))
            case syntax.Name("_"):
                found.append(Dim())
            case syntax.Name(name, where):
                scope.bind(Word(name, where), NameKind.SIZE)
                found.append(Dim(name=name))
            case _:
                scope.problem(
                    "a size is a number, a name, _ or ...",
                    dim.span,
                    "write where dim(x, 0) == ... for more",
                )
    if sum(dim.rest for dim in found) > 1:
        scope.problem("'...' stands once", span)
    return tuple(found)
