"""An instance while it is planned: what has been chosen, and what is known of the rest.

The steps of `planning` each fill a part of it. Sizes and element types are unknowns (`sizes`,
`elements`) until the last steps; names that the rule binds may be unknown too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tilewright.compiler.workbench.rule_checking.choices import Choices, ConflictError
from tilewright.compiler.workbench.rule_checking.elements import Elements
from tilewright.compiler.workbench.rule_checking.expressions import (
    ElementName,
    Quotient,
    UnknownError,
    ValueName,
    evaluate,
)
from tilewright.compiler.workbench.rule_checking.op_shapes import shapes_of
from tilewright.compiler.workbench.rule_checking.sizes import Shape, Sizes, Term
from tilewright.dialects.element_types import ElementType
from tilewright.passes.rules.rule import Rule
from tilewright.passes.rules.syntax import Expression, Let, Where
from tilewright.passes.rules.values import ELEMENTS


class Draft:
    """The plan of one instance, half made; also what the names in conditions stand for."""

    def __init__(self, rule: Rule, choices: Choices) -> None:
        self.rule = rule
        self.choices = choices
        self.sizes = Sizes(choices)
        self.elements = Elements(choices)
        self.rows = [shapes_of(op.op) for op in rule.ops]
        self.lets = {c.name.text: c.value for c in rule.clauses if isinstance(c, Let)}
        self.conditions = [c.condition for c in rule.clauses if isinstance(c, Where)]
        self.absent: set[str] = set()
        """Optional operands that are not there."""
        self.lists: dict[str, tuple[str, ...]] = {}
        """The values of each `xs...`."""
        self.operands: list[dict[str, tuple[str, ...]]] = []
        """For each op of the pattern: the values at each field."""
        self.shapes: dict[str, Shape] = {}
        self.names: dict[str, object] = {}
        """What the pattern binds besides values: sizes and attributes."""
        self.attributes: list[dict[str, object]] = [{} for _ in rule.ops]
        self.waiting: list[Callable[[], None]] = []
        """What is done when all sizes have numbers."""
        self.later: list[Expression] = []
        """Conditions that are not about sizes and types alone."""

    def inputs(self) -> list[str]:
        """The values that no op of the pattern makes, in order."""
        made = {name for op in self.rule.ops for name in op.results}
        return [
            name
            for name in dict.fromkeys(
                name for fields in self.operands for names in fields.values() for name in names
            )
            if name not in made
        ]

    def fields(self, index: int) -> Iterable[tuple[str, str]]:
        """Field and value, for operands and results of an op."""
        op = self.rule.ops[index]
        for field, names in self.operands[index].items():
            yield from ((field, name) for name in names)
        for (field, _), name in zip(op.op.get_irdl_definition().results, op.results, strict=False):
            yield field, name

    def kept_values(self) -> Iterable[tuple[str, str]]:
        """Replaced results and the matched values that stand in for them: their types are equal,
        for the rule would not apply."""
        if self.rule.options is not None:
            return  # a lowering, which may change element types
        known = {*self.inputs(), *(name for op in self.rule.ops for name in op.results)}
        replacement = self.rule.replacement
        for target, value in zip(replacement.targets, replacement.results, strict=False):
            if value in known:
                yield target, value

    def look_up(self, name: str) -> object:
        """What a name in a condition stands for: see `expressions.Names`."""
        if name in self.shapes:
            return ValueName(name)
        if name in self.lists:
            return tuple(ValueName(each) for each in self.lists[name])
        if name in self.rule.values:
            return None
        if name in self.names:
            found = self.names[name]
            return self.sizes.resolved(found) if isinstance(found, Term) else found
        if name in self.lets:
            return evaluate(self.lets[name], self)
        if name in ELEMENTS:
            return ELEMENTS[name]
        raise UnknownError

    def shape_of(self, name: str) -> Shape:
        """The sizes of a value, with all that is known of them."""
        return tuple(self.sizes.resolved(size) for size in self.shapes[name])

    def bind(self, name: str, value: object) -> None:
        """A captured name has `value`; where it has one already, both are equal."""
        if name in self.names:
            self.equate(self.names[name], value)
        else:
            self.names[name] = value

    def equate(self, left: object, right: object) -> None:
        """Make two values equal; raises `UnknownError` where that is not for sizes to do."""
        match left, right:
            case (Term(), Term() | int()) | (int(), Term()):
                self.sizes.equal(as_term(left), as_term(right))
            case (Quotient(size, divisor), Term() | int() as whole) | (
                Term() | int() as whole,
                Quotient(size, divisor),
            ):
                self.sizes.equal(size, as_term(whole).times(Term(divisor)))
            case tuple(), tuple():
                if len(left) != len(right):
                    raise ConflictError
                for a, b in zip(left, right, strict=True):
                    self.equate(a, b)
            case ElementName(a), ElementName(b):
                self.elements.equal(a, b)
            case (ElementName(a), ElementType() as b) | (ElementType() as b, ElementName(a)):
                self.elements.restrict(a, (b,))
            case (ValueName() | Quotient(), _) | (_, Quotient()):
                raise UnknownError
            case _:
                if left != right:
                    raise ConflictError


def as_term(value: object) -> Term:
    """A size as a term; raises `ConflictError` for what is no size."""
    if isinstance(value, Term):
        return value
    if isinstance(value, int) and value > 0:
        return Term(value)
    raise ConflictError
