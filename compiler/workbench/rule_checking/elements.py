"""Element types as unknowns: sets of types that are made equal or smaller."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tilewright.compiler.workbench.rule_checking.choices import Choices, ConflictError
from tilewright.dialects.element_types import ELEMENT_TYPES, ElementType


@dataclass
class Elements:
    """The element type of each value, by the value's name."""

    choices: Choices
    parents: dict[str, str] = field(default_factory=dict[str, str])
    domains: dict[str, tuple[ElementType, ...]] = field(
        default_factory=dict[str, tuple[ElementType, ...]]
    )

    def root(self, name: str) -> str:
        """The name that stands for all that have this one's type."""
        while name in self.parents:
            name = self.parents[name]
        self.domains.setdefault(name, ELEMENT_TYPES)
        return name

    def restrict(self, name: str, allowed: Iterable[ElementType]) -> None:
        """The type of `name` is one of `allowed`."""
        root, kept = self.root(name), tuple(allowed)
        self.domains[root] = tuple(each for each in self.domains[root] if each in kept)
        if not self.domains[root]:
            raise ConflictError

    def equal(self, left: str, right: str) -> None:
        """Both have one type."""
        a, b = self.root(left), self.root(right)
        if a != b:
            self.parents[b] = a
            self.restrict(a, self.domains[b])

    def choose(self, name: str) -> ElementType:
        """The type of `name`."""
        root = self.root(name)
        domain = self.domains[root]
        floats = [element for element in domain if element.is_float]
        found = self.choices.pick((*floats, *floats, *floats, *domain))
        self.domains[root] = (found,)
        return found
