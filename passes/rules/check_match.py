"""Checks `match`: resolves ops and operands, makes nested ops flat, finds the root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.irdl import OpDef, OptOperandDef, VarOperandDef

from tilewright.passes.rules import syntax
from tilewright.passes.rules.check_attributes import check_attributes
from tilewright.passes.rules.check_kinds import check_kinds
from tilewright.passes.rules.check_operands import assign_operands
from tilewright.passes.rules.rule import OperandPattern, OpPattern, Presence, Value, parts_of
from tilewright.passes.rules.scope import NameKind, Scope, resolve_op
from tilewright.passes.rules.syntax import Word


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
        attributes = check_attributes(self.scope, call, definition)
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
            check_kinds(self.scope, value)
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
        kind = check_kinds(self.scope, binder) if binder.suffix != "..." else None
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
