"""All patterns of a set of rules as one decision tree.

Patterns are taken apart into questions with answers: which op makes the second operand of the root?
(`top.MatMul`); what is its `right_transpose`? (`False`). Questions are asked from the root outward,
always in the same order, so that rules with equal beginnings share a path of the tree, and one look
into a table of answers goes on with all rules that are still possible. (PDL's interpreter in MLIR
does the same, `mlir/lib/Conversion/PDLToPDLInterp/PredicateTree.h`.)

What the tree cannot share (captures, conditions) is asked rule by rule, in the order of benefit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xdsl.ir import Operation, SSAValue

from tilewright.dialects.graph import shape_of
from tilewright.passes.rules.expressions import Evaluate, compile_expression
from tilewright.passes.rules.plan import Bindings, plans_of
from tilewright.passes.rules.questions import Ask, Path, Read, Slots, read_operand
from tilewright.passes.rules.rule import Part, Rule, parts_of
from tilewright.passes.rules.syntax import Let, Where
from tilewright.passes.rules.values import NoValueError


@dataclass(frozen=True)
class MatchedRule:
    """A rule that applies: what its names stand for, and the ops that it has matched."""

    rule: Rule
    names: Mapping[str, object]
    ops: tuple[Operation, ...]
    """In the order of `rule.ops`."""


@dataclass
class _Node:
    """A place in the tree: the rules that match here, and what to ask next."""

    leaves: list[_Leaf] = field(default_factory=list["_Leaf"])
    questions: dict[Hashable, tuple[Ask, dict[Hashable, _Node]]] = field(
        default_factory=dict[Hashable, tuple[Ask, dict[Hashable, "_Node"]]]
    )

    def collect(self, slots: Slots, found: list[_Leaf]) -> None:
        """Append all rules that match."""
        found += self.leaves
        for ask, answers in self.questions.values():
            child = answers.get(ask(slots))
            if child is not None:
                child.collect(slots, found)


@dataclass(frozen=True)
class _OtherPart:
    """A part that begins at a user of a value, in one order of its commutative operands."""

    anchor: str
    head: type[Operation]
    read_anchor: Read
    questions: tuple[tuple[Ask, Hashable], ...]
    slots: int
    bindings: Bindings

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
    bindings: Bindings
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
            size = shape_of(value)[axis]
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
        sizes, clauses = tuple(_named_sizes(rule)), tuple(_clauses(rule))
        for order, plan in enumerate(plans_of(rule, rule.root, self.slots)):
            node = self.node
            for question, answer in plan.questions():
                _, answers = node.questions.setdefault(question.key, (question.ask, {}))
                node = answers.setdefault(answer, _Node())
            node.leaves.append(
                _Leaf((-rule.benefit, number, order), rule, plan.bindings(), others, sizes, clauses)
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
    for plan in plans_of(rule, part.head, slots):
        field_name = anchor.field
        if part.head in plan.swapped:
            field_name = op.operands[1 - anchor.field_index].field
        made.append(
            _OtherPart(
                anchor.value,
                op.op,
                read_operand(op.op, (field_name, anchor.item), 0),
                tuple((question.ask, answer) for question, answer in plan.questions()),
                len(slots),
                plan.bindings(),
            )
        )
    # All orders share one table of slots, which has all its rows only now.
    return tuple(replace(each, slots=len(slots)) for each in made)


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
