"""Makes plans for a rule: chooses what is free, and solves for what is not.

In order: which optional operands are there, ranks, equations between sizes (by op, then by the
conditions, reshapes last), numbers for sizes, attributes that depend on them, other attributes so
that conditions on them hold, element types, where inputs come from and what else is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from xdsl.dialects.builtin import BoolAttr, FloatAttr, IntegerAttr, UnitAttr
from xdsl.irdl import OptOperandDef, OptPropertyDef, VarOperandDef

from tilewright.compiler.workbench.rule_checking.choices import Choices, ConflictError
from tilewright.compiler.workbench.rule_checking.elements import Elements
from tilewright.compiler.workbench.rule_checking.expressions import (
    ElementName,
    UnknownError,
    ValueName,
    evaluate,
    isolate,
    known,
    names_in,
    numbers_in,
)
from tilewright.compiler.workbench.rule_checking.op_shapes import shapes_of
from tilewright.compiler.workbench.rule_checking.plan import Plan, Source, Tensor
from tilewright.compiler.workbench.rule_checking.sizes import Shape, Sizes, Term
from tilewright.dialects.element_types import ELEMENT_TYPES, ElementType
from tilewright.dialects.graph import GraphOp
from tilewright.passes.lowerings.conversion import (
    ACTIVATIONS,
    QUANT_MODES,
    ROLE_ATTRIBUTE,
    ConversionOptions,
)
from tilewright.passes.rules import syntax
from tilewright.passes.rules.plan import is_commutative
from tilewright.passes.rules.rule import (
    AttributeTest,
    OperandPattern,
    OpPattern,
    Origin,
    Presence,
    Rule,
)
from tilewright.passes.rules.scope import SEGMENTS, enum_cases, property_class
from tilewright.passes.rules.syntax import Binary, Expression, Let, Where
from tilewright.passes.rules.values import ELEMENTS

RANKS = (1, 2, 3, 4)
CASES = ("small", "ramp", "positive", "mixed", "ties", "ones", "zeros", "large")
_FLOATS = (2.0, 0.5, -1.0, 1.0, 3.0, -0.25, 0.0, 0.1)
_EPS = (1e-5, 0.125, 1.0)
_COUNTS = (1, 2, 3)
"""How many values a variadic operand gets."""


def make_plan(rule: Rule, choices: Choices) -> Plan:
    """A plan for an instance of the pattern of `rule`.

    Raises `ConflictError` where the choices contradict each other.
    """
    return _Planner(rule, choices).plan()


class _Planner:
    def __init__(self, rule: Rule, choices: Choices) -> None:
        self.rule = rule
        self.choices = choices
        self.sizes = Sizes(choices)
        self.elements = Elements(choices)
        self.rows = [shapes_of(op.op) for op in rule.ops]
        self.lets = {c.name.text: c.value for c in rule.clauses if isinstance(c, Let)}
        self.conditions = [c.condition for c in rule.clauses if isinstance(c, Where)]
        self.absent: set[str] = set()
        self.lists: dict[str, tuple[str, ...]] = {}
        self.operands: list[dict[str, tuple[str, ...]]] = []
        self.shapes: dict[str, Shape] = {}
        self.names: dict[str, object] = {}
        self.attributes: list[dict[str, object]] = [{} for _ in rule.ops]
        self.waiting: list[Callable[[], None]] = []
        self.later: list[Expression] = []

    def plan(self) -> Plan:
        """All steps in order."""
        self.choose_operands()
        self.choose_ranks()
        self.relate_elements()
        sites = [_Site(self, index) for index in range(len(self.rule.ops))]
        for site, row in zip(sites, self.rows, strict=True):
            if not row.reshapes:
                row.relate(site)
        self.apply_kinds()
        same = self.choose_same()
        for condition in self.conditions:
            self.require(condition)
        for target, value in self.kept_values():
            self.sizes.equal_shapes(self.shapes[target], self.shapes[value])
            self.elements.equal(target, value)
        for site, row in zip(sites, self.rows, strict=True):
            if row.reshapes:
                row.relate(site)
        self.sizes.solve()
        self.test_conditions()
        for wait in self.waiting:
            wait()
        loose = self.choose_attributes()
        values = {
            name: Tensor(self.sizes.values(shape), self.elements.choose(name))
            for name, shape in self.shapes.items()
        }
        return Plan(
            values,
            self.operands,
            self.attributes,
            {name: self.choose_source(name, same) for name in self.inputs() if name not in same},
            same,
            frozenset(self.absent),
            self.choose_swaps(values),
            self.choose_uses(),
            loose,
            self.choose_options(),
            self.choices.pick(range(1 << 10)),
            self.choices.pick(CASES),
        )

    # Which values there are.

    def choose_operands(self) -> None:
        for value in self.rule.values.values():
            if value.presence is Presence.OPTIONAL and self.choices.pick((True, False)):
                self.absent.add(value.name)
        for index, op in enumerate(self.rule.ops):
            self.operands.append(dict(self.operands_of(index, op)))

    def operands_of(self, index: int, op: OpPattern) -> Iterable[tuple[str, tuple[str, ...]]]:
        for field, kind in op.op.get_irdl_definition().operands:
            found = [each for each in op.operands if each.field == field]
            if isinstance(kind, OptOperandDef):
                yield field, self.optional_of(index, field, found)
            elif isinstance(kind, VarOperandDef):
                if found and found[0].presence is Presence.ALL:
                    yield field, self.list_of(found[0].value or f"@{index}.{field}")
                else:
                    yield (
                        field,
                        tuple(
                            each.value or f"@{index}.{field}.{at}" for at, each in enumerate(found)
                        ),
                    )
            else:
                yield field, (found[0].value or f"@{index}.{field}",)

    def optional_of(
        self, index: int, field: str, found: Sequence[OperandPattern]
    ) -> tuple[str, ...]:
        """The value of an optional operand, or nothing."""
        if not found or found[0].presence is Presence.ABSENT or found[0].value in self.absent:
            return ()
        name = found[0].value
        if name is None and found[0].presence is Presence.OPTIONAL:
            return self.choices.pick(((), (f"@{index}.{field}",)))
        return (name or f"@{index}.{field}",)

    def list_of(self, name: str) -> tuple[str, ...]:
        """The values of a list, of a number that is chosen once."""
        if name not in self.lists:
            count = self.choices.pick(_COUNTS)
            self.lists[name] = tuple(f"{name}.{at}" for at in range(count))
        return self.lists[name]

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

    # Ranks and element types.

    def choose_ranks(self) -> None:
        ranks = _Ranks()
        for index, row in enumerate(self.rows):
            for field, name in self.fields(index):
                ranks.relate(name, index, row.ranks[field])
        for value in self.rule.values.values():
            if value.name in self.absent:
                continue
            for kind in value.kinds:
                if kind.rank is not None:
                    ranks.restrict(value.name, (kind.rank,))
                if kind.dims is not None:
                    fixed = sum(not dim.rest for dim in kind.dims)
                    whole = fixed == len(kind.dims)
                    ranks.restrict(value.name, (fixed,) if whole else range(fixed, max(RANKS) + 2))
        for condition in self.conditions:
            self.rank_condition(condition, ranks)
        for target, value in self.kept_values():
            ranks.equal(target, value)
        for op, fields in zip(self.rule.ops, self.operands, strict=True):
            for attribute in op.attributes:
                if isinstance(attribute.value, tuple) and attribute.name in ("order", "offsets"):
                    ranks.restrict(fields["x"][0], (len(attribute.value),))
        for name in dict.fromkeys(
            name for index in range(len(self.rule.ops)) for _, name in self.fields(index)
        ):
            rank = self.choices.pick(ranks.domain(name))
            ranks.restrict(name, (rank,))
            self.shapes[name] = self.sizes.fresh_shape(rank)

    def rank_condition(self, condition: Expression, ranks: _Ranks) -> None:
        """What a condition says of ranks, where that is plain: less to find out by trying."""
        match condition:
            case Binary("and", left, right):
                self.rank_condition(left, ranks)
                self.rank_condition(right, ranks)
            case Binary("==", left, right):
                a, b = _asked("rank", left), _asked("rank", right)
                if a and isinstance(right, syntax.Literal) and isinstance(right.value, int):
                    ranks.restrict(a, (right.value,))
                elif a and b:
                    ranks.equal(a, b)
                a, b = _asked("shape", left), _asked("shape", right)
                if a and b and not {a, b} & self.absent:
                    ranks.equal(a, b)
            case _:
                return

    def relate_elements(self) -> None:
        for index, row in enumerate(self.rows):
            op = self.rule.ops[index].op
            allowed = op.ELEMENTS if issubclass(op, GraphOp) else ELEMENT_TYPES
            floats = [element for element in allowed if element.is_float]
            moves = op.name.rpartition(".")[2] in _ANY_ELEMENT
            for field, name in self.fields(index):
                asked = row.elements[field]
                self.elements.restrict(name, allowed)
                if asked in ELEMENTS:
                    self.elements.restrict(name, (ELEMENTS[asked],))
                elif asked.endswith("|f32"):
                    letter = f"@{index}:{asked.partition('|')[0]}"
                    self.elements.restrict(letter, floats)
                    wide = ELEMENTS["f32"] in allowed and len(floats) > 1
                    if wide and self.choices.pick((False, True)):
                        self.elements.restrict(name, (ELEMENTS["f32"],))
                    else:
                        self.elements.equal(letter, name)
                elif asked != "?":
                    letter = f"@{index}:{asked}"
                    self.elements.restrict(letter, allowed if moves else floats)
                    self.elements.equal(letter, name)

    # Kinds and conditions.

    def apply_kinds(self) -> None:
        for value in self.rule.values.values():
            if value.name not in self.shapes:
                continue
            for kind in value.kinds:
                if kind.element is not None:
                    self.elements.restrict(value.name, (kind.element,))
                if kind.dims is None:
                    continue
                shape, behind = self.shapes[value.name], False
                for axis, dim in enumerate(kind.dims):
                    behind = behind or dim.rest
                    place = axis - len(kind.dims) if behind else axis
                    if dim.size is not None:
                        self.sizes.equal(shape[place], Term(dim.size))
                    if dim.name is not None:
                        self.bind(dim.name, shape[place])

    def bind(self, name: str, value: object) -> None:
        """A captured name has `value`; where it has one already, both are equal."""
        if name in self.names:
            self.equate(self.names[name], value)
        else:
            self.names[name] = value

    def look_up(self, name: str) -> object:
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
        return tuple(self.sizes.resolved(size) for size in self.shapes[name])

    def require(self, condition: Expression) -> None:
        """Make a condition hold, as far as it speaks of sizes and types; the rest is kept."""
        match condition:
            case Binary("and", left, right):
                self.require(left)
                self.require(right)
            case Binary("or", left, right):
                self.require(self.choices.pick((left, right)))
            case Binary("==", left, right):
                try:
                    self.equate(evaluate(left, self), evaluate(right, self))
                except UnknownError:
                    self.later.append(condition)
            case Binary("in", left, right):
                try:
                    options = evaluate(right, self)
                    if not isinstance(options, tuple):
                        raise ConflictError
                    self.equate(evaluate(left, self), self.choices.pick(options))
                except UnknownError:
                    self.later.append(condition)
            case _:
                try:
                    if not known(evaluate(condition, self)):
                        raise ConflictError
                except UnknownError:
                    self.later.append(condition)

    def equate(self, left: object, right: object) -> None:
        """Make two values equal; raises `UnknownError` where that is not for sizes to do."""
        match left, right:
            case (Term(), Term() | int()) | (int(), Term()):
                self.sizes.equal(_as_term(left), _as_term(right))
            case tuple(), tuple():
                if len(left) != len(right):
                    raise ConflictError
                for a, b in zip(left, right, strict=True):
                    self.equate(a, b)
            case ElementName(a), ElementName(b):
                self.elements.equal(a, b)
            case (ElementName(a), ElementType() as b) | (ElementType() as b, ElementName(a)):
                self.elements.restrict(a, (b,))
            case ValueName(), _:
                raise UnknownError
            case _:
                if left != right:
                    raise ConflictError

    def choose_same(self) -> dict[str, str]:
        """Sometimes two inputs are one value."""
        same: dict[str, str] = {}
        inputs = self.inputs()
        for at, name in enumerate(inputs):
            rank = len(self.shapes[name])
            others = [
                other
                for other in inputs[:at]
                if other not in same and len(self.shapes[other]) == rank
            ]
            other = self.choices.pick((None, None, None, *others)) if others else None
            if other is not None:
                self.elements.equal(name, other)
                self.sizes.equal_shapes(self.shapes[name], self.shapes[other])
                same[name] = other
        return same

    # Attributes.

    def choose_attributes(self) -> frozenset[tuple[str, object]]:
        """Give all attributes values; returns those that conditions know approximately only."""
        free: dict[str, tuple[object, ...]] = {}
        captured: dict[str, list[tuple[int, str]]] = {}
        for index, op in enumerate(self.rule.ops):
            for attribute, options in _properties(op):
                pattern = next((p for p in op.attributes if p.name == attribute), None)
                if attribute in self.attributes[index]:
                    found = self.attributes[index][attribute]
                    if isinstance(found, Term):
                        self.attributes[index][attribute] = self.sizes.value(found)
                elif pattern is None or pattern.test is AttributeTest.ANY:
                    self.attributes[index][attribute] = self.choices.pick(options)
                elif pattern.test is AttributeTest.EQUALS:
                    self.attributes[index][attribute] = pattern.value
                else:
                    name = str(pattern.value)
                    captured.setdefault(name, []).append((index, attribute))
                    if name not in self.names:
                        free.setdefault(name, options)
        self.names.update(
            {k: self.sizes.value(v) for k, v in self.names.items() if isinstance(v, Term)}
        )
        self.solve_names(free)
        for name, places in captured.items():
            for index, attribute in places:
                self.attributes[index][attribute] = self.names[name]
        near = {
            name
            for condition in self.later
            for name in self.free_names(condition)
            if _is_approximate(condition)
        }
        return frozenset(
            (attribute, self.names[name])
            for name in near
            for _, attribute in captured.get(name, ())
        )

    def solve_names(self, free: dict[str, tuple[object, ...]]) -> None:
        """Choose names that attributes bind, so that conditions hold."""
        hints = [n for condition in self.later for n in self.numbers(condition)]
        while unbound := [name for name in free if name not in self.names]:
            if not any(self.solve_one(condition, unbound) for condition in self.later):
                options = free[unbound[0]]
                numeric = bool(options) and isinstance(options[0], float)
                chosen = self.choices.pick((*options, *hints) if numeric else options)
                self.names[unbound[0]] = rounded(chosen) if numeric else chosen
        self.test_conditions()

    def test_conditions(self) -> None:
        """Those that have a value by now must hold."""
        for condition in self.later:
            try:
                if not known(evaluate(condition, self)):
                    raise ConflictError
            except UnknownError:
                continue  # of attributes not chosen yet; of uses, as the rule itself will see

    def solve_one(self, condition: Expression, unbound: Sequence[str]) -> bool:
        """Choose the one unbound name of an equation so that it holds."""
        sides = _sides(condition)
        if sides is None:
            return False
        missing = [name for name in self.free_names(condition) if name in unbound]
        if len(missing) != 1:
            return False
        for one, other in (sides, sides[::-1]):
            names = list(names_in(self.expanded(one)))
            if names.count(missing[0]) != 1 or missing[0] in self.free_names(other):
                continue
            try:
                value = known(evaluate(other, self))
                found = isolate(self.expanded(one), value, missing[0], self)
                self.names[missing[0]] = rounded(found) if isinstance(found, float) else found
            except UnknownError:
                continue
            return True
        return False

    def free_names(self, expression: Expression) -> list[str]:
        return list(dict.fromkeys(names_in(self.expanded(expression))))

    def numbers(self, expression: Expression) -> list[float]:
        found = list(numbers_in(self.expanded(expression)))
        return [near for number in found for near in (number, -number, number + 1, number - 1)]

    def expanded(self, expression: Expression) -> Expression:
        """An expression with names from `let` written out."""
        match expression:
            case syntax.Name(name) if name in self.lets:
                return self.expanded(self.lets[name])
            case syntax.Unary(sign, operand, span):
                return syntax.Unary(sign, self.expanded(operand), span)
            case syntax.Binary(sign, left, right, span):
                return syntax.Binary(sign, self.expanded(left), self.expanded(right), span)
            case syntax.Call(function, arguments, span, target):
                inner = tuple(self.expanded(argument) for argument in arguments)
                return syntax.Call(function, inner, span, target)
            case _:
                return expression

    # Surroundings.

    def choose_source(self, name: str, same: dict[str, str]) -> Source:
        names = [name, *(each for each, other in same.items() if other == name)]
        origins = {
            kind.origin
            for each in names
            if each in self.rule.values
            for kind in self.rule.values[each].kinds
            if kind.origin is not None
        }
        allowed = [
            source
            for source in Source
            if all(source in _SOURCES[origin] for origin in origins)
            and (source is not Source.STATE or (len(self.shapes[name]) == 2 and origins))
            and (source is not Source.COMPUTED or origins)
        ]
        if not self.elements.choose(name).is_float:
            allowed = [each for each in allowed if each is Source.ARGUMENT or origins]
        return self.choices.pick(allowed)

    def choose_swaps(self, values: dict[str, Tensor]) -> frozenset[int]:
        found: set[int] = set()
        for index, op in enumerate(self.rule.ops):
            if is_commutative(op.op):
                first, second = (names[0] for names in self.operands[index].values())
                one_type = values[first] == values[second]
                if first != second and one_type and self.choices.pick((False, True)):
                    found.add(index)
        return frozenset(found)

    def choose_options(self) -> ConversionOptions:
        """For a lowering: the options of the conversion, those that it names as it names them."""
        if self.rule.options is None:
            return ConversionOptions()
        given = {name: str(value) for name, value in self.rule.options.items()}
        flags = {name: bool(value) for name, value in self.rule.options.items()}
        pick = self.choices.pick
        return ConversionOptions(
            given.get("quant") or pick(QUANT_MODES),
            given.get("act") or pick(ACTIVATIONS),
            flags["quant_head"] if "quant_head" in flags else pick((False, True)),
            flags["quant_embedding"] if "quant_embedding" in flags else pick((False, True)),
        )

    def choose_uses(self) -> dict[str, int]:
        extra: dict[str, int] = {}
        inside = [name for fields in self.operands for names in fields.values() for name in names]
        written = {name for fields in self.operands for name in fields.get("cache", ())}
        for index, op in enumerate(self.rule.ops):
            for at, name in enumerate(op.results):
                count = 1 if index == self.rule.root else 0
                if op.uses is not None:
                    count = (
                        op.uses - sum(inside.count(each) for each in op.results) if not at else 0
                    )
                    if count < 0 or (index == self.rule.root and count == 0 and not at):
                        raise ConflictError
                elif index != self.rule.root and name not in written:
                    count = self.choices.pick((0, 0, 1))
                if count:
                    extra[name] = count
        for name in self.inputs():
            if name not in written and self.choices.pick((False, False, False, True)):
                extra[name] = 1
        return extra


class _Site:
    """A `Site` of op_shapes."""

    def __init__(self, planner: _Planner, index: int) -> None:
        self._planner = planner
        self._index = index
        self.sizes = planner.sizes
        self._fields: dict[str, list[str]] = {}
        for field, name in planner.fields(index):
            self._fields.setdefault(field, []).append(name)

    def shape(self, field: str) -> Shape:
        return self._planner.shapes[self._fields[field][0]]

    def optional(self, field: str) -> Shape | None:
        return self.shape(field) if field in self._fields else None

    def every(self, field: str) -> list[Shape]:
        return [self._planner.shapes[name] for name in self._fields.get(field, ())]

    def attribute(self, name: str, options: Sequence[object]) -> object:
        fixed, value = self._given(name)
        if not fixed:
            value = self._planner.choices.pick(options)
            self._bind(name, value)
        self._set(name, value)
        return value

    def holds(self, field: str, *elements: str) -> None:
        self._planner.elements.restrict(
            self._fields[field][0], [ELEMENTS[element] for element in elements]
        )

    def number(self, name: str) -> Term:
        fixed, value = self._given(name)
        if not fixed:
            value = self.sizes.fresh()
            self._bind(name, value)
        term = _as_term(value)
        self._set(name, term)
        return term

    def later(
        self,
        name: str,
        choose: Callable[[Callable[[Sequence[int]], int]], object],
        holds: Callable[[object], bool],
    ) -> None:
        def wait() -> None:
            fixed, value = self._given(name)
            if not fixed:
                value = choose(self._planner.choices.pick)
                self._bind(name, value)
            if not holds(value):
                raise ConflictError
            self._set(name, value)

        self._planner.waiting.append(wait)

    def _given(self, name: str) -> tuple[bool, object]:
        """Whether the pattern says what the attribute is, and what."""
        pattern = self._pattern(name)
        if pattern is not None and pattern.test is AttributeTest.EQUALS:
            return True, pattern.value
        if pattern is not None and pattern.test is AttributeTest.CAPTURE:
            captured = str(pattern.value)
            if captured in self._planner.names:
                found = self._planner.names[captured]
                return True, self.sizes.resolved(found) if isinstance(found, Term) else found
        return False, None

    def _pattern(self, name: str):
        op = self._planner.rule.ops[self._index]
        return next((each for each in op.attributes if each.name == name), None)

    def _bind(self, name: str, value: object) -> None:
        pattern = self._pattern(name)
        if pattern is not None and pattern.test is AttributeTest.CAPTURE:
            self._planner.bind(str(pattern.value), value)

    def _set(self, name: str, value: object) -> None:
        self._planner.attributes[self._index][name] = value


class _Ranks:
    """Ranks as unknowns: sets of numbers that are made equal or smaller."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self.domains: dict[str, tuple[int, ...]] = {}

    def root(self, name: str) -> str:
        while name in self.parents:
            name = self.parents[name]
        return name

    def domain(self, name: str) -> tuple[int, ...]:
        return self.domains.setdefault(self.root(name), RANKS)

    def restrict(self, name: str, allowed: Iterable[int]) -> None:
        kept = tuple(allowed)
        ranks = tuple(rank for rank in (*self.domain(name), 0, 5) if rank in kept)
        if not ranks:
            raise ConflictError
        self.domains[self.root(name)] = tuple(r for r in ranks if r in self.domain(name)) or ranks

    def equal(self, left: str, right: str) -> None:
        a, b = self.root(left), self.root(right)
        if a != b:
            kept = self.domain(b)
            self.parents[b] = a
            self.restrict(a, kept)

    def relate(self, name: str, index: int, rank: str) -> None:
        """`rank` is a number, or a letter of the op `index`."""
        if rank.isdecimal():
            self.restrict(name, (int(rank),))
        else:
            self.equal(f"@{index}:{rank}", name)


_ANY_ELEMENT = ("Gather", "CacheUpdate", "Reshape", "Permute", "Slice", "Concat", "Weight", "State")
"""Ops that take any element where their row has a letter."""

_SOURCES = {
    Origin.WEIGHT: (Source.WEIGHT,),
    Origin.CONSTANT: (Source.WEIGHT, Source.COMPUTED),
    Origin.ARGUMENT: (Source.ARGUMENT,),
    Origin.STATE: (Source.STATE,),
}


def _properties(op: OpPattern) -> Iterable[tuple[str, tuple[object, ...]]]:
    """The attributes of an op that the pattern may ask for, and values to try."""
    definition = op.op.get_irdl_definition()
    for name, kind in definition.properties.items():
        if name in SEGMENTS:
            continue
        options = _options(op, name)
        if isinstance(kind, OptPropertyDef):
            is_unit = property_class(definition, name) is UnitAttr
            options = (False, True) if is_unit else (None, *options)
        yield name, options
    for pattern in op.attributes:
        if "." in pattern.name:
            roles = (None, "head", "embedding") if pattern.name == ROLE_ATTRIBUTE else (None, "a")
            yield pattern.name, roles


def _options(op: OpPattern, name: str) -> tuple[object, ...]:
    definition = op.op.get_irdl_definition()
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


def _as_term(value: object) -> Term:
    if isinstance(value, Term):
        return value
    if isinstance(value, int) and value > 0:
        return Term(value)
    raise ConflictError


def _asked(function: str, expression: Expression) -> str | None:
    """The name whose `rank`, `shape` an expression asks for."""
    match expression:
        case syntax.Call(word, (syntax.Name(name),)) if word.text == function:
            return name
        case _:
            return None


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


def rounded(value: object) -> object:
    """A number as an f32 attribute holds it."""
    return float(np.float32(value)) if isinstance(value, int | float) else value
