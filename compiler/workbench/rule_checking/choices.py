"""Searches over choices: a function that chooses and may find out later that it cannot go on.

`search` calls the function again and again, each time with the last choice that has another option
left turned to it, until one run ends without a `ConflictError`. The first option of each choice is
picked by the caller, the others follow in turn. `Bytes` picks by a string of bytes, which
Hypothesis draws at once and makes smaller byte by byte: a draw for each choice takes ten times as
long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

Picker = Callable[[int], int]
"""Picks one of `n` options by number."""


RUNS_FROM_ONE_START = 6
"""So many runs from the picker's choices; then it picks anew, lest the last choices are turned in
vain while an early one is to blame."""


class ConflictError(Exception):
    """What has been chosen cannot be: there is no instance of it."""


class Choices:
    """The choices of one run, on a tape: each is the first pick and how many came after it."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker
        self._tape: list[_Choice] = []
        self._place = 0

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`; raises `ConflictError` where there is none."""
        if not options:
            raise ConflictError
        if self._place == len(self._tape):
            first = self._picker(len(options)) if len(options) > 1 else 0
            self._tape.append(_Choice(first, len(options)))
        choice = self._tape[self._place]
        self._place += 1
        return options[(choice.first + choice.turned) % len(options)]

    def rewind(self) -> None:
        """Begin anew with the choices made."""
        self._place = 0

    def turn(self) -> bool:
        """Turn the last choice that has options left; false where none has."""
        del self._tape[self._place :]
        while self._tape:
            self._tape[-1].turned += 1
            if self._tape[-1].turned < self._tape[-1].count:
                return True
            self._tape.pop()
        return False


class Bytes:
    """A picker: each pick is the next byte, and the smaller it is, the earlier the option.

    After the last byte come those of a fixed stream, so that equal bytes give equal picks.
    """

    def __init__(self, given: bytes) -> None:
        self._given = iter(given)
        self._rest = Random(0)

    def __call__(self, count: int) -> int:
        """One of `count` options, by number."""
        byte = next(self._given, None)
        return self._rest.randrange(count) if byte is None else byte % count


class _Choice:
    __slots__ = ("count", "first", "turned")

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count
        self.turned = 0


def search(run: Callable[[Choices], T], picker: Picker, *, limit: int) -> T | None:
    """What the first run of at most `limit` gives that meets no `ConflictError`; None if all do."""
    choices = Choices(picker)
    for number in range(limit):
        if number % RUNS_FROM_ONE_START == 0:
            choices = Choices(picker)
        choices.rewind()
        try:
            return run(choices)
        except ConflictError:
            if not choices.turn():
                return None
    return None
