"""Checks the attributes of an op in `match`."""

from __future__ import annotations

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    UnitAttr,
)
from xdsl.irdl import OpDef, OptPropertyDef

from tilewright.passes.rules import syntax
from tilewright.passes.rules.rule import AttributePattern, AttributeTest
from tilewright.passes.rules.scope import (
    SEGMENTS,
    NameKind,
    Scope,
    did_you_mean,
    enum_cases,
    property_class,
)
from tilewright.passes.rules.syntax import Constant, Word

_NUMBERS = (FloatAttr, IntegerAttr)


def check_attributes(
    scope: Scope, call: syntax.OpCall, definition: OpDef
) -> tuple[AttributePattern, ...]:
    """What is asked of the attributes of an op; mistakes are noted in `scope`."""
    found: dict[str, AttributePattern] = {}
    known = [name for name in definition.properties if name not in SEGMENTS]
    for attribute in call.attributes:
        name, span = attribute.name.text, attribute.name.span
        if name in found:
            scope.problem(f"{name} is there twice", span)
        if name not in known and "." not in name:
            hint = did_you_mean(name, known)
            has = f"it has {', '.join(known)}" if known else "it has none"
            scope.problem(f"{call.op.text} has no attribute {name}", span, hint or has)
            if isinstance(attribute.value, syntax.Name):
                scope.bind(
                    Word(attribute.value.name, attribute.value.span), NameKind.ATTRIBUTE
                ).used = True
            continue
        found[name] = _attribute(scope, attribute, definition)
    for name in known:
        # What may be missing and is not spoken of is missing.
        if name not in found and isinstance(definition.properties[name], OptPropertyDef):
            is_unit = property_class(definition, name) is UnitAttr
            absent = False if is_unit else None
            found[name] = AttributePattern(name, AttributeTest.EQUALS, absent, is_unit, call.span)
    return tuple(found.values())


def _attribute(scope: Scope, attribute: syntax.Attribute, definition: OpDef) -> AttributePattern:
    name, value = attribute.name.text, attribute.value
    span = attribute.name.span.to(value.span)
    base = property_class(definition, name)
    is_unit = base is UnitAttr
    cases = enum_cases(definition, name)
    if isinstance(value, syntax.Name) and value.name not in cases:
        if value.name == "_":
            return AttributePattern(name, AttributeTest.ANY, None, is_unit, span)
        word = Word(value.name, value.span)
        scope.bind(word, NameKind.ATTRIBUTE)
        return AttributePattern(name, AttributeTest.CAPTURE, value.name, is_unit, span)
    constant: Constant | tuple[Constant, ...]
    if isinstance(value, syntax.Name):
        constant = value.name
    elif isinstance(value, syntax.Literal) and value.value is None and "none" in cases:
        constant = "none"
    else:
        constant = _constant(scope, value)
    if is_unit and constant is None:
        constant = False
    wrong = _wrong_constant(constant, base, cases)
    if wrong:
        scope.problem(f"{name} of {definition.name} is {wrong}", value.span)
    return AttributePattern(name, AttributeTest.EQUALS, constant, is_unit, span)


def _constant(scope: Scope, value: syntax.Expression) -> Constant | tuple[Constant, ...]:
    match value:
        case syntax.Literal(constant):
            return constant
        case syntax.Unary("-", syntax.Literal(int() | float() as number)):
            return -number
        case syntax.Listing(items):
            listed = [_constant(scope, item) for item in items]
            return tuple(item for item in listed if not isinstance(item, tuple))
        case _:
            scope.problem(
                "an attribute is a name to bind, or a number, a text, true, false or none",
                value.span,
                "bind it, and write the condition behind where",
            )
            return None


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
