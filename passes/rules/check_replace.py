"""Checks `replace`: what new ops are made of, and what they are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.irdl import IRDLOperation, OpDef, OptOperandDef, VarOperandDef

from tilewright.passes.rules import syntax
from tilewright.passes.rules.check_expressions import check_call, check_expression
from tilewright.passes.rules.check_match import Match
from tilewright.passes.rules.check_operands import assign_operands
from tilewright.passes.rules.constructors import FROM_TYPE, arguments_of, making_of
from tilewright.passes.rules.rule import (
    BuildArgument,
    BuilderCall,
    ExplicitType,
    Making,
    OpBuild,
    Replacement,
    TypeOf,
)
from tilewright.passes.rules.scope import NameKind, Scope, did_you_mean, enum_cases, resolve_op
from tilewright.passes.rules.syntax import Expression, Span, Word
from tilewright.passes.rules.values import ELEMENTS


def check_replace(scope: Scope, replace: syntax.Replace, match: Match) -> Replacement:
    """The replacement of the root of `match`; mistakes are noted in `scope`."""
    return _Checker(scope, match).replacement(replace)


class _Checker:
    def __init__(self, scope: Scope, match: Match) -> None:
        self.scope = scope
        self.match = match
        self.root_results = match.ops[match.root].results if match.ops else ()
        self.replaced: set[str] = set(self.root_results)
        self.steps: list[OpBuild | BuilderCall] = []

    def replacement(self, replace: syntax.Replace) -> Replacement:
        targets = tuple(word.text for word in replace.targets)
        self.check_targets(replace)
        last: tuple[str, ...] = ()
        for statement in replace.statements:
            if statement.root is not None:
                self.scope.problem("root stands in match", statement.root.span)
            last = self.op(statement.op, statement.names)
        if replace.values and not replace.statements and len(replace.values) == 1:
            last = self.only_value(replace.values[0], len(targets))
        elif replace.values:
            last = tuple(
                name for value in replace.values if (name := self.value(value)) is not None
            )
        if len(last) != len(targets) and not self.scope.problems:
            self.scope.problem(
                f"{len(last)} value{'s' if len(last) != 1 else ''} cannot replace {len(targets)}",
                replace.span,
            )
        return Replacement(targets, tuple(self.steps), last, replace.span)

    def check_targets(self, replace: syntax.Replace) -> None:
        names = tuple(word.text for word in replace.targets)
        self.replaced.update(names)
        if self.are_whole_ops(names) or not self.root_results:
            return
        for word in replace.targets:
            if word.text not in self.scope.names:
                hint = did_you_mean(word.text, self.scope.names)
                if self.root_results[0].startswith("$"):
                    hint = f"give the root a name: {word.text} = ..."
                self.scope.problem(f"{word.text} is not bound", word.span, hint)
                return
        named = ", ".join("_" if name.startswith("$") else name for name in self.root_results)
        self.scope.problem(
            f"replace names the results of the root, {named}, or of several ops with it",
            replace.targets[0].span.to(replace.targets[-1].span),
            "the root is the last op of match, or the one marked root",
        )

    def are_whole_ops(self, names: tuple[str, ...]) -> bool:
        """Whether `names` are the results of ops, the root among them."""
        left = list(names)
        results = [op.results for op in self.match.ops]
        while left:
            whole = next((each for each in results if list(each) == left[: len(each)]), None)
            if not whole:
                return False
            left = left[len(whole) :]
        return names.count(self.root_results[0]) == 1 if self.root_results else False

    def only_value(
        self, value: syntax.Binder | syntax.OpCall | syntax.Call | syntax.Absent, count: int
    ) -> tuple[str, ...]:
        """`replace a, b with call(...)`: one call may make all that is needed."""
        if isinstance(value, syntax.Call):
            return self.builder(value, count)
        if isinstance(value, syntax.OpCall):
            return self.op(value, ())
        name = self.value(value)
        return () if name is None else (name,)

    def builder(self, call: syntax.Call, count: int) -> tuple[str, ...]:
        names = tuple(self.scope.fresh() for _ in range(count))
        self.steps.append(BuilderCall(check_call(self.scope, call, builds=True), names))
        return names

    def value(
        self, value: syntax.Binder | syntax.OpCall | syntax.Call | syntax.Absent
    ) -> str | None:
        """The name of a value: of a matched one, or of one made for it."""
        match value:
            case syntax.Binder():
                return self.bound(value)
            case syntax.Call():
                return self.builder(value, 1)[0]
            case syntax.OpCall():
                results = self.op(value, ())
                if len(results) == 1:
                    return results[0]
                self.scope.problem(f"{value.op.text} has {len(results)} results", value.span)
            case syntax.Absent():
                self.scope.problem("a value is needed, not none", value.span)
        return None

    def bound(self, binder: syntax.Binder) -> str | None:
        name = binder.name.text
        if binder.kinds:
            self.scope.problem("kinds stand in match", binder.span)
        if binder.suffix == "?":
            self.scope.problem(
                "'?' stands in match: what is missing there is left out here", binder.span
            )
        if name == "_":
            self.scope.problem("'_' stands in match", binder.span)
            return None
        found = self.scope.look_up(binder.name)
        if found is None:
            return None
        if found.kind not in (NameKind.VALUE, NameKind.VALUES):
            self.scope.problem(
                f"{name} is {found.kind.value}, not a value",
                binder.span,
                "attributes stand in braces: {" + name + "}",
            )
            return None
        if name in self.replaced:
            self.scope.problem(f"{name} is what is replaced", binder.span)
        return name

    def op(self, call: syntax.OpCall, names: Sequence[Word]) -> tuple[str, ...]:
        """Add the making of an op; the names of its results."""
        scope = self.scope
        if call.uses is not None:
            scope.problem("uses stands in match", call.uses.span)
        resolved = resolve_op(scope, call.op)
        if resolved is None:
            for word in names:
                scope.define(word, NameKind.VALUE)
            return tuple(word.text for word in names)
        op, definition = resolved
        making = making_of(op)
        operands = self.operands(call, definition)
        attributes = self.attributes(call, op, definition)
        result_type = self.result_type(call.result_type)
        if making is Making.GENERIC and result_type is None:
            scope.problem(
                f"{call.op.text} does not infer its result: say -> like y, or -> f32[2, n]",
                call.span,
            )
        count = len(names) or len(definition.results)
        if names and len(names) != len(definition.results) and definition.results:
            scope.problem(
                f"{call.op.text} has {len(definition.results)} results, not {len(names)}",
                names[0].span.to(names[-1].span),
            )
        results = tuple(word.text for word in names) or tuple(scope.fresh() for _ in range(count))
        for word in names:
            scope.define(word, NameKind.VALUE)
        self.steps.append(
            OpBuild(op, results, operands, attributes, making, result_type, call.span)
        )
        return results

    def operands(self, call: syntax.OpCall, definition: OpDef) -> tuple[BuildArgument, ...]:
        given = assign_operands(self.scope, call, definition)
        made: list[BuildArgument] = []
        for name, kind in definition.operands:
            values = given.get(name, [])
            if isinstance(kind, VarOperandDef) and not isinstance(kind, OptOperandDef):
                made.append(BuildArgument(name, self.variadic(values)))
            elif not values or isinstance(values[0].value, syntax.Absent):
                if values and not isinstance(kind, OptOperandDef):
                    self.scope.problem(f"{name} of {call.op.text} is needed", values[0].span)
                made.append(BuildArgument(name, None))
            else:
                made.append(BuildArgument(name, self.single(name, kind, values[0], call)))
        return tuple(made)

    def single(
        self, field: str, kind: object, operand: syntax.Operand, call: syntax.OpCall
    ) -> str | None:
        name = self.value(operand.value)
        bound = self.scope.names.get(name or "")
        if bound is not None and bound.kind is NameKind.VALUES:
            self.scope.problem(f"{field} of {call.op.text} is one value", operand.span)
        if bound is not None and bound.optional and not isinstance(kind, OptOperandDef):
            self.scope.problem(
                f"{name} may be missing, {field} of {call.op.text} may not", operand.span
            )
        return name

    def variadic(self, values: Sequence[syntax.Operand]) -> str | tuple[str, ...]:
        """The name of a list, or the names of its items."""
        names = [name for value in values if (name := self.value(value.value)) is not None]
        bound = self.scope.names.get(names[0]) if len(names) == 1 else None
        if bound is not None and bound.kind is NameKind.VALUES:
            return names[0]
        return tuple(names)

    def attributes(
        self, call: syntax.OpCall, op: type[IRDLOperation], definition: OpDef
    ) -> tuple[tuple[str, Expression], ...]:
        known = arguments_of(op)
        made: dict[str, Expression] = {}
        for attribute in call.attributes:
            name = attribute.name.text
            if name in made:
                self.scope.problem(f"{name} is there twice", attribute.name.span)
            if name not in known and "." not in name:
                has = f"it takes {', '.join(known)}" if known else "it takes none"
                self.scope.problem(
                    f"{call.op.text} takes no attribute {name}",
                    attribute.name.span,
                    did_you_mean(name, known) or has,
                )
            value, cases = attribute.value, enum_cases(definition, name)
            if isinstance(value, syntax.Literal) and value.value is None and "none" in cases:
                value = syntax.Literal("none", value.span)
            made[name] = check_expression(self.scope, value, cases)
        self.require_complete(call, {name: known[name] for name in known if name not in made})
        return tuple(made.items())

    def require_complete(self, call: syntax.OpCall, left_out: Mapping[str, bool]) -> None:
        """Every argument that is needed is given, or follows from the type of the result."""
        missing = [
            name
            for name, is_needed in left_out.items()
            if is_needed and not (call.result_type is not None and name in FROM_TYPE)
        ]
        if missing:
            from_type = all(name in FROM_TYPE for name in missing)
            self.scope.problem(
                f"{call.op.text} needs {' and '.join(missing)}",
                call.span,
                "say it in braces, or -> like y" if from_type else "say it in braces",
            )

    def result_type(self, given: syntax.ResultType | None) -> TypeOf | ExplicitType | None:
        if given is None:
            return None
        if given.like is not None:
            bound = self.scope.look_up(given.like)
            if bound is not None and bound.kind is not NameKind.VALUE:
                self.scope.problem(f"{given.like.text} is {bound.kind.value}", given.span)
            return TypeOf(given.like.text, given.span)
        assert given.element is not None
        dims = tuple(self.dim(dim, given.span) for dim in given.dims)
        if given.element.text not in ELEMENTS:
            self.scope.problem(
                f"{given.element.text} is no element type",
                given.element.span,
                f"one of {', '.join(ELEMENTS)}",
            )
            return None
        return ExplicitType(ELEMENTS[given.element.text], dims, given.span)

    def dim(self, dim: Expression | None, span: Span) -> Expression:
        if dim is None:
            self.scope.problem("'...' stands in match", span)
            return syntax.Literal(0, span)
        return check_expression(self.scope, dim)
