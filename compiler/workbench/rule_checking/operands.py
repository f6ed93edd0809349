"""Which values a pattern has: optional operands are there or not, lists have a length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xdsl.irdl import OptOperandDef, VarOperandDef

from tilewright.compiler.workbench.rule_checking.draft import Draft
from tilewright.passes.rules.rule import OperandPattern, OpPattern, Presence

_COUNTS = (1, 2, 3)
"""How many values a variadic operand gets."""


def choose_operands(draft: Draft) -> None:
    """Give each operand field of each op its values, by name; those without a name of their own
    are called after their place, `@0.right`."""
    for value in draft.rule.values.values():
        if value.presence is Presence.OPTIONAL and draft.choices.pick((True, False)):
            draft.absent.add(value.name)
    for index, op in enumerate(draft.rule.ops):
        draft.operands.append(dict(_operands_of(draft, index, op)))


def _operands_of(draft: Draft, index: int, op: OpPattern) -> Iterable[tuple[str, tuple[str, ...]]]:
    for field, kind in op.op.get_irdl_definition().operands:
        place = f"@{index}.{field}"
        found = [each for each in op.operands if each.field == field]
        if isinstance(kind, OptOperandDef):
            yield field, _optional(draft, place, found)
        elif isinstance(kind, VarOperandDef) and found and found[0].presence is Presence.ALL:
            yield field, _list(draft, found[0].value or place)
        elif isinstance(kind, VarOperandDef):
            yield field, tuple(each.value or f"{place}.{at}" for at, each in enumerate(found))
        else:
            yield field, (found[0].value or place,)


def _optional(draft: Draft, place: str, found: Sequence[OperandPattern]) -> tuple[str, ...]:
    """The value of an optional operand, or nothing."""
    if not found or found[0].presence is Presence.ABSENT or found[0].value in draft.absent:
        return ()
    name = found[0].value
    if name is None and found[0].presence is Presence.OPTIONAL:
        return draft.choices.pick(((), (place,)))
    return (name or place,)


def _list(draft: Draft, name: str) -> tuple[str, ...]:
    """The values of a list, of a number that is chosen once."""
    if name not in draft.lists:
        count = draft.choices.pick(_COUNTS)
        draft.lists[name] = tuple(f"{name}.{at}" for at in range(count))
    return draft.lists[name]
