"""The questions that tell whether a pattern is present, and where its names are found then."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import product

from xdsl.dialects.builtin import FloatAttr
from xdsl.irdl import IRDLOperation, OptOperandDef
from xdsl.traits import Commutative

from tilewright.dialects import graph
from tilewright.passes.rules.kinds import Holds, has_dims, has_element, has_origin
from tilewright.passes.rules.questions import (
    Ask,
    Path,
    Question,
    Read,
    Slots,
    Step,
    ask_attribute,
    ask_for_one_type,
    ask_operand_count,
    ask_presence,
    ask_producer,
    ask_result_index,
    ask_sameness,
    ask_use_count,
    attribute_of,
    read_operand,
    read_result,
)
from tilewright.passes.rules.rule import (
    AttributeTest,
    Dim,
    OperandPattern,
    OpPattern,
    Presence,
    Rule,
)
from tilewright.passes.rules.scope import property_class
from tilewright.passes.rules.values import to_f32

COMMUTATIVE = ("Add", "Mul", "Max", "Min")
"""Binary ops of `top` and `tpu` whose operands may change places."""


def is_commutative(op: type[IRDLOperation]) -> bool:
    """Whether the two operands of `op` may change places."""
    if issubclass(op, graph.BinaryGraphOp):
        return op.name.rpartition(".")[2] in COMMUTATIVE
    return op.has_trait(Commutative) and len(op.get_irdl_definition().operands) == 2


@dataclass(frozen=True)
class Bindings:
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
            value = attribute_of(slots[slot], attribute, is_unit)
            if names.setdefault(name, value) != value:
                return False
        return True


def plans_of(rule: Rule, head: int, slots: dict[Path, int]) -> Iterator[Plan]:
    """The plans of the part at `head`, one for each order of its commutative operands."""
    first = Plan(rule, head, frozenset(), slots)
    yield first
    swappable = sorted(index for index in first.paths if _may_swap(rule.ops[index]))
    for swaps in list(product((False, True), repeat=len(swappable)))[1:]:
        chosen = frozenset(index for index, swap in zip(swappable, swaps, strict=True) if swap)
        yield Plan(rule, head, chosen, slots)


def _may_swap(op: OpPattern) -> bool:
    """Whether another order of the operands can make a difference."""
    if not is_commutative(op.op):
        return False
    first, second = (operand.value for operand in op.operands)
    return first != second


class Plan:
    """The questions of a part in one order of its operands, and where its names are found."""

    def __init__(
        self, rule: Rule, head: int, swapped: frozenset[int], slots: dict[Path, int]
    ) -> None:
        self.rule = rule
        self.swapped = swapped
        self.slots = slots
        self.asked: dict[Hashable, tuple[Question, Hashable]] = {}
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
        self, key: tuple[Hashable, ...], depth: int, sort: int, ask: Ask,
        answer: Hashable,
    ) -> None:  # fmt: skip
        """Note a question and the answer that the rule needs."""
        self.asked.setdefault((key, answer), (Question(key, (depth, sort, str(key)), ask), answer))

    def questions(self) -> list[tuple[Question, Hashable]]:
        """All questions, in the order that all rules keep."""
        return sorted(self.asked.values(), key=lambda pair: pair[0].rank)

    def visit(self, index: int, path: Path) -> None:
        """Ask what an op must be, and go on to what makes its operands."""
        op = self.rule.ops[index]
        slot = self.slot(path)
        self.paths[index] = path
        self.ask_attributes(op, path, slot)
        if op.uses is not None:
            self.ask(("uses", path), len(path), 4, ask_use_count(slot), op.uses)
        for name, count in op.variadic_counts.items():
            self.ask(("count", path, name), len(path), 1, ask_operand_count(slot, name), count)
        if index in self.swapped:
            self.ask(("one type", path), len(path), 2, ask_for_one_type(slot), True)
        for operand in op.operands:
            self.visit_operand(op, index, operand, path, slot)

    def visit_operand(
        self, op: OpPattern, index: int, operand: OperandPattern, path: Path, slot: int
    ) -> None:
        name = operand.field
        if index in self.swapped:
            name = op.operands[1 - operand.field_index].field
        step: Step = (name, operand.item)
        read = read_operand(op.op, step, slot)
        depth = len(path)
        if operand.presence is Presence.ALL:
            if operand.value is not None:
                self.lists.append((operand.value, slot, name))
            return
        fields = dict(op.op.get_irdl_definition().operands)
        is_optional = isinstance(fields[name], OptOperandDef)
        if is_optional and operand.presence is not Presence.OPTIONAL:
            wanted = operand.presence is Presence.REQUIRED
            self.ask(("there", path, step), depth, 1, ask_presence(read), wanted)
        if operand.presence is Presence.ABSENT or operand.value is None:
            return
        producer = self.rule.values[operand.value].producer
        if producer is None:
            before = self.places.setdefault(operand.value, (path, step))
            if before != (path, step):
                self.ask_same(self.read_place(before), before, read, (path, step))
        elif producer in self.paths:
            result = self.rule.ops[producer].results.index(operand.value)
            other = read_result(self.slot(self.paths[producer]), result)
            self.ask_same(other, (self.paths[producer], ("", result)), read, (path, step))
        else:
            child = (*path, step)
            wanted_op = self.rule.ops[producer]
            made_by = ask_producer(read, self.slot(child))
            self.ask(("op", child), depth + 1, 0, made_by, wanted_op.op)
            if len(wanted_op.op.get_irdl_definition().results) != 1 or len(wanted_op.results) > 1:
                result = wanted_op.results.index(operand.value)
                self.ask(("result", child), depth + 1, 1, ask_result_index(read), result)
            self.visit(producer, child)

    def read_place(self, place: tuple[Path, Step]) -> Read:
        path, step = place
        index = next(index for index, found in self.paths.items() if found == path)
        return read_operand(self.rule.ops[index].op, step, self.slot(path))

    def ask_same(
        self, first: Read, place: tuple[Path, Step], second: Read, other: tuple[Path, Step]
    ) -> None:
        depth = max(len(place[0]), len(other[0]))
        self.ask(("same", place, other), depth, 5, ask_sameness(first, second), True)

    def ask_attributes(self, op: OpPattern, path: Path, slot: int) -> None:
        definition = op.op.get_irdl_definition()
        for attribute in op.attributes:
            if attribute.test is AttributeTest.EQUALS:
                answer: Hashable = attribute.value
                if isinstance(answer, int | float) and not isinstance(answer, bool):
                    is_float = property_class(definition, attribute.name) is FloatAttr
                    answer = to_f32(answer) if is_float else answer
                ask = ask_attribute(slot, attribute.name, attribute.is_unit)
                self.ask(("attribute", path, attribute.name), len(path), 3, ask, answer)

    def ask_kinds(self, name: str) -> None:
        path, step = self.places[name]
        value, read, depth = self.rule.values[name], self.read_place((path, step)), len(path)
        place = (path, step)
        is_optional = value.presence is Presence.OPTIONAL
        for kind in value.kinds:
            if kind.origin is not None:
                has = has_origin(kind.origin)
                self.ask_value(("origin", kind.origin, place), depth, read, has, is_optional)
            if kind.element is not None:
                has = has_element(kind.element)
                self.ask_value(("element", kind.element, place), depth, read, has, is_optional)
            if kind.rank is not None:
                dims = (Dim(),) * kind.rank
                self.ask_value(("dims", dims, place), depth, read, has_dims(dims), is_optional)
            if kind.dims is not None:
                dims = tuple(Dim(dim.size, None, dim.rest) for dim in kind.dims)
                self.ask_value(("dims", dims, place), depth, read, has_dims(dims), is_optional)

    def ask_value(
        self,
        key: tuple[Hashable, ...],
        depth: int,
        read: Read,
        holds: Holds,
        is_optional: bool,
    ) -> None:
        def ask(slots: Slots) -> bool:
            value = read(slots)
            return is_optional if value is None else holds(value)

        self.ask((*key, is_optional), depth, 6, ask, True)

    def bindings(self) -> Bindings:
        """Where the names of the part are found."""
        values: list[tuple[str, Read]] = [
            (name, self.read_place(place)) for name, place in self.places.items()
        ]
        captures: list[tuple[str, int, str, bool]] = []
        for index, path in self.paths.items():
            slot = self.slot(path)
            op = self.rule.ops[index]
            values += [(name, read_result(slot, at)) for at, name in enumerate(op.results)]
            captures += [
                (str(each.value), slot, each.name, each.is_unit)
                for each in op.attributes
                if each.test is AttributeTest.CAPTURE
            ]
        ops = tuple((index, self.slot(path)) for index, path in self.paths.items())
        return Bindings(tuple(values), tuple(self.lists), tuple(captures), ops)
