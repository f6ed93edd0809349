"""Expressions of rules as Python functions of the names they stand for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.errors import TilewrightError
from tilewright.passes.rules import syntax
from tilewright.passes.rules.comparisons import COMPARISONS
from tilewright.passes.rules.source import Source
from tilewright.passes.rules.syntax import Expression, Span
from tilewright.passes.rules.values import ELEMENTS, FUNCTIONS, NoValueError

Names = Mapping[str, object]
Evaluate = Callable[[Names], object]

_UNDEFINED = (VerifyException, IndexError, ZeroDivisionError, OverflowError, ValueError)
"""What builtin functions raise where they have no value."""


_OPERATORS: Mapping[str, Callable[..., object]] = {
    **COMPARISONS,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}
_COMPARE_ANYTHING = ("==", "!=", "in")


def compile_expression(source: Source, expression: Expression) -> Evaluate:
    """A function from the bound names to the value of `expression`.

    The function raises `NoValueError` where there is no value (a dimension that a tensor does not
    have, a division by zero, a missing operand), and `RuleError` where the rule makes no sense or a
    function of the user's raises.
    """
    compiled = _compile(source, expression)

    def evaluate(names: Names) -> object:
        try:
            return compiled(names)
        except _UNDEFINED as error:
            raise NoValueError from error
        except TypeError as error:
            raise source.error(f"this has no value: {error}", expression.span) from error

    return evaluate


def _compile(source: Source, expression: Expression) -> Evaluate:
    match expression:
        case syntax.Literal(value):
            return lambda names: value
        case syntax.Name(name):
            element = ELEMENTS.get(name)
            return lambda names: names.get(name, element)
        case syntax.Unary("not", operand):
            inner = _compile(source, operand)
            return lambda names: not inner(names)
        case syntax.Unary(_, operand):
            return _strict(operator.neg, [_compile(source, operand)])
        case syntax.Binary("and", left, right):
            first, second = _compile(source, left), _compile(source, right)
            return lambda names: first(names) and second(names)
        case syntax.Binary("or", left, right):
            first, second = _compile(source, left), _compile(source, right)
            return lambda names: first(names) or second(names)
        case syntax.Binary(sign, left, right):
            first, second = _compile(source, left), _compile(source, right)
            apply = _OPERATORS[sign]
            if sign in _COMPARE_ANYTHING:
                return lambda names: apply(first(names), second(names))
            return _strict(apply, [first, second])
        case syntax.Listing(items):
            parts = [_compile(source, item) for item in items]
            return lambda names: tuple(part(names) for part in parts)
        case syntax.Index(value, index):
            return _strict(operator.getitem, [_compile(source, value), _compile(source, index)])
        case syntax.Call():
            return _call(source, expression)


def _strict(apply: Callable[..., object], parts: list[Evaluate]) -> Evaluate:
    """`apply` on the values of `parts`, which are all there."""

    def evaluate(names: Names) -> object:
        values = [part(names) for part in parts]
        if any(value is None for value in values):
            raise NoValueError
        return apply(*values)

    return evaluate


def _call(source: Source, call: syntax.Call) -> Evaluate:
    parts = [_compile(source, argument) for argument in call.arguments]
    if call.target is None:
        function = FUNCTIONS[call.function.text][1]
        return lambda names: function(*[part(names) for part in parts])
    target = call.target
    return lambda names: call_user(
        source, call.function.text, call.span, target, [part(names) for part in parts]
    )


def call_user(
    source: Source, name: str, span: Span, target: Callable[..., object], arguments: list[object]
) -> object:
    """What a function of the user's gives; `RuleError` with its place where it raises."""
    try:
        return target(*arguments)
    except (NoValueError, TilewrightError):
        raise
    except Exception as error:
        # Whatever it is, the user wants to see it beside the rule that calls.
        raise source.error(f"{name} raises {type(error).__name__}: {error}", span) from error
