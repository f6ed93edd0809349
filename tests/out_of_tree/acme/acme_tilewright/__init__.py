"""Acme's part of Tilewright: an op with all that belongs to it, a pass, rules, a chip, an importer
and a backend.

This module imports next to nothing: `tw` reads it to learn the names.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from tilewright.dialects.plugins import Plugin

_HERE = Path(__file__).parent


def _from(module: str, name: str) -> Any:
    return getattr(import_module(f"acme_tilewright.{module}"), name)


PLUGIN = Plugin(
    name="acme",
    dialects={"acme": lambda: _from("dialect", "Acme")},
    modules=(
        "acme_tilewright.reference",
        "acme_tilewright.lowerings",
        "acme_tilewright.kernels",
    ),
    passes={"fuse-squared-relu": lambda: _from("fuse_squared_relu", "FuseSquaredReluPass")},
    pipelines={"acme-compile": "fuse-squared-relu,compile"},
    rules=(_HERE / "acme.rules",),
    chips={"acme1": _HERE / "acme1.toml"},
    importers={"acme-layers": lambda: _from("layers", "Layers")()},
    backends={"acme-exact": lambda: _from("exact", "Exact")()},
)
