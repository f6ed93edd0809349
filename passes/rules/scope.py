"""The names of one rule while it is checked, and the mistakes found in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache

from xdsl.context import Context
from xdsl.dialects.utils import EnumAttribute
from xdsl.irdl import IRDLOperation, OpDef

from tilewright.dialects import plugins
from tilewright.dialects.context import make_context
from tilewright.passes.rules.source import Problem, Source
from tilewright.passes.rules.syntax import Span, Word

SEGMENTS = ("operandSegmentSizes", "resultSegmentSizes")
"""Properties that xDSL keeps for itself."""


class NameKind(Enum):
    """What a name stands for, as messages call it."""

    VALUE = "a value"
    VALUES = "a list of values"
    ATTRIBUTE = "an attribute"
    SIZE = "a size"
    LET = "an expression"


@dataclass
class Bound:
    """A name that is bound."""

    kind: NameKind
    span: Span
    optional: bool = False
    result: bool = False
    """Whether a matched or new op makes it."""
    used: bool = False


@dataclass
class Scope:
    """Names, functions and mistakes of one rule."""

    source: Source
    functions: Mapping[str, Callable[..., object]]
    is_lowering: bool
    names: dict[str, Bound] = field(default_factory=dict[str, Bound])
    problems: list[Problem] = field(default_factory=list[Problem])
    anonymous: int = 0

    def problem(self, message: str, span: Span, hint: str | None = None) -> None:
        """Note a mistake."""
        self.problems.append(self.source.problem(message, span, hint))

    def fresh(self) -> str:
        """A name that no rule can spell."""
        self.anonymous += 1
        return f"${self.anonymous}"

    def bind(self, word: Word, kind: NameKind, *, optional: bool = False) -> Bound:
        """Bind a name; where it is bound already, to the same kind of thing."""
        before = self.names.get(word.text)
        if before is None:
            before = self.names[word.text] = Bound(kind, word.span, optional)
        elif before.kind is not kind:
            self.problem(
                f"{word.text} is {kind.value} here, but {before.kind.value} in line "
                f"{before.span.line + self.source.first_line - 1}",
                word.span,
            )
        else:
            before.used = True
            before.optional = before.optional and optional
        return before

    def define(self, word: Word, kind: NameKind, *, is_matched: bool = False) -> None:
        """Bind a name that must not be bound yet; `is_matched` if it is in `match`."""
        before = self.names.get(word.text)
        if before is not None:
            line = before.span.line + self.source.first_line - 1
            why = (
                "it is the operand of an earlier op: an op stands before those that take its result"
                if kind is before.kind is NameKind.VALUE and not before.result and is_matched
                else None
            )
            self.problem(f"{word.text} is bound already, in line {line}", word.span, why)
            return
        self.names[word.text] = Bound(kind, word.span, result=True)

    def look_up(self, word: Word) -> Bound | None:
        """What a name stands for; notes a mistake where it is not bound."""
        bound = self.names.get(word.text)
        if bound is None:
            self.problem(
                f"{word.text} is not bound", word.span, did_you_mean(word.text, self.names)
            )
            return None
        bound.used = True
        return bound


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the known name that is nearest, if one is near."""
    # Rules without mistakes do not pay for it.
    from difflib import get_close_matches

    spelled = {each.lower(): each for each in known if not each.startswith("$")}
    near = get_close_matches(name.lower(), spelled, n=1, cutoff=0.6)
    return f"did you mean {spelled[near[0]]}?" if near else None


@cache
def op_context() -> Context:
    """Where the ops are looked up, those of installed packages included."""
    return make_context()


def resolve_op(scope: Scope, word: Word) -> tuple[type[IRDLOperation], OpDef] | None:
    """The op class that `word` names; notes a mistake where there is none."""
    found = op_context().get_optional_op(word.text)
    if found is not None and issubclass(found, IRDLOperation):
        return found, found.get_irdl_definition()
    known = [op.name for op in op_context().loaded_ops if issubclass(op, IRDLOperation)]
    short = {name.rpartition(".")[2].lower(): name for name in known}
    hint = _missing_plugin(word.text, known) or did_you_mean(word.text, known)
    last = word.text.rpartition(".")[2].lower()
    if hint is None and last in short:
        hint = f"did you mean {short[last]}?"
    scope.problem(f"there is no op {word.text}", word.span, hint or "tw ops lists them")
    return None


def _missing_plugin(name: str, known: Iterable[str]) -> str | None:
    """Which plugins cannot be used, for an op of a dialect that nobody gives."""
    dialects = {each.partition(".")[0] for each in known}
    missing = plugins.left_out() if name.partition(".")[0] not in dialects else None
    return missing and f"left out: {missing}"


def enum_cases(definition: OpDef, attribute: str) -> tuple[str, ...]:
    """The words that a property may have, if it is an enumeration."""
    base = property_class(definition, attribute)
    if base is None or not issubclass(base, EnumAttribute):
        return ()
    return tuple(str(case) for case in base.enum_type)


def property_class(definition: OpDef, attribute: str) -> type | None:
    """The one class that a property of this name has; None for others, and where there is none."""
    if attribute not in definition.properties:
        return None
    bases = definition.properties[attribute].constr.get_bases()
    return next(iter(bases)) if bases is not None and len(bases) == 1 else None
