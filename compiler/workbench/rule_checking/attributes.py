"""Attributes that sizes do not decide: chosen, or solved for so that conditions on them hold.

Of `where approx(scale, 1 / sqrt(dim(x, -1)))` the equation is turned around and gives `scale`;
where that cannot be done, values are tried, among them the numbers that stand in the conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from xdsl.dialects.builtin import BoolAttr, FloatAttr, IntegerAttr, UnitAttr
from xdsl.irdl import IRDLOperation, OpDef, OptPropertyDef

from tilewright.compiler.workbench.rule_checking.conditions import check_conditions
from tilewright.compiler.workbench.rule_checking.draft import Draft
from tilewright.compiler.workbench.rule_checking.expressions import (
    UnknownError,
    evaluate,
    isolate,
    known,
    names_in,
    numbers_in,
)
from tilewright.compiler.workbench.rule_checking.sizes import Term
from tilewright.passes.lowerings.conversion import ROLE_ATTRIBUTE
from tilewright.passes.rules import syntax
from tilewright.passes.rules.rule import AttributeTest, OpPattern
from tilewright.passes.rules.scope import SEGMENTS, enum_cases, property_class
from tilewright.passes.rules.syntax import Binary, Expression
from tilewright.passes.rules.values import to_f32

_FLOATS = (2.0, 0.5, -1.0, 1.0, 3.0, -0.25, 0.0, 0.1)
_EPS = (1e-5, 0.125, 1.0)

Loose = frozenset[tuple[str, object]]
"""Attributes, with their values, of which a rule asks only that they are near a number."""


def choose_attributes(draft: Draft) -> Loose:
    """Give all attributes values; returns those that conditions know approximately only."""
    free: dict[str, tuple[object, ...]] = {}
    captured: dict[str, list[tuple[int, str]]] = {}
    for index, op in enumerate(draft.rule.ops):
        values = draft.attributes[index]
        for attribute, options in _properties(op.op, _discardable(op)):
            pattern = next((p for p in op.attributes if p.name == attribute), None)
            if attribute in values:
                found = values[attribute]
                values[attribute] = draft.sizes.value(found) if isinstance(found, Term) else found
            elif pattern is None or pattern.test is AttributeTest.ANY:
                values[attribute] = draft.choices.pick(options)
            elif pattern.test is AttributeTest.EQUALS:
                values[attribute] = pattern.value
            else:
                name = str(pattern.value)
                captured.setdefault(name, []).append((index, attribute))
                if name not in draft.names:
                    free.setdefault(name, options)
    draft.names.update(
        {k: draft.sizes.value(v) for k, v in draft.names.items() if isinstance(v, Term)}
    )
    _solve_names(draft, free)
    for name, places in captured.items():
        for index, attribute in places:
            draft.attributes[index][attribute] = draft.names[name]
    near = {
        name
        for condition in draft.later
        for name in _free_names(draft, condition)
        if _is_approximate(condition)
    }
    return frozenset(
        (attribute, draft.names[name]) for name in near for _, attribute in captured.get(name, ())
    )


def _discardable(op: OpPattern) -> tuple[str, ...]:
    return tuple(pattern.name for pattern in op.attributes if "." in pattern.name)


@cache
def _properties(
    op: type[IRDLOperation], discardable: tuple[str, ...]
) -> tuple[tuple[str, tuple[object, ...]], ...]:
    """The attributes of an op that a pattern may ask for, and values to try."""
    found: dict[str, tuple[object, ...]] = {}
    definition = op.get_irdl_definition()
    for name, kind in definition.properties.items():
        if name in SEGMENTS:
            continue
        found[name] = _options(definition, name)
        if isinstance(kind, OptPropertyDef):
            is_unit = property_class(definition, name) is UnitAttr
            found[name] = (False, True) if is_unit else (None, *found[name])
    for name in discardable:
        found[name] = (None, "head", "embedding") if name == ROLE_ATTRIBUTE else (None, "a")
    return tuple(found.items())


def _options(definition: OpDef, name: str) -> tuple[object, ...]:
    cases = enum_cases(definition, name)
    if cases:
        return cases
    base = property_class(definition, name)
    if base is FloatAttr:
        return _EPS if name == "eps" else _FLOATS
    if base is IntegerAttr:
        is_bool = definition.properties[name].constr.verifies(BoolAttr.from_bool(True))
        return (False, True) if is_bool else (1, 2, 3)
    return ("w", "v")


def _solve_names(draft: Draft, free: dict[str, tuple[object, ...]]) -> None:
    """Choose names that attributes bind, so that conditions hold."""
    hints = [n for condition in draft.later for n in _numbers_near(draft, condition)]
    while unbound := [name for name in free if name not in draft.names]:
        if not any(_solve_one(draft, condition, unbound) for condition in draft.later):
            options = free[unbound[0]]
            numeric = bool(options) and isinstance(options[0], float)
            chosen = draft.choices.pick((*options, *hints) if numeric else options)
            draft.names[unbound[0]] = _held(chosen) if numeric else chosen
    check_conditions(draft)


def solve_name(draft: Draft, name: str) -> None:
    """Bind `name` to what a condition says that it is, if one does: `where offsets == [0, 4]`."""
    any(_solve_one(draft, condition, [name]) for condition in draft.later)


def _solve_one(draft: Draft, condition: Expression, unbound: Sequence[str]) -> bool:
    """Choose the one unbound name of an equation so that it holds."""
    sides = _sides(condition)
    if sides is None:
        return False
    missing = [name for name in _free_names(draft, condition) if name in unbound]
    if len(missing) != 1:
        return False
    for one, other in (sides, sides[::-1]):
        expanded = _expanded(draft, one)
        is_once = list(names_in(expanded)).count(missing[0]) == 1
        if not is_once or missing[0] in _free_names(draft, other):
            continue
        try:
            value = known(evaluate(other, draft))
            found = isolate(expanded, value, missing[0], draft)
        except UnknownError:
            continue
        draft.names[missing[0]] = found if isinstance(found, int) else _held(found)
        return True
    return False


def _sides(condition: Expression) -> tuple[Expression, Expression] | None:
    match condition:
        case Binary("==", left, right):
            return left, right
        case syntax.Call(word, (left, right)) if word.text == "approx":
            return left, right
        case _:
            return None


def _is_approximate(condition: Expression) -> bool:
    match condition:
        case syntax.Call(word):
            return word.text == "approx"
        case Binary("and" | "or", left, right):
            return _is_approximate(left) or _is_approximate(right)
        case _:
            return False


def _free_names(draft: Draft, expression: Expression) -> list[str]:
    return list(dict.fromkeys(names_in(_expanded(draft, expression))))


def _numbers_near(draft: Draft, expression: Expression) -> list[float]:
    found = list(numbers_in(_expanded(draft, expression)))
    return [near for number in found for near in (number, -number, number + 1, number - 1)]


def _expanded(draft: Draft, expression: Expression) -> Expression:
    """An expression with names from `let` written out."""
    match expression:
        case syntax.Name(name) if name in draft.lets:
            return _expanded(draft, draft.lets[name])
        case syntax.Unary(sign, operand, span):
            return syntax.Unary(sign, _expanded(draft, operand), span)
        case syntax.Binary(sign, left, right, span):
            return syntax.Binary(sign, _expanded(draft, left), _expanded(draft, right), span)
        case syntax.Call(function, arguments, span, target):
            inner = tuple(_expanded(draft, argument) for argument in arguments)
            return syntax.Call(function, inner, span, target)
        case _:
            return expression


def _held(value: object) -> object:
    """A number as an f32 attribute holds it; a list as one of whole numbers holds it."""
    match value:
        case int() | float():
            return to_f32(value)
        case tuple():
            return tuple(int(each) if isinstance(each, float) else each for each in value)
        case _:
            return value
