"""A failure seen again: the failing pass on what it was given, under the check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tilewright.compiler.workbench.bisect import find_failure
from tilewright.compiler.workbench.failures import Failure
from tilewright.compiler.workbench.reproducer import (
    INPUTS,
    Reproducer,
    argument_arrays,
    versions_here,
)
from tilewright.dialects.errors import ModelReadError
from tilewright.dialects.plugins import installed_plugins


@dataclass(frozen=True)
class Replay:
    """What became of a failure. `found` is what fails now, if anything does; it may be another."""

    expected: Failure
    found: Failure | None
    notes: tuple[str, ...]
    """What differs from where the reproducer was written."""

    @property
    def reproduced(self) -> bool:
        return self.expected.is_like(self.found)

    def to_json(self) -> dict[str, object]:
        """The document of `tw replay --json`."""
        return {
            "reproduced": self.reproduced,
            "expected": self.expected.to_json(),
            "found": None if self.found is None else self.found.to_json(),
            "notes": list(self.notes),
        }


def replay(folder: Path) -> Replay:
    """Run the failing pass of a reproducer again.

    Raises `ModelReadError` for a folder that is not a reproducer.
    """
    reproducer = Reproducer.read(folder)
    notes = [*_version_notes(reproducer.versions), *_plugin_notes(reproducer.plugins)]
    if not _same_inputs(reproducer, folder):
        notes.append(f"this version makes other inputs from the seed than {INPUTS} holds")
    found = find_failure(
        reproducer.before,
        [reproducer.failing_pass],
        reproducer.options,
        inputs_of=reproducer.input,
        numerics=reproducer.failure.kind == "miscompilation",
    )
    return Replay(reproducer.failure, found, tuple(notes))


def _version_notes(then: Mapping[str, str]) -> list[str]:
    now = versions_here()
    return [
        f"{name} is {now.get(name, 'not there')}, it was {then[name]}"
        for name in then
        if then[name] != now.get(name)
    ]


def _plugin_notes(then: tuple[str, ...]) -> list[str]:
    now = {plugin.name for plugin in installed_plugins()}
    return [f"plugin {name} is not installed" for name in then if name not in now]


def _same_inputs(reproducer: Reproducer, folder: Path) -> bool:
    try:
        with np.load(folder / INPUTS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise ModelReadError(
            "the inputs cannot be read", where=str(folder / INPUTS), why=str(error)
        ) from error
    made = argument_arrays(reproducer.input, reproducer.options)
    return made.keys() == arrays.keys() and all(
        np.array_equal(array, made[name]) for name, array in arrays.items()
    )
