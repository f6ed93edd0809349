"""What `tw opt` asks of the modules that add options to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Protocol

from tilewright.compiler.workbench.runner import Instrument
from tilewright.compiler.workbench.sources import Source


class OptionGroup(Protocol):
    """A module of instruments: it names its options, and makes what they ask for."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add a group of options; those of mlir-opt under the names they have there."""
        ...

    def instruments_of(self, options: argparse.Namespace, source: Source) -> Sequence[Instrument]:
        """What looks on while the pipeline runs on the module of `source`.

        Made before the module is read. Raises `OptionError` for values that make no sense.
        """
        ...


def names_of(text: str) -> tuple[str, ...]:
    """The names in a list separated by commas."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)
