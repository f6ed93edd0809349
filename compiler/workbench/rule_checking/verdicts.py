"""What a check of a rule has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from tilewright.compiler.workbench.rule_checking.plan import Plan
from tilewright.compiler.workbench.rule_checking.trial import Finding
from tilewright.passes.rules.rule import Presence, Rule

Verdict = Literal["right", "wrong", "never exercised", "not checkable"]


@dataclass(frozen=True)
class Counterexample:
    """The smallest instance found on which a rule is wrong."""

    plan: Plan
    finding: Finding
    before: str
    after: str
    root: str
    """The value that the rule replaces."""
    merged: bool
    """Whether it is wrong only when it is applied together with the other rules."""
    numbers: Mapping[str, npt.NDArray[Any]]
    """What arguments, weights and states held."""


@dataclass
class RuleReport:
    """What a check of one rule has found."""

    rule: Rule
    seed: int
    examples: int = 0
    """How often an instance was asked for."""
    instances: int = 0
    """How many legal instances of the pattern there were."""
    applied: int = 0
    """On how many of them the rule applied."""
    variants: Counter[str] = field(default_factory=Counter[str])
    """How many instances on which it applied had which of the pattern's options."""
    together: int = 0
    """On how many it was tried with all other rules there."""
    others: Counter[str] = field(default_factory=Counter[str])
    """How often another rule came first when all were there."""
    counterexample: Counterexample | None = None
    problem: str = ""
    """Why the rule cannot be checked at all."""

    @property
    def verdict(self) -> Verdict:
        if self.problem:
            return "not checkable"
        if self.counterexample is not None:
            return "wrong"
        return "right" if self.applied else "never exercised"

    @property
    def is_right(self) -> bool:
        return self.verdict == "right"

    @property
    def shadowed_by(self) -> str:
        """The rules that always come first; nothing if this one has its turn."""
        always = 0 < self.together == self.others.total()
        return ", ".join(self.others) if always else ""

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Options of the pattern on which the rule never applied."""
        wanted = [
            word + name
            for name, value in self.rule.values.items()
            if value.presence is Presence.OPTIONAL
            for word in ("with ", "without ")
        ]
        return tuple(each for each in wanted if each not in self.variants)
