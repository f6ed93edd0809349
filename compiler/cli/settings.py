"""How a verb is run: what the options before it say, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Options of `tw` itself, and whether the process is there for this run alone."""

    traceback: bool = False
    """Show where in Tilewright an error comes from."""
    own_process: bool = False
    """The process ends with this run: what is imported need never be looked through for garbage."""
