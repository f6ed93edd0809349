"""Checks `match`: resolves ops and operands, makes nested ops flat, finds the root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    UnitAttr,
)
from xdsl.irdl import OpDef, OptOperandDef, OptPropertyDef, VarOperandDef

from tilewright.passes.rules import syntax
from tilewright.passes.rules.rule import (
    AttributePattern,
    AttributeTest,
    Dim,
    OperandPattern,
    OpPattern,
    Origin,
    Presence,
    Value,
    ValueKind,
    parts_of,
)
from tilewright.passes.rules.scope import (
    SEGMENTS,
    NameKind,
    Scope,
    did_you_mean,
    enum_cases,
    property_class,
    resolve_op,
)
from tilewright.passes.rules.syntax import Constant, Span, Word
from tilewright.passes.rules.values import ELEMENTS

_ORIGINS = {origin.value: origin for origin in Origin}
_NUMBERS = (FloatAttr, IntegerAttr)


@dataclass
class Match:
    """A checked `match`."""

    ops: list[OpPattern] = field(default_factory=list[OpPattern])
    root: int = 0
    values: dict[str, Value] = field(default_factory=dict[str, Value])


def check_match(scope: Scope, statements: Sequence[syntax.Statement]) -> Match:
    """The pattern of `statements`; mistakes are noted in `scope`."""
    checker = _Checker(scope)
    roots: list[tuple[syntax.Statement, int]] = []
    last = 0
    for statement in statements:
        made = checker.statement(statement)
        last = len(checker.match.ops) - 1
        if statement.root is not None and made:
            roots.append((statement, last))
    for statement, _ in roots[1:]:
        scope.problem("there is one root", (statement.root or statement).span)
    checker.match.root = roots[0][1] if roots else last
    if not scope.problems:
        checker.require_connected()
    return checker.match


class _Checker:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.match = Match()

    def statement(self, statement: syntax.Statement) -> bool:
        return self.op(statement.op, statement.names) is not None

    def op(self, call: syntax.OpCall, names: Sequence[Word]) -> OpPattern | None:
        """Add the pattern of an op, and those nested in it before."""
        scope = self.scope
        if call.result_type is not None:
            scope.problem(
                "a matched op has no '->'",
                call.result_type.span,
                "say what its result is where it stands: y: f32[2, n]",
            )
        resolved = resolve_op(scope, call.op)
        if resolved is None:
            for operand in call.operands:
                self.bind_only(operand.value)
            for name in names:
                scope.define(name, NameKind.VALUE, is_matched=True)
            return None
        op, definition = resolved
        operands, counts = self.operands(call, definition)
        attributes = self.attributes(call, definition)
        results = self.results(call, definition, names)
        uses = None if call.uses is None else int(call.uses.text)
        pattern = OpPattern(op, results, operands, counts, attributes, uses, call.span)
        for at, name in enumerate(results):
            span = names[at].span if at < len(names) else call.span
            self.match.values[name] = Value(name, Presence.REQUIRED, (), len(self.match.ops), span)
        self.match.ops.append(pattern)
        return pattern

    def bind_only(self, value: syntax.Binder | syntax.OpCall | syntax.Call | syntax.Absent) -> None:
        """Bind the names in an operand of an op that there is not."""
        if isinstance(value, syntax.Binder) and value.name.text != "_":
            kind = NameKind.VALUES if value.suffix == "..." else NameKind.VALUE
            self.scope.bind(value.name, kind, optional=value.suffix == "?")
            self.kinds(value)
        elif isinstance(value, syntax.OpCall):
            self.op(value, ())

    def results(
        self, call: syntax.OpCall, definition: OpDef, names: Sequence[Word]
    ) -> tuple[str, ...]:
        scope = self.scope
        variadic = any(
            isinstance(each, VarOperandDef) or "Var" in type(each).__name__
            for _, each in definition.results
        )
        count = len(definition.results)
        if variadic:
            count = max(1, len(names))
        if names and len(names) != count:
            has = f"{count} result" + ("s" if count != 1 else "")
            scope.problem(
                f"{call.op.text} has {has}, not {len(names)}", names[0].span.to(names[-1].span)
            )
        made: list[str] = []
        for name in names:
            if name.text == "_":
                made.append(scope.fresh())
            else:
                scope.define(name, NameKind.VALUE, is_matched=True)
                made.append(name.text)
        return tuple(made) or tuple(scope.fresh() for _ in range(count))

    def operands(
        self, call: syntax.OpCall, definition: OpDef
    ) -> tuple[tuple[OperandPattern, ...], dict[str, int]]:
        given = assign_operands(self.scope, call, definition)
        counts: dict[str, int] = {}
        found: list[OperandPattern] = []
        for index, (name, kind) in enumerate(definition.operands):
            values = given.get(name, [])
            if isinstance(kind, OptOperandDef):
                found.append(self.optional(name, index, values, call))
            elif isinstance(kind, VarOperandDef):
                found += self.variadic(name, index, values, counts, call)
            else:
                found += [self.operand(name, index, None, value, call) for value in values]
        return tuple(found), counts

    def optional(
        self, name: str, index: int, values: list[syntax.Operand], call: syntax.OpCall
    ) -> OperandPattern:
        if not values or isinstance(values[0].value, syntax.Absent):
            span = values[0].span if values else call.span
            return OperandPattern(name, index, None, Presence.ABSENT, None, span)
        return self.operand(name, index, None, values[0], call, is_optional=True)

    def variadic(
        self,
        name: str,
        index: int,
        values: list[syntax.Operand],
        counts: dict[str, int],
        call: syntax.OpCall,
    ) -> list[OperandPattern]:
        if len(values) == 1 and isinstance(values[0].value, syntax.Binder):
            binder = values[0].value
            if binder.suffix == "...":
                if binder.kinds:
                    self.scope.problem("a list of values has no kind", binder.span)
                if binder.name.text != "_":
                    self.scope.bind(binder.name, NameKind.VALUES)
                return [
                    OperandPattern(
                        name,
                        index,
                        None,
                        Presence.ALL,
                        self.value(binder, Presence.ALL),
                        values[0].span,
                    )
                ]
        counts[name] = len(values)
        return [self.operand(name, index, item, value, call) for item, value in enumerate(values)]

    def operand(
        self,
        name: str,
        index: int,
        item: int | None,
        operand: syntax.Operand,
        call: syntax.OpCall,
        *,
        is_optional: bool = False,
    ) -> OperandPattern:
        value, presence, bound = operand.value, Presence.REQUIRED, None
        match value:
            case syntax.Binder():
                if value.suffix == "...":
                    self.scope.problem(f"{name} of {call.op.text} is one value", operand.span)
                if value.suffix == "?":
                    presence = Presence.OPTIONAL
                    if not is_optional:
                        self.scope.problem(
                            f"{name} of {call.op.text} is always there", operand.span
                        )
                if value.name.text != "_":
                    kind = NameKind.VALUES if value.suffix == "..." else NameKind.VALUE
                    self.scope.bind(value.name, kind, optional=value.suffix == "?")
                bound = self.value(value, presence)
            case syntax.OpCall():
                pattern = self.op(value, ())
                bound = pattern.results[0] if pattern is not None else None
                if pattern is not None and len(pattern.results) != 1:
                    self.scope.problem(
                        f"{value.op.text} has {len(pattern.results)} results: write it as a "
                        "statement",
                        value.span,
                    )
            case syntax.Call():
                self.scope.problem(
                    f"{value.function.text}(...) matches nothing",
                    value.span,
                    "ops have a dialect: top.MatMul(...); conditions stand behind where",
                )
            case syntax.Absent():
                self.scope.problem(f"{name} of {call.op.text} is always there", operand.span)
        return OperandPattern(name, index, item, presence, bound, operand.span)

    def value(self, binder: syntax.Binder, presence: Presence) -> str | None:
        """Note what a binder asks of its value, and give the name of the value."""
        kind = self.kinds(binder) if binder.suffix != "..." else None
        name = binder.name.text
        if name == "_":
            if kind is None:
                return None
            name = self.scope.fresh()
        old = self.match.values.get(name)
        kinds = (*(old.kinds if old is not None else ()), *((kind,) if kind is not None else ()))
        if old is not None and old.presence is Presence.REQUIRED:
            presence = Presence.REQUIRED
        producer = None if old is None else old.producer
        span = binder.span if old is None else old.span
        self.match.values[name] = Value(name, presence, kinds, producer, span)
        return name

    def kinds(self, binder: syntax.Binder) -> ValueKind | None:
        """What the words behind the colon ask."""
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
                dims = None if kind.dims is None else self.dims(kind.dims, kind.span)
            else:
                known = (*_ORIGINS, "rank", *ELEMENTS)
                self.scope.problem(
                    "rank is followed by a number"
                    if kind.word == "rank"
                    else f"{kind.word} is no kind of value",
                    kind.span,
                    did_you_mean(kind.word, known) or f"kinds are {', '.join(known)}, f32[_, n]",
                )
        return ValueKind(origin, rank, element, dims, binder.span)

    def dims(self, dims: Sequence[syntax.Expression | None], span: Span) -> tuple[Dim, ...]:
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
                    self.scope.bind(Word(name, where), NameKind.SIZE)
                    found.append(Dim(name=name))
                case _:
                    self.scope.problem(
                        "a size is a number, a name, _ or ...",
                        dim.span,
                        "write where dim(x, 0) == ... for more",
                    )
        if sum(dim.rest for dim in found) > 1:
            self.scope.problem("'...' stands once", span)
        return tuple(found)

    def attributes(self, call: syntax.OpCall, definition: OpDef) -> tuple[AttributePattern, ...]:
        found: dict[str, AttributePattern] = {}
        known = [name for name in definition.properties if name not in SEGMENTS]
        for attribute in call.attributes:
            name, span = attribute.name.text, attribute.name.span
            if name in found:
                self.scope.problem(f"{name} is there twice", span)
            if name not in known and "." not in name:
                hint = did_you_mean(name, known)
                has = f"it has {', '.join(known)}" if known else "it has none"
                self.scope.problem(f"{call.op.text} has no attribute {name}", span, hint or has)
                if isinstance(attribute.value, syntax.Name):
                    self.scope.bind(
                        Word(attribute.value.name, attribute.value.span), NameKind.ATTRIBUTE
                    ).used = True
                continue
            found[name] = self.attribute(attribute, definition)
        for name in known:
            # What may be missing and is not spoken of is missing.
            if name not in found and isinstance(definition.properties[name], OptPropertyDef):
                is_unit = property_class(definition, name) is UnitAttr
                absent = False if is_unit else None
                found[name] = AttributePattern(
                    name, AttributeTest.EQUALS, absent, is_unit, call.span
                )
        return tuple(found.values())

    def attribute(self, attribute: syntax.Attribute, definition: OpDef) -> AttributePattern:
        name, value = attribute.name.text, attribute.value
        span = attribute.name.span.to(value.span)
        base = property_class(definition, name)
        is_unit = base is UnitAttr
        cases = enum_cases(definition, name)
        if isinstance(value, syntax.Name) and value.name not in cases:
            if value.name == "_":
                return AttributePattern(name, AttributeTest.ANY, None, is_unit, span)
            word = Word(value.name, value.span)
            self.scope.bind(word, NameKind.ATTRIBUTE)
            return AttributePattern(name, AttributeTest.CAPTURE, value.name, is_unit, span)
        constant: Constant | tuple[Constant, ...]
        if isinstance(value, syntax.Name):
            constant = value.name
        elif isinstance(value, syntax.Literal) and value.value is None and "none" in cases:
            constant = "none"
        else:
            constant = self.constant(value)
        if is_unit and constant is None:
            constant = False
        wrong = _wrong_constant(constant, base, cases)
        if wrong:
            self.scope.problem(f"{name} of {definition.name} is {wrong}", value.span)
        return AttributePattern(name, AttributeTest.EQUALS, constant, is_unit, span)

    def constant(self, value: syntax.Expression) -> Constant | tuple[Constant, ...]:
        match value:
            case syntax.Literal(constant):
                return constant
            case syntax.Unary("-", syntax.Literal(int() | float() as number)):
                return -number
            case syntax.Listing(items):
                listed = [self.constant(item) for item in items]
                return tuple(item for item in listed if not isinstance(item, tuple))
            case _:
                self.scope.problem(
                    "an attribute is a name to bind, or a number, a text, true, false or none",
                    value.span,
                    "bind it, and write the condition behind where",
                )
                return None

    def require_connected(self) -> None:
        """Every op must be found from the root, through operands or through uses."""
        _, left = parts_of(self.match.ops, self.match.root)
        for index in sorted(left):
            self.scope.problem(
                f"{self.match.ops[index].op.name} has no value in common with the root, "
                "nor with what leads to it",
                self.match.ops[index].span,
                "the root is the last op, or the one marked root",
            )


def assign_operands(
    scope: Scope, call: syntax.OpCall, definition: OpDef
) -> dict[str, list[syntax.Operand]]:
    """Which operands stand for which field; notes those that are missing or too many."""
    kinds = dict(definition.operands)
    positional = [name for name, kind in kinds.items() if not isinstance(kind, OptOperandDef)]
    given: dict[str, list[syntax.Operand]] = {}
    extra: list[syntax.Operand] = []
    place = 0
    for operand in call.operands:
        if operand.field is not None:
            name = operand.field.text
            if name not in kinds:
                has = f"it has {', '.join(kinds)}" if kinds else "it has none"
                scope.problem(
                    f"{call.op.text} has no operand {name}",
                    operand.field.span,
                    did_you_mean(name, kinds) or has,
                )
                continue
            if name in given:
                scope.problem(f"{name} is there twice", operand.span)
            given[name] = [operand]
        elif place < len(positional):
            name = positional[place]
            given.setdefault(name, []).append(operand)
            if not isinstance(kinds[name], VarOperandDef):
                place += 1
        else:
            extra.append(operand)
    missing = [
        name
        for name in positional
        if name not in given and not isinstance(kinds[name], VarOperandDef)
    ]
    if extra:
        optional = [name for name in kinds if name not in positional]
        scope.problem(
            f"{call.op.text} has {_count(positional)}, not {len(positional) + len(extra)}",
            extra[0].span,
            f"{optional[0]} is given by name: {optional[0]} = b" if optional else None,
        )
    elif missing:
        scope.problem(
            f"{call.op.text} has {_count(positional)}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            call.span,
        )
    return given


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} operand" + ("s" if len(names) != 1 else "")


def _wrong_constant(constant: object, base: type | None, cases: tuple[str, ...]) -> str | None:
    """What the attribute is, in words, where `constant` can never be its value."""
    if cases:
        return None if constant in cases else f"one of {', '.join(cases)}"
    is_number = isinstance(constant, int | float)
    if base in _NUMBERS and not (is_number or constant is None):
        return "a number"
    if base is StringAttr and not isinstance(constant, str):
        return "a text in quotes"
    if base is UnitAttr and not (isinstance(constant, bool) or constant is None):
        return "true or false"
    if base in (DenseArrayBase, ArrayAttr) and not isinstance(constant, tuple):
        return "a list"
    return None
