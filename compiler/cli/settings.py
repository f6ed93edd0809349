"""What the options before the verb say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    """Options of `tw` itself."""

    traceback: bool = False
    """Show where in Tilewright an error comes from."""
