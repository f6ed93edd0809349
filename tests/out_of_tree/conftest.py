"""The package under `acme` is installed by a test; its own tests run there, not here."""

from __future__ import annotations

collect_ignore = ["acme"]
