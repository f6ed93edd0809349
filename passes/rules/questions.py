"""Questions to ask of the ops found so far, and how values are read from them.

Ops that are found stand in slots; what makes an operand goes into a slot of its own when it is
asked for. Each function here makes a question, or a way to read a value, for fixed slots.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from xdsl.ir import Block, Operation, SSAValue
from xdsl.irdl import IRDLOperation, VarOperandDef

from tilewright.passes.rules.values import attribute_value

Step = tuple[str, int | None]
"""From an op to what makes an operand: field, and which value of a variadic one."""
Path = tuple[Step, ...]
"""From the root to an op."""
Slots = list[Operation | None]
"""The ops found so far, one place for each path of a tree."""
Read = Callable[[Slots], SSAValue | None]
"""A value that belongs to the ops found; None where it is missing."""
Ask = Callable[[Slots], Hashable]
"""The answer to a question about the ops found."""


@dataclass(frozen=True)
class Question:
    """Something to ask of the ops found; equal keys are equal questions."""

    key: Hashable
    rank: tuple[int, int, str]
    """The order in which questions are asked: depth, sort, and the path."""
    ask: Ask


def attribute_of(op: Operation | None, name: str, is_unit: bool) -> Hashable:
    """What a rule sees of an attribute: whether it is there if it is a unit, or its value."""
    if op is None:
        return None
    found = op.attributes.get(name) if "." in name else op.properties.get(name)
    if is_unit:
        return found is not None
    value = attribute_value(found)
    return value if isinstance(value, Hashable) else str(value)


def ask_attribute(slot: int, name: str, is_unit: bool) -> Ask:
    """What is an attribute of the op in a slot?"""
    return lambda slots: attribute_of(slots[slot], name, is_unit)


def read_operand(op: type[IRDLOperation], step: Step, slot: int) -> Read:
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


def read_result(slot: int, index: int) -> Read:
    """Reads a result of the op in a slot; None where it has none of that number."""

    def read(slots: Slots) -> SSAValue | None:
        op = slots[slot]
        return None if op is None or index >= len(op.results) else op.results[index]

    return read


def ask_producer(read: Read, slot: int) -> Ask:
    """Which op makes a value? It is kept in `slot`."""

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


def ask_result_index(read: Read) -> Ask:
    """Which result of its op is a value?"""
    return lambda slots: getattr(read(slots), "index", None)


def ask_use_count(slot: int) -> Ask:
    """How often are the results of the op in a slot used, together?"""

    def ask(slots: Slots) -> int:
        op = slots[slot]
        return 0 if op is None else sum(1 for result in op.results for _ in result.uses)

    return ask


def ask_operand_count(slot: int, name: str) -> Ask:
    """How many values stand at a variadic operand?"""
    return lambda slots: len(getattr(slots[slot], name))


def ask_for_one_type(slot: int) -> Ask:
    """Have the two operands of the op in a slot one type?"""

    def ask(slots: Slots) -> bool:
        op = slots[slot]
        return op is not None and op.operands[0].type == op.operands[1].type

    return ask


def ask_presence(read: Read) -> Ask:
    """Is an operand there?"""
    return lambda slots: read(slots) is not None


def ask_sameness(first: Read, second: Read) -> Ask:
    """Are two values the same one?"""
    return lambda slots: first(slots) is second(slots)
