"""An instance of a pattern, as plain data: what each value, attribute and input is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tilewright.dialects.element_types import ElementType
from tilewright.passes.lowerings import ConversionOptions


class Source(Enum):
    """Where an input of a pattern comes from."""

    ARGUMENT = "argument"
    WEIGHT = "weight"
    COMPUTED = "computed from a weight"
    STATE = "state"


@dataclass(frozen=True)
class Tensor:
    """The type of a value."""

    shape: tuple[int, ...]
    element: ElementType

    def __str__(self) -> str:
        return f"{self.element.name}{list(self.shape)}"


@dataclass
class Plan:
    """All that is chosen for one instance; `instances` builds a module of it."""

    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """By the name of the value; results and inputs."""
    operands: list[dict[str, tuple[str, ...]]] = field(
        default_factory=list[dict[str, tuple[str, ...]]]
    )
    """For each op of the pattern: the values at each field."""
    attributes: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """For each op: its attributes as rules see them."""
    sources: dict[str, Source] = field(default_factory=dict[str, Source])
    """Of the inputs."""
    same: dict[str, str] = field(default_factory=dict[str, str])
    """Inputs that are another input."""
    absent: frozenset[str] = frozenset()
    """Optional inputs that are not there."""
    swapped: frozenset[int] = frozenset()
    """Ops whose two operands have changed places."""
    extra_uses: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often a value is returned, besides the uses in the pattern."""
    loose: frozenset[tuple[str, object]] = frozenset()
    """Attributes, with their values, of which the rule asks only that they are near a number."""
    options: ConversionOptions = field(default_factory=ConversionOptions)
    """Of the conversion, for a lowering."""
    values_seed: int = 0
    values_case: str = "small"

    def variants(self, root: str) -> list[str]:
        """What of the pattern's options this instance has taken, in words.

        `root` is what the rule replaces, which is always used.
        """
        found = [f"without {name}" for name in sorted(self.absent)]
        found += [f"operands of op {index + 1} swapped" for index in sorted(self.swapped)]
        found += [f"{name} is {other}" for name, other in sorted(self.same.items())]
        found += [f"{name} used elsewhere" for name in sorted(self.extra_uses) if name != root]
        return found
