"""Ranks as unknowns: what ops, kinds and conditions say of them, then a choice for each value."""

from __future__ import annotations

from collections.abc import Iterable, Set

from tilewright.compiler.workbench.rule_checking.choices import ConflictError
from tilewright.compiler.workbench.rule_checking.draft import Draft
from tilewright.passes.rules import syntax
from tilewright.passes.rules.rule import Value
from tilewright.passes.rules.syntax import Binary, Expression

RANKS = (1, 2, 3, 4)
_OF_ONE_ITEM_AN_AXIS = ("order", "offsets")
"""Attributes whose length is the rank of the operand `x`."""


def choose_ranks(draft: Draft) -> None:
    """Give each value a shape of unknown sizes."""
    ranks = _Ranks()
    for index, row in enumerate(draft.rows):
        for field, name in draft.fields(index):
            ranks.relate(name, index, row.ranks[field])
    for value in draft.rule.values.values():
        if value.name not in draft.absent:
            _restrict_by_kinds(value, ranks)
    for condition in draft.conditions:
        _restrict_by_condition(condition, ranks, draft.absent)
    for target, value in draft.kept_values():
        ranks.equal(target, value)
    for op, fields in zip(draft.rule.ops, draft.operands, strict=True):
        for attribute in op.attributes:
            if isinstance(attribute.value, tuple) and attribute.name in _OF_ONE_ITEM_AN_AXIS:
                ranks.restrict(fields["x"][0], (len(attribute.value),))
    for name in dict.fromkeys(
        name for index in range(len(draft.rule.ops)) for _, name in draft.fields(index)
    ):
        rank = draft.choices.pick(ranks.domain(name))
        ranks.restrict(name, (rank,))
        draft.shapes[name] = draft.sizes.fresh_shape(rank)


def _restrict_by_kinds(value: Value, ranks: _Ranks) -> None:
    """`rank 2`, `f32[_, n]`, `f32[..., n]`."""
    for kind in value.kinds:
        if kind.rank is not None:
            ranks.restrict(value.name, (kind.rank,))
        if kind.dims is not None:
            fixed = sum(not dim.rest for dim in kind.dims)
            whole = fixed == len(kind.dims)
            ranks.restrict(value.name, (fixed,) if whole else range(fixed, max(RANKS) + 2))


def _restrict_by_condition(condition: Expression, ranks: _Ranks, absent: Set[str]) -> None:
    """What a condition says of ranks, where that is plain: less to find out by trying."""
    match condition:
        case Binary("and", left, right):
            _restrict_by_condition(left, ranks, absent)
            _restrict_by_condition(right, ranks, absent)
        case Binary("==", left, right):
            a, b = _asked("rank", left), _asked("rank", right)
            if a and isinstance(right, syntax.Literal) and isinstance(right.value, int):
                ranks.restrict(a, (right.value,))
            elif a and b:
                ranks.equal(a, b)
            a, b = _asked("shape", left), _asked("shape", right)
            if a and b and not {a, b} & absent:
                ranks.equal(a, b)
        case _:
            return


def _asked(function: str, expression: Expression) -> str | None:
    """The name whose `rank`, `shape` an expression asks for."""
    match expression:
        case syntax.Call(word, (syntax.Name(name),)) if word.text == function:
            return name
        case _:
            return None


class _Ranks:
    """Sets of numbers, by the names of values, that are made equal or smaller."""

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
