"""All patterns of a set of rules as one decision tree.

Patterns are taken apart into questions with answers: which op makes the second operand of the root?
(`top.MatMul`); what is its `right_transpose`? (`False`). Questions are asked from the root outward,
always in the same order, so that rules with equal beginnings share a path of the tree, and one look
into a table of answers goes on with all rules that are still possible. (PDL's interpreter in MLIR
does the same, `mlir/lib/Conversion/PDLToPDLInterp/PredicateTree.h`.)

What the tree cannot share (captures, conditions) is asked rule by rule, in the order of benefit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from xdsl.dialects.builtin import FloatAttr, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.irdl import IRDLOperation, OptOperandDef, VarOperandDef
from xdsl.traits import Commutative, is_side_effect_free

from tilewright.dialects import graph
from tilewright.dialects.element_types import ElementType, element_of
from tilewright.dialects.errors import UnsupportedError
from tilewright.passes.rules.expressions import Evaluate, compile_expression
from tilewright.passes.rules.rule import (
    AttributeTest,
    Dim,
    OperandPattern,
    OpPattern,
    Origin,
    Part,
    Presence,
    Rule,
    parts_of,
)
from tilewright.passes.rules.scope import property_class
from tilewright.passes.rules.syntax import Let, Where
from tilewright.passes.rules.values import NoValueError, attribute_value

Step = tuple[str, int | None]
"""From an op to what makes an operand: field, and which value of a variadic one."""
Path = tuple[Step, ...]
"""From the root to an op."""
Slots = list[Operation | None]
"""The ops found so far, one place for each path of a tree."""
Read = Callable[[Slots], SSAValue | None]

COMMUTATIVE = ("Add", "Mul", "Max", "Min")
"""Binary ops of `top` and `tpu` whose operands may change places."""


def is_commutative(op: type[IRDLOperation]) -> bool:
    """Whether the two operands of `op` may change places."""
    if issubclass(op, graph.BinaryGraphOp):
        return op.name.rpartition(".")[2] in COMMUTATIVE
    return op.has_trait(Commutative) and len(op.get_irdl_definition().operands) == 2


@dataclass(frozen=True)
class _Question:
    """Something to ask of the ops found; equal keys are equal questions."""

    key: Hashable
    rank: tuple[int, int, str]
    """The order in which questions are asked: depth, sort, and the path."""
    ask: Callable[[Slots], Hashable]


@dataclass
class _Node:
    """A place in the tree: the rules that match here, and what to ask next."""

    leaves: list[_Leaf] = field(default_factory=list["_Leaf"])
    questions: dict[Hashable, tuple[Callable[[Slots], Hashable], dict[Hashable, _Node]]] = field(
        default_factory=dict[Hashable, tuple[Callable[[Slots], Hashable], dict[Hashable, "_Node"]]]
    )

    def collect(self, slots: Slots, found: list[_Leaf]) -> None:
        """Append all rules that match."""
        found += self.leaves
        for ask, answers in self.questions.values():
            child = answers.get(ask(slots))
            if child is not None:
                child.collect(slots, found)


@dataclass(frozen=True)
class MatchedRule:
    """A rule that applies: what its names stand for, and the ops that it has matched."""

    rule: Rule
    names: Mapping[str, object]
    ops: tuple[Operation, ...]
    """In the order of `rule.ops`."""


@dataclass(frozen=True)
class _Bindings:
    """Where the names of a part of a rule are found, once its ops are in their slots."""

    values: tuple[tuple[str, Read], ...]
    lists: tuple[tuple[str, int, str], ...]
    """Names of variadic operands: the op's slot and the field."""
    captures: tuple[tuple[str, int, str, bool], ...]
    """Names of attributes: the op's slot, the attribute, whether it is a unit."""
    ops: tuple[tuple[int, int], ...]
    """The index of each op in the rule, and its slot."""

    def bind(self, slots: Slots, names: dict[str, object]) -> bool:
        """Add the names of this part; false where one stands for something else already."""
        for name, read in self.values:
            value = read(slots)
            if names.setdefault(name, value) is not value:
                return False
        for name, slot, operands in self.lists:
            listed = tuple(getattr(slots[slot], operands))
            if names.setdefault(name, listed) != listed:
                return False
        for name, slot, attribute, is_unit in self.captures:
            value = _attribute(slots[slot], attribute, is_unit)
            if names.setdefault(name, value) != value:
                return False
        return True


@dataclass(frozen=True)
class _OtherPart:
    """A part that begins at a user of a value, in one order of its commutative operands."""

    anchor: str
    head: type[Operation]
    read_anchor: Read
    questions: tuple[tuple[Callable[[Slots], Hashable], Hashable], ...]
    slots: int
    bindings: _Bindings

    def find(self, names: Mapping[str, object]) -> Iterator[Slots]:
        """The slots of all users of the anchor that match, in the order of the uses."""
        value = names[self.anchor]
        assert isinstance(value, SSAValue)
        for user in dict.fromkeys(use.operation for use in value.uses):
            if type(user) is not self.head:
                continue
            slots: Slots = [None] * self.slots
            slots[0] = user
            if self.read_anchor(slots) is value and all(
                ask(slots) == answer for ask, answer in self.questions
            ):
                yield slots


@dataclass(frozen=True)
class _Leaf:
    """A rule in one order of its commutative operands."""

    priority: tuple[int, int, int]
    rule: Rule
    bindings: _Bindings
    others: tuple[tuple[_OtherPart, ...], ...]
    """For each further part, its orders of operands."""
    sizes: tuple[tuple[str, str, int], ...]
    """Names of sizes: the value, and the axis."""
    clauses: tuple[tuple[str | None, Evaluate], ...]
    """A condition, or a name and its value."""

    def bind(self, slots: Slots) -> MatchedRule | None:
        """What the names stand for; None where captures differ or a condition does not hold."""
        names: dict[str, object] = {}
        if not self.bindings.bind(slots, names):
            return None
        ops = {index: op for index, at in self.bindings.ops if (op := slots[at]) is not None}
        return self._extend(0, names, ops)

    def _extend(
        self, part: int, names: dict[str, object], ops: dict[int, Operation]
    ) -> MatchedRule | None:
        """Find the parts from `part` on; the first way to find them that meets the conditions."""
        if part == len(self.others):
            return self._finish(names, ops)
        for other in self.others[part]:
            for slots in other.find(names):
                extended = dict(names)
                if slots[0] in ops.values() or not other.bindings.bind(slots, extended):
                    continue
                found = {
                    index: op for index, at in other.bindings.ops if (op := slots[at]) is not None
                }
                match = self._extend(part + 1, extended, {**ops, **found})
                if match is not None:
                    return match
        return None

    def _finish(self, names: dict[str, object], ops: dict[int, Operation]) -> MatchedRule | None:
        """Bind sizes, and ask the conditions."""
        for name, value_name, axis in self.sizes:
            value = names[value_name]
            if value is None:
                continue
            assert isinstance(value, SSAValue)
            size = graph.shape_of(value)[axis]
            if names.setdefault(name, size) != size:
                return None
        try:
            for let, evaluate in self.clauses:
                value = evaluate(names)
                if let is not None:
                    names[let] = value
                elif not value:
                    return None
        except NoValueError:
            return None
        return MatchedRule(self.rule, names, tuple(ops[index] for index in sorted(ops)))


class Matcher:
    """The tree of a set of rules; asks which of them match an op as their root."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._trees: dict[type[Operation], _Tree] = {}
        for number, rule in enumerate(rules):
            op = rule.root_op.op
            if op not in self._trees:
                self._trees[op] = _Tree()
            self._trees[op].add(rule, number)

    @property
    def roots(self) -> frozenset[type[Operation]]:
        """The ops that may be roots."""
        return frozenset(self._trees)

    def matches(self, op: Operation) -> Iterator[MatchedRule]:
        """The rules that apply to `op`, the one with the highest benefit first.

        Rules of one benefit come in their order, and each at most once an order of operands.
        """
        tree = self._trees.get(type(op))
        if tree is not None:
            yield from tree.matches(op)


class _Tree:
    """The rules with one op as root."""

    def __init__(self) -> None:
        self.node = _Node()
        self.slots: dict[Path, int] = {(): 0}

    def add(self, rule: Rule, number: int) -> None:
        """Add a rule, once for each order of its commutative operands."""
        parts, _ = parts_of(rule.ops, rule.root)
        others = tuple(_other_part(rule, part) for part in parts[1:])
        for order, plan in enumerate(_plans(rule, rule.root, self.slots)):
            node = self.node
            for question, answer in plan.questions():
                _, answers = node.questions.setdefault(question.key, (question.ask, {}))
                node = answers.setdefault(answer, _Node())
            node.leaves.append(
                _Leaf(
                    (-rule.benefit, number, order),
                    rule,
                    plan.bindings(),
                    others,
                    tuple(_named_sizes(rule)),
                    tuple(_clauses(rule)),
                )
            )

    def matches(self, op: Operation) -> Iterator[MatchedRule]:
        slots: Slots = [None] * len(self.slots)
        slots[0] = op
        found: list[_Leaf] = []
        self.node.collect(slots, found)
        if len(found) > 1:
            found.sort(key=lambda leaf: leaf.priority)
        for leaf in found:
            match = leaf.bind(slots)
            if match is not None:
                yield match


def _other_part(rule: Rule, part: Part) -> tuple[_OtherPart, ...]:
    """A part that is found through the users of a value, in all orders of its operands."""
    anchor = part.anchor
    assert anchor is not None
    assert anchor.value is not None
    op = rule.ops[part.head]
    made: list[_OtherPart] = []
    slots: dict[Path, int] = {(): 0}
    for plan in _plans(rule, part.head, slots):
        field_name = anchor.field
        if part.head in plan.swapped:
            field_name = op.operands[1 - anchor.field_index].field
        made.append(
            _OtherPart(
                anchor.value,
                op.op,
                _reader(op.op, (field_name, anchor.item), 0),
                tuple((question.ask, answer) for question, answer in plan.questions()),
                len(slots),
                plan.bindings(),
            )
        )
    # All orders share one table of slots, which has all its rows only now.
    return tuple(replace(each, slots=len(slots)) for each in made)


def _plans(rule: Rule, head: int, slots: dict[Path, int]) -> Iterator[_Plan]:
    """The plans of the part at `head`, one for each order of its commutative operands."""
    first = _Plan(rule, head, frozenset(), slots)
    yield first
    swappable = sorted(index for index in first.paths if _may_swap(rule.ops[index]))
    for swaps in list(product((False, True), repeat=len(swappable)))[1:]:
        chosen = frozenset(index for index, swap in zip(swappable, swaps, strict=True) if swap)
        yield _Plan(rule, head, chosen, slots)


def _may_swap(op: OpPattern) -> bool:
    """Whether another order of the operands can make a difference."""
    if not is_commutative(op.op):
        return False
    first, second = (operand.value for operand in op.operands)
    return first != second


class _Plan:
    """The questions of a part in one order of its operands, and where its names are found."""

    def __init__(
        self, rule: Rule, head: int, swapped: frozenset[int], slots: dict[Path, int]
    ) -> None:
        self.rule = rule
        self.swapped = swapped
        self.slots = slots
        self.asked: dict[Hashable, tuple[_Question, Hashable]] = {}
        self.places: dict[str, tuple[Path, Step]] = {}
        """Inputs of the pattern: the first operand at which each stands."""
        self.paths: dict[int, Path] = {}
        self.lists: list[tuple[str, int, str]] = []
        self.visit(head, ())
        for name in self.places:
            self.ask_kinds(name)

    def slot(self, path: Path) -> int:
        return self.slots.setdefault(path, len(self.slots))

    def ask(
        self, key: tuple[Hashable, ...], depth: int, sort: int, ask: Callable[[Slots], Hashable],
        answer: Hashable,
    ) -> None:  # fmt: skip
        """Note a question and the answer that the rule needs."""
        self.asked.setdefault((key, answer), (_Question(key, (depth, sort, str(key)), ask), answer))

    def questions(self) -> list[tuple[_Question, Hashable]]:
        """All questions, in the order that all rules keep."""
        return sorted(self.asked.values(), key=lambda pair: pair[0].rank)

    def visit(self, index: int, path: Path) -> None:
        """Ask what an op must be, and go on to what makes its operands."""
        op = self.rule.ops[index]
        slot = self.slot(path)
        self.paths[index] = path
        self.ask_attributes(op, path, slot)
        if op.uses is not None:
            self.ask(("uses", path), len(path), 4, _count_uses(slot), op.uses)
        for name, count in op.variadic_counts.items():
            self.ask(("count", path, name), len(path), 1, _count_operands(slot, name), count)
        if index in self.swapped:
            self.ask(("one type", path), len(path), 2, _have_one_type(slot), True)
        for operand in op.operands:
            self.visit_operand(op, index, operand, path, slot)

    def visit_operand(
        self, op: OpPattern, index: int, operand: OperandPattern, path: Path, slot: int
    ) -> None:
        name = operand.field
        if index in self.swapped:
            name = op.operands[1 - operand.field_index].field
        step: Step = (name, operand.item)
        read = _reader(op.op, step, slot)
        depth = len(path)
        if operand.presence is Presence.ALL:
            if operand.value is not None:
                self.lists.append((operand.value, slot, name))
            return
        fields = dict(op.op.get_irdl_definition().operands)
        is_optional = isinstance(fields[name], OptOperandDef)
        if is_optional and operand.presence is not Presence.OPTIONAL:
            wanted = operand.presence is Presence.REQUIRED
            self.ask(("there", path, step), depth, 1, _is_there(read), wanted)
        if operand.presence is Presence.ABSENT or operand.value is None:
            return
        producer = self.rule.values[operand.value].producer
        if producer is None:
            before = self.places.setdefault(operand.value, (path, step))
            if before != (path, step):
                self.ask_same(self.read_place(before), before, read, (path, step))
        elif producer in self.paths:
            result = self.rule.ops[producer].results.index(operand.value)
            other = _result(self.slot(self.paths[producer]), result)
            self.ask_same(other, (self.paths[producer], ("", result)), read, (path, step))
        else:
            child = (*path, step)
            wanted_op = self.rule.ops[producer]
            made_by = _producer(read, self.slot(child))
            self.ask(("op", child), depth + 1, 0, made_by, wanted_op.op)
            if len(wanted_op.op.get_irdl_definition().results) != 1 or len(wanted_op.results) > 1:
                result = wanted_op.results.index(operand.value)
                self.ask(("result", child), depth + 1, 1, _result_index(read), result)
            self.visit(producer, child)

    def read_place(self, place: tuple[Path, Step]) -> Read:
        path, step = place
        index = next(index for index, found in self.paths.items() if found == path)
        return _reader(self.rule.ops[index].op, step, self.slot(path))

    def ask_same(
        self, first: Read, place: tuple[Path, Step], second: Read, other: tuple[Path, Step]
    ) -> None:
        depth = max(len(place[0]), len(other[0]))
        self.ask(("same", place, other), depth, 5, _are_same(first, second), True)

    def ask_attributes(self, op: OpPattern, path: Path, slot: int) -> None:
        definition = op.op.get_irdl_definition()
        for attribute in op.attributes:
            if attribute.test is AttributeTest.EQUALS:
                answer: Hashable = attribute.value
                if isinstance(answer, int | float) and not isinstance(answer, bool):
                    is_float = property_class(definition, attribute.name) is FloatAttr
                    answer = float(np.float32(answer)) if is_float else answer
                ask = _ask_attribute(slot, attribute.name, attribute.is_unit)
                self.ask(("attribute", path, attribute.name), len(path), 3, ask, answer)

    def ask_kinds(self, name: str) -> None:
        path, step = self.places[name]
        value, read, depth = self.rule.values[name], self.read_place((path, step)), len(path)
        place = (path, step)
        is_optional = value.presence is Presence.OPTIONAL
        for kind in value.kinds:
            if kind.origin is not None:
                has = _has_origin(kind.origin)
                self.ask_value(("origin", kind.origin, place), depth, read, has, is_optional)
            if kind.element is not None:
                has = _has_element(kind.element)
                self.ask_value(("element", kind.element, place), depth, read, has, is_optional)
            if kind.rank is not None:
                dims = (Dim(),) * kind.rank
                self.ask_value(("dims", dims, place), depth, read, _has_dims(dims), is_optional)
            if kind.dims is not None:
                dims = tuple(Dim(dim.size, None, dim.rest) for dim in kind.dims)
                self.ask_value(("dims", dims, place), depth, read, _has_dims(dims), is_optional)

    def ask_value(
        self,
        key: tuple[Hashable, ...],
        depth: int,
        read: Read,
        holds: Callable[[SSAValue], bool],
        is_optional: bool,
    ) -> None:
        def ask(slots: Slots) -> bool:
            value = read(slots)
            return is_optional if value is None else holds(value)

        self.ask((*key, is_optional), depth, 6, ask, True)

    def bindings(self) -> _Bindings:
        """Where the names of the part are found."""
        values: list[tuple[str, Read]] = [
            (name, self.read_place(place)) for name, place in self.places.items()
        ]
        captures: list[tuple[str, int, str, bool]] = []
        for index, path in self.paths.items():
            slot = self.slot(path)
            op = self.rule.ops[index]
            values += [(name, _result(slot, at)) for at, name in enumerate(op.results)]
            captures += [
                (str(each.value), slot, each.name, each.is_unit)
                for each in op.attributes
                if each.test is AttributeTest.CAPTURE
            ]
        ops = tuple((index, self.slot(path)) for index, path in self.paths.items())
        return _Bindings(tuple(values), tuple(self.lists), tuple(captures), ops)


def _named_sizes(rule: Rule) -> Iterator[tuple[str, str, int]]:
    """Names of sizes, with the value and the axis: below 0 behind `...`."""
    for value in rule.values.values():
        for kind in value.kinds:
            dims = kind.dims or ()
            behind_rest = False
            for axis, dim in enumerate(dims):
                behind_rest = behind_rest or dim.rest
                if dim.name is not None:
                    yield dim.name, value.name, axis - len(dims) if behind_rest else axis


def _clauses(rule: Rule) -> Iterator[tuple[str | None, Evaluate]]:
    for clause in rule.clauses:
        match clause:
            case Where(condition):
                yield None, compile_expression(rule.source, condition)
            case Let(name, value):
                yield name.text, compile_expression(rule.source, value)


def _attribute(op: Operation | None, name: str, is_unit: bool) -> Hashable:
    if op is None:
        return None
    found = op.attributes.get(name) if "." in name else op.properties.get(name)
    if is_unit:
        return found is not None
    value = attribute_value(found)
    return value if isinstance(value, Hashable) else str(value)


def _ask_attribute(slot: int, name: str, is_unit: bool) -> Callable[[Slots], Hashable]:
    return lambda slots: _attribute(slots[slot], name, is_unit)


def _reader(op: type[IRDLOperation], step: Step, slot: int) -> Read:
    """Reads an operand of the op in a slot; None where it is missing."""
    name, item = step
    fields = op.get_irdl_definition().operands
    place = [field_name for field_name, _ in fields].index(name)
    flexible = [at for at, (_, kind) in enumerate(fields) if isinstance(kind, VarOperandDef)]
    if not flexible or place < flexible[0]:

        def read_plain(slots: Slots) -> SSAValue | None:
            found = slots[slot]
            return None if found is None else found.operands[place]

        return read_plain

    def read_field(slots: Slots) -> SSAValue | None:
        value: object = getattr(slots[slot], name)
        if item is not None and isinstance(value, Sequence):
            value = value[item] if item < len(value) else None
        return value if isinstance(value, SSAValue) else None

    return read_field


def _result(slot: int, index: int) -> Read:
    def read(slots: Slots) -> SSAValue | None:
        op = slots[slot]
        return None if op is None or index >= len(op.results) else op.results[index]

    return read


def _producer(read: Read, slot: int) -> Callable[[Slots], Hashable]:
    """Which op makes a value; it is kept in `slot`."""

    def ask(slots: Slots) -> Hashable:
        value = read(slots)
        if value is None:
            return None
        owner = value.owner
        if isinstance(owner, Block):
            return Block
        slots[slot] = owner
        return type(owner)

    return ask


def _result_index(read: Read) -> Callable[[Slots], Hashable]:
    return lambda slots: getattr(read(slots), "index", None)


def _count_uses(slot: int) -> Callable[[Slots], Hashable]:
    def ask(slots: Slots) -> int:
        op = slots[slot]
        return 0 if op is None else sum(1 for result in op.results for _ in result.uses)

    return ask


def _count_operands(slot: int, name: str) -> Callable[[Slots], Hashable]:
    return lambda slots: len(getattr(slots[slot], name))


def _have_one_type(slot: int) -> Callable[[Slots], Hashable]:
    def ask(slots: Slots) -> bool:
        op = slots[slot]
        return op is not None and op.operands[0].type == op.operands[1].type

    return ask


def _is_there(read: Read) -> Callable[[Slots], Hashable]:
    return lambda slots: read(slots) is not None


def _are_same(first: Read, second: Read) -> Callable[[Slots], Hashable]:
    return lambda slots: first(slots) is second(slots)


def _has_element(element: ElementType) -> Callable[[SSAValue], bool]:
    def holds(value: SSAValue) -> bool:
        try:
            return isinstance(value.type, TensorType) and element_of(value.type) == element
        except UnsupportedError:
            return False

    return holds


def _has_dims(dims: tuple[Dim, ...]) -> Callable[[SSAValue], bool]:
    """Whether a value has these sizes; names are looked at later."""
    rest = next((at for at, dim in enumerate(dims) if dim.rest), None)
    fixed = len(dims) - (rest is not None)
    sizes = [
        (at if rest is None or at < rest else at - len(dims), dim.size)
        for at, dim in enumerate(dims)
        if dim.size is not None
    ]

    def holds(value: SSAValue) -> bool:
        if not isinstance(value.type, TensorType):
            return False
        shape = value.type.get_shape()
        if len(shape) < fixed or (rest is None and len(shape) != fixed):
            return False
        return all(shape[axis] == size for axis, size in sizes)

    return holds


def _has_origin(origin: Origin) -> Callable[[SSAValue], bool]:
    match origin:
        case Origin.WEIGHT:
            return lambda value: isinstance(value.owner, graph.Weight)
        case Origin.STATE:
            return _is_state
        case Origin.ARGUMENT:
            return lambda value: (
                isinstance(value, BlockArgument) and isinstance(value.block.parent_op(), FuncOp)
            )
        case Origin.CONSTANT:
            return _is_constant


def _is_state(value: SSAValue) -> bool:
    while isinstance(value.owner, graph.CacheUpdate):
        value = value.owner.cache
    return isinstance(value.owner, graph.State)


def _is_constant(value: SSAValue) -> bool:
    """Whether a value follows from weights alone: no argument, state or effect on the way."""
    work, seen = [value], {value}
    while work:
        owner = work.pop().owner
        if not isinstance(owner, Operation) or not is_side_effect_free(owner):
            return False
        if isinstance(owner, graph.State):
            return False
        for operand in owner.operands:
            if operand not in seen:
                seen.add(operand)
                work.append(operand)
    return True
