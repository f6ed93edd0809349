"""What a property of a quantizer is: cases to draw, a check, and what it takes to be checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tilewright.dialects.errors import OptionError
from tilewright.testing.quantizer import PropertyError, Subject

Array = npt.NDArray[Any]
Case = tuple[Any, ...]
Cases = Callable[[Subject], st.SearchStrategy[Case]]
Check = Callable[..., None]
Applies = Callable[[Subject], str | None]

CATCHES = "Catches "
"""How the paragraph of a check's docstring begins that says which faults it finds."""


@dataclass(frozen=True)
class Property:
    """A property of quantizers.

    `check(subject, *case)` raises `PropertyError` where it does not hold; `cases(subject)` draws
    the cases. So one property in a test of your own is

        @given(prop.cases(subject))
        def test_mine(case):
            prop.check(subject, *case)
    """

    id: str
    check: Check
    cases: Cases
    needs: tuple[str, ...] = ()
    """Abilities (fields of `Quantizer`) that a quantizer must have."""
    applies: Applies | None = None
    """Why the property says nothing of a subject; None if it does."""
    share: float = 1.0
    """Examples that are drawn, as a share of those asked for (large cases are slow)."""

    @property
    def meaning(self) -> str:
        """What holds, in one sentence."""
        return " ".join(self._paragraphs[0].split())

    @property
    def catches(self) -> str:
        """Which faults it finds."""
        (text,) = [p for p in self._paragraphs if p.startswith(CATCHES)]
        return " ".join(text.removeprefix(CATCHES).split())

    @property
    def _paragraphs(self) -> list[str]:
        return cleandoc(self.check.__doc__ or "").split("\n\n")

    def why_not(self, subject: Subject) -> str | None:
        """Why the property does not apply to a subject; None if it does."""
        lacking = [need for need in self.needs if not subject.quantizer.can(need)]
        if lacking:
            return f"the quantizer has no {' or '.join(lacking)}"
        return self.applies(subject) if self.applies else None


PROPERTIES: dict[str, Property] = {}
"""All properties by id, in the order of the documentation."""


def quantizer_property(
    name: str,
    cases: Cases,
    *,
    needs: Sequence[str] = (),
    applies: Applies | None = None,
    share: float = 1.0,
) -> Callable[[Check], Property]:
    """Makes a check a property, and puts it into `PROPERTIES`.

    The check's docstring is the property's documentation: what holds in the first sentence, and a
    paragraph "Catches ...". Raises `OptionError` for an id that is taken.
    """

    def register(check: Check) -> Property:
        if name in PROPERTIES:
            raise OptionError(f"there is a property {name!r} already")
        made = Property(name, check, cases, tuple(needs), applies, share)
        PROPERTIES[name] = made
        return made

    return register


def fail(message: str) -> NoReturn:
    """The property does not hold."""
    raise PropertyError(message)


def require(holds: bool, message: str) -> None:
    """Fails with `message` unless it holds."""
    if not holds:
        fail(message)


def require_each(holds: Array, message: Callable[[tuple[int, ...]], str]) -> None:
    """Fails at the first index at which an array of truths does not hold."""
    if not np.all(holds):
        fail(message(tuple(int(i) for i in np.argwhere(~np.asarray(holds))[0])))


def at(array: Array, index: tuple[int, ...]) -> str:
    """An element as a message shows it."""
    return f"{np.asarray(array)[index].item():.9g}"


# Why properties do not apply.


def only_integers(subject: Subject) -> str | None:
    return None if subject.is_integer else "codes are floats"


def only_symmetric(subject: Subject) -> str | None:
    return "the scheme has zero points" if subject.scheme.zero_point else None


def only_zero_points(subject: Subject) -> str | None:
    return None if subject.scheme.zero_point else "the scheme has no zero points"


def only_groups(subject: Subject) -> str | None:
    return None if subject.scheme.group else "the scheme has no groups"


def only_four_bits(subject: Subject) -> str | None:
    return None if subject.scheme.format.bits == 4 else "codes have 8 bits"


def all_of(*conditions: Applies) -> Applies:
    """Why the first of several conditions is not met."""

    def applies(subject: Subject) -> str | None:
        reasons = (condition(subject) for condition in conditions)
        return next((reason for reason in reasons if reason), None)

    return applies
