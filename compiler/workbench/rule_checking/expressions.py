"""Conditions of a rule while an instance of it is made: sizes may still be unknown.

`evaluate` gives what the rule's own evaluation will give, but sizes may be `Term`s and a value is
its name. `isolate` turns an equation around, so that an attribute can be chosen that fulfils it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from tilewright.compiler.workbench.rule_checking.choices import ConflictError
from tilewright.compiler.workbench.rule_checking.sizes import Shape, Term, product
from tilewright.passes.rules import syntax
from tilewright.passes.rules.comparisons import COMPARISONS
from tilewright.passes.rules.syntax import Expression
from tilewright.passes.rules.values import FUNCTIONS


class UnknownError(Exception):
    """An expression has no value yet."""


@dataclass(frozen=True, slots=True)
class ValueName:
    """A value of the pattern."""

    name: str


@dataclass(frozen=True, slots=True)
class ElementName:
    """The element type of a value, whatever it will be."""

    name: str


@dataclass(frozen=True, slots=True)
class Quotient:
    """A size that is not known yet, over a number."""

    size: Term
    divisor: int


class Names(Protocol):
    """What names stand for."""

    def look_up(self, name: str) -> object:
        """A value's name, None for an absent one, a tuple of names, a number, a `Term`, a text.

        Raises `UnknownError` for an attribute that is not chosen yet.
        """
        ...

    def shape_of(self, name: str) -> Shape:
        """The sizes of a value, with all that is known of them."""
        ...


def known(value: object) -> object:
    """`value` without terms; raises `UnknownError` where it depends on an unknown size."""
    match value:
        case Term(factor, ()):
            return factor
        case Term() | Quotient() | ElementName() | ValueName():
            raise UnknownError
        case tuple():
            return tuple(known(item) for item in value)
        case _:
            return value


def evaluate(expression: Expression, names: Names) -> object:
    """The value of an expression; raises `UnknownError` where it has none yet.

    An expression that never has a value (`dim(x, 3)` of a matrix) raises `ConflictError`.
    """
    try:
        return _evaluate(expression, names)
    except (IndexError, ZeroDivisionError, TypeError, ValueError, OverflowError) as error:
        raise ConflictError from error


def _evaluate(expression: Expression, names: Names) -> object:
    match expression:
        case syntax.Literal(value):
            return value
        case syntax.Name(name):
            return names.look_up(name)
        case syntax.Listing(items):
            return tuple(_evaluate(item, names) for item in items)
        case syntax.Index(value, index):
            listed, place = _evaluate(value, names), known(_evaluate(index, names))
            if not isinstance(listed, tuple) or not isinstance(place, int):
                raise ConflictError
            return listed[place]
        case syntax.Unary("not", operand):
            return not known(_evaluate(operand, names))
        case syntax.Unary(_, operand):
            return -_number(known(_evaluate(operand, names)))
        case syntax.Binary("and", left, right):
            return known(_evaluate(left, names)) and known(_evaluate(right, names))
        case syntax.Binary("or", left, right):
            return known(_evaluate(left, names)) or known(_evaluate(right, names))
        case syntax.Binary("*", left, right):
            a, b = _evaluate(left, names), _evaluate(right, names)
            if isinstance(a, Term) or isinstance(b, Term):
                return _term(a).times(_term(b))
            return _number(a) * _number(b)
        case syntax.Binary("/", left, right):
            a, b = _evaluate(left, names), known(_evaluate(right, names))
            if isinstance(a, Term) and a.atoms and isinstance(b, int) and b > 0:
                return Quotient(a, b)
            return _number(known(a)) / _number(b)
        case syntax.Binary(name, left, right):
            a, b = known(_evaluate(left, names)), known(_evaluate(right, names))
            return _BINARY[name](a, b)
        case syntax.Call():
            return _call(expression, names)


def _term(value: object) -> Term:
    if isinstance(value, Term):
        return value
    if isinstance(value, int):
        return Term(value)
    raise UnknownError


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise ConflictError
    return value


def _call(call: syntax.Call, names: Names) -> object:
    arguments = [_evaluate(argument, names) for argument in call.arguments]
    name = call.function.text
    first = arguments[0] if arguments else None
    if call.target is not None:
        return call.target(*(known(argument) for argument in arguments))
    if name == "present":
        return first is not None
    if name == "uses":
        raise UnknownError
    if isinstance(first, ValueName):
        return _of_value(name, first, arguments, names)
    if name in ("rank", "dim", "shape", "dtype", "elements"):
        raise ConflictError  # of an operand that is not there
    if name == "last" and isinstance(first, tuple):
        return first[-1]
    if name == "product" and isinstance(first, tuple):
        return product(_term(item) for item in first)
    return FUNCTIONS[name][1](*(known(argument) for argument in arguments))


def _of_value(name: str, value: ValueName, arguments: list[object], names: Names) -> object:
    shape = names.shape_of(value.name)
    match name:
        case "rank":
            return len(shape)
        case "shape":
            return shape
        case "elements":
            return product(shape)
        case "dim":
            axis = known(arguments[1])
            if not isinstance(axis, int):
                raise ConflictError
            return shape[axis]
        case "last":
            return shape[-1]
        case "dtype":
            return ElementName(value.name)
        case _:
            raise UnknownError


_BINARY: Mapping[str, Callable[..., object]] = MappingProxyType(
    {
        **COMPARISONS,
        "+": operator.add,
        "-": operator.sub,
        "%": operator.mod,
    }
)


def names_in(expression: Expression) -> Iterator[str]:
    """The names that stand in an expression."""
    match expression:
        case syntax.Name(name):
            yield name
        case syntax.Unary():
            yield from names_in(expression.operand)
        case syntax.Binary():
            yield from names_in(expression.left)
            yield from names_in(expression.right)
        case syntax.Call():
            for argument in expression.arguments:
                yield from names_in(argument)
        case syntax.Listing():
            for item in expression.items:
                yield from names_in(item)
        case syntax.Index():
            yield from names_in(expression.value)
            yield from names_in(expression.index)
        case syntax.Literal():
            return


def numbers_in(expression: Expression) -> Iterator[float]:
    """The numbers that stand in an expression: values that its conditions may ask for."""
    match expression:
        case syntax.Literal(value) if isinstance(value, int | float):
            yield float(value)
        case syntax.Unary():
            yield from numbers_in(expression.operand)
        case syntax.Binary():
            yield from numbers_in(expression.left)
            yield from numbers_in(expression.right)
        case syntax.Call():
            for argument in expression.arguments:
                yield from numbers_in(argument)
        case _:
            return


def isolate(expression: Expression, value: object, name: str, names: Names) -> object:
    """What `name`, which stands once in `expression`, must be for it to be `value`.

    Raises `UnknownError` where the expression cannot be turned around.
    """
    try:
        return _isolate(expression, value, name, names)
    except (ZeroDivisionError, TypeError, ValueError, OverflowError) as error:
        raise UnknownError from error


def _isolate(expression: Expression, value: object, name: str, names: Names) -> object:
    match expression:
        case syntax.Name(found) if found == name:
            return value
        case syntax.Unary("-", operand):
            return _isolate(operand, -_number(value), name, names)
        case syntax.Binary(op, left, right) if op in "+-*/":
            if name in names_in(left):
                other = _number(known(evaluate(right, names)))
                return _isolate(left, _LEFT[op](_number(value), other), name, names)
            other = _number(known(evaluate(left, names)))
            return _isolate(right, _RIGHT[op](_number(value), other), name, names)
        case syntax.Call(function, (argument,)) if function.text in _INVERSE:
            return _isolate(argument, _INVERSE[function.text](_number(value)), name, names)
        case _:
            raise UnknownError


_LEFT: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {"+": operator.sub, "-": operator.add, "*": operator.truediv, "/": operator.mul}
)
_RIGHT: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {
        "+": operator.sub,
        "-": lambda value, left: left - value,
        "*": operator.truediv,
        "/": lambda value, left: left / value,
    }
)
_INVERSE: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"sqrt": lambda value: value * value, "exp": math.log, "abs": abs}
)
