"""Checks expressions: names are bound, functions are there and take what they are given."""

from __future__ import annotations

from dataclasses import replace

from tilewright.passes.rules import syntax
from tilewright.passes.rules.scope import NameKind, Scope, did_you_mean
from tilewright.passes.rules.syntax import Expression, Word
from tilewright.passes.rules.values import ELEMENTS, FUNCTIONS, LOWERING_BUILDERS

_VALUES = (NameKind.VALUE, NameKind.VALUES)
_ARITHMETIC = frozenset(("+", "-", "*", "/", "%", "<", "<=", ">", ">="))


def check_expression(
    scope: Scope, expression: Expression, cases: tuple[str, ...] = ()
) -> Expression:
    """`expression` with its functions resolved.

    A bare name that is not bound is a text where it is one of `cases`: `{mode: mean}`.
    """
    match expression:
        case syntax.Literal():
            return expression
        case syntax.Name(name, span):
            if name not in scope.names and name in cases:
                return syntax.Literal(name, span)
            if name not in scope.names and name in ELEMENTS:
                return expression
            if name not in scope.names and (name in FUNCTIONS or name in scope.functions):
                scope.problem(f"{name} is a function: write {name}(...)", span)
                return expression
            scope.look_up(Word(name, span))
            return expression
        case syntax.Unary(operator, operand, span):
            if operator == "-":
                _require_number(scope, operand)
            return syntax.Unary(operator, check_expression(scope, operand), span)
        case syntax.Binary(operator, left, right, span):
            if operator in _ARITHMETIC:
                _require_number(scope, left)
                _require_number(scope, right)
            return syntax.Binary(
                operator, check_expression(scope, left), check_expression(scope, right), span
            )
        case syntax.Listing(items, span):
            return syntax.Listing(tuple(check_expression(scope, item) for item in items), span)
        case syntax.Index(value, index, span):
            _require_number(scope, index)
            return syntax.Index(
                check_expression(scope, value), check_expression(scope, index), span
            )
        case syntax.Call():
            return check_call(scope, expression)


def check_call(scope: Scope, call: syntax.Call, *, builds: bool = False) -> syntax.Call:
    """`call` with its function resolved; `builds` where it must make values."""
    name = call.function.text
    arguments = tuple(check_expression(scope, argument) for argument in call.arguments)
    target = scope.functions.get(name)
    if target is None:
        if builds:
            _check_builder(scope, call)
        elif name not in FUNCTIONS:
            known = {**FUNCTIONS, **scope.functions}
            hint = did_you_mean(name, known) or f"use some.module: {name}"
            scope.problem(f"there is no function {name}", call.function.span, hint)
        elif FUNCTIONS[name][0] != len(arguments):
            count = FUNCTIONS[name][0]
            takes = f"{count} argument" + ("s" if count != 1 else "")
            scope.problem(f"{name} takes {takes}, not {len(arguments)}", call.span)
    return replace(call, arguments=arguments, target=target)


def _check_builder(scope: Scope, call: syntax.Call) -> None:
    name = call.function.text
    if name not in LOWERING_BUILDERS:
        hint = did_you_mean(name, (*scope.functions, *LOWERING_BUILDERS))
        hint = hint or f"use some.module: {name}"
        scope.problem(f"there is no function {name} that makes values", call.function.span, hint)
    elif not scope.is_lowering:
        scope.problem(f"{name} is there in lowerings only", call.function.span)
    elif len(call.arguments) != 1:
        scope.problem(f"{name} takes 1 argument, not {len(call.arguments)}", call.span)


def _require_number(scope: Scope, expression: Expression) -> None:
    """A value is no number: notes the mistake where a name stands for one."""
    if not isinstance(expression, syntax.Name):
        return
    bound = scope.names.get(expression.name)
    if bound is not None and bound.kind in _VALUES:
        scope.problem(
            f"{expression.name} is {bound.kind.value}, not a number",
            expression.span,
            f"ask for dim({expression.name}, -1), rank({expression.name}), ...",
        )
