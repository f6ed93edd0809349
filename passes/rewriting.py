"""Drives patterns over the functions of a module, step by step.

Each application is an action (see `actions`): it is announced before anything changes, can be held
back, and ends with the ops that it has made. New ops have the location of what they replace.

Ops are visited in their order. A round visits every op that there is when it begins; the next
round visits what the last one has touched (new ops, their users, makers of operands that are used
less), and when nothing is left, every op again: no pattern applies anywhere when `apply_patterns`
returns.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp, UnknownLoc
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue, Use
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriterListener, RewritePattern

from tilewright.dialects.errors import OptionError
from tilewright.dialects.scopes import functions_of, where_of
from tilewright.passes import actions

ROUNDS = 16
"""Rounds that any module may take; one more for each op, since a change may travel that far."""
APPLICATIONS_PER_OP = 20
"""Steps that a fixed point may take for each op at the beginning."""
RECENT = 64
"""Steps that are remembered, to say which patterns keep applying."""


class AnnouncingPattern(RewritePattern):
    """A pattern that announces its steps itself, and says which ops it may begin at."""

    @property
    @abstractmethod
    def roots(self) -> frozenset[type[Operation]]:
        """The ops at which the pattern may apply."""

    last_applied: str = ""
    """The name of what was applied last."""


def apply_patterns(
    target: ModuleOp | FuncOp,
    patterns: Sequence[RewritePattern],
    *,
    to_fixpoint: bool = True,
    max_rounds: int | None = None,
) -> int:
    """Apply `patterns` to the ops of `target`, those first in the list first; how often they did.

    With `to_fixpoint` until none applies any more, else in one round, which leaves new ops alone.
    Patterns of xDSL take part as they are: their steps are called like their classes, and
    announced when they begin to change something.

    Raises `OptionError` naming the patterns that keep applying after `max_rounds` rounds (by
    default 16 and one for each op), or after 20 steps for each op.
    """
    return _Driver(patterns, _Limit(max_rounds)).run(target, to_fixpoint=to_fixpoint)


@dataclass
class _Limit:
    """When to give up."""

    rounds: int | None
    steps: int = 0

    def begin(self, ops: int) -> None:
        if self.rounds is None:
            self.rounds = ROUNDS + ops
            self.steps = APPLICATIONS_PER_OP * (ROUNDS + ops)

    def is_reached(self, rounds: int, steps: int) -> bool:
        return (self.rounds is not None and rounds > self.rounds) or 0 < self.steps < steps


class HeldBackError(Exception):
    """A watcher does not let a pattern begin."""


@dataclass
class _Changes:
    """What patterns have changed since the round began, in order; erased ops aside."""

    made: list[Operation] = field(default_factory=list[Operation])
    touched: dict[Operation, None] = field(default_factory=dict[Operation, None])
    erased: set[Operation] = field(default_factory=set[Operation])

    def listener(self) -> PatternRewriterListener:
        return PatternRewriterListener(
            operation_insertion_handler=[self._insert],
            operation_modification_handler=[self._touch],
            operation_removal_handler=[self._remove],
            operation_replacement_handler=[self._replace],
        )

    def take(self) -> list[Operation]:
        """What has been touched and is still there; begins anew."""
        touched, self.touched, self.made, self.erased = list(self.touched), {}, [], set()
        return touched

    def _insert(self, op: Operation) -> None:
        self.erased.discard(op)
        self.made.append(op)
        self._touch(op)

    def _touch(self, op: Operation) -> None:
        self.touched[op] = None

    def _remove(self, op: Operation) -> None:
        for gone in op.walk():
            self.erased.add(gone)
            self.touched.pop(gone, None)
            for operand in gone.operands:
                if isinstance(operand.owner, Operation):
                    self._touch(operand.owner)

    def _replace(self, op: Operation, new: Sequence[SSAValue | None]) -> None:
        del new
        for result in op.results:
            for use in result.uses:
                self._touch(use.operation)


class AnnouncingRewriter(PatternRewriter):
    """A rewriter that announces the pattern before the first change that it makes."""

    def __init__(self, op: Operation, pattern: str) -> None:
        self.is_announced = False
        """Whether there is nothing more to announce."""
        self.has_announced = False
        self.pattern = pattern
        self._root = op
        super().__init__(op)

    def _announce(self) -> None:
        if not self.is_announced:
            self.is_announced = True
            if not actions.begin(self.pattern, self._root):
                raise HeldBackError
            self.has_announced = True

    def __setattr__(self, name: str, value: object) -> None:
        # xDSL raises this flag when it begins to change something, with the exceptions below.
        if name == "has_done_action" and value:
            self._announce()
        super().__setattr__(name, value)

    def replace_all_uses_with(
        self, from_value: SSAValue, to_value: SSAValue | None, safe_erase: bool = True
    ) -> None:
        if from_value is not to_value and from_value.uses:
            self._announce()
        super().replace_all_uses_with(from_value, to_value, safe_erase)

    def replace_uses_with_if(
        self, from_value: SSAValue, to_value: SSAValue, predicate: Callable[[Use], bool]
    ) -> None:
        if from_value is not to_value and any(predicate(use) for use in from_value.uses):
            self._announce()
        super().replace_uses_with_if(from_value, to_value, predicate)


class _Driver:
    def __init__(self, patterns: Sequence[RewritePattern], limit: _Limit) -> None:
        self.patterns = patterns
        self.limit = limit
        self.changes = _Changes()
        self.listener = self.changes.listener()
        self.steps = 0
        self.is_stopped = False
        self.recent: deque[str] = deque(maxlen=RECENT)
        announcing = [each for each in patterns if isinstance(each, AnnouncingPattern)]
        self.roots: frozenset[type[Operation]] | None = None
        """The ops at which any pattern may begin; None where one may begin anywhere."""
        if len(announcing) == len(patterns):
            self.roots = frozenset(root for pattern in announcing for root in pattern.roots)

    def run(self, target: ModuleOp | FuncOp, *, to_fixpoint: bool) -> int:
        """All rounds; how many steps were taken."""
        work = _ops_of(target)
        self.limit.begin(len(work))
        is_full, rounds = True, 0
        while True:
            rounds += 1
            before = self.steps
            for op in work:
                if self.roots is None or type(op) in self.roots:
                    self.visit(op)
                if self.is_stopped:
                    _drop_loose_ops(target)
                    return self.steps
            applied = self.steps > before
            if not to_fixpoint or (is_full and not applied):
                return self.steps
            if self.limit.is_reached(rounds, self.steps):
                raise self.no_fixpoint(rounds)
            touched = self.changes.take()
            is_full = not (applied and touched)
            work = _ops_of(target) if is_full else touched

    def visit(self, op: Operation) -> None:
        """Apply the first pattern that does."""
        if op in self.changes.erased or op.parent is None:
            return
        for pattern in self.patterns:
            if isinstance(pattern, AnnouncingPattern):
                applied = type(op) in pattern.roots and self.apply_announcing(pattern, op)
            else:
                applied = self.apply_plain(pattern, op)
            if applied:
                self.steps += 1
            if applied or self.is_stopped:
                return

    def apply_announcing(self, pattern: AnnouncingPattern, op: Operation) -> bool:
        rewriter = PatternRewriter(op)
        rewriter.extend_from_listener(self.listener)
        pattern.match_and_rewrite(op, rewriter)
        if rewriter.has_done_action:
            self.recent.append(pattern.last_applied)
        return rewriter.has_done_action

    def apply_plain(self, pattern: RewritePattern, op: Operation) -> bool:
        name = type(pattern).__name__
        rewriter = AnnouncingRewriter(op, name)
        rewriter.extend_from_listener(self.listener)
        location, before = op.location, len(self.changes.made)
        try:
            pattern.match_and_rewrite(op, rewriter)
        except HeldBackError:
            self.is_stopped = True
            return False
        if not rewriter.has_done_action:
            return False
        made = [new for new in self.changes.made[before:] if new not in self.changes.erased]
        for new in made:
            if isinstance(new.location, UnknownLoc):
                new.location = location
        self.recent.append(name)
        actions.end(made)
        return True

    def no_fixpoint(self, rounds: int) -> OptionError:
        names = ", ".join(sorted(set(self.recent)))
        op = next(iter(self.changes.take()), None)
        return OptionError(
            f"patterns keep applying: {names}",
            where=None if op is None else where_of(op),
            why=f"no end after {rounds} rounds and {self.steps} steps",
            hint="one undoes what another does, or what it has made matches again",
        )


def _ops_of(target: ModuleOp | FuncOp) -> list[Operation]:
    """All ops in the functions of `target`, in order."""
    functions = [target] if isinstance(target, FuncOp) else functions_of(target).values()
    return [op for function in functions for op in function.body.walk()]


def _drop_loose_ops(target: ModuleOp | FuncOp) -> None:
    """Erase ops in no block that use values of `target`: a pattern held back has made them."""
    values: dict[SSAValue, None] = {}
    for op in _ops_of(target):
        values.update(dict.fromkeys((*op.operands, *op.results)))
    for value in values:
        for use in tuple(value.uses):
            user = use.operation
            while (parent := user.parent_op()) is not None:
                user = parent
            if user.parent is None and not isinstance(user, ModuleOp | FuncOp):
                user.erase(safe_erase=False)
