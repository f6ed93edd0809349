"""Acme's part of Tilewright: an op with all that belongs to it, a pass, rules, a chip, an importer
and a backend.

`tw` imports this module to learn the names, and what they stand for when it needs it.
"""

from __future__ import annotations

from pathlib import Path

from tilewright.dialects.plugins import Plugin, lazy

_HERE = Path(__file__).parent

PLUGIN = Plugin(
    name="acme",
    dialects={"acme": lazy("acme_tilewright.dialect:Acme")},
    modules=(
        "acme_tilewright.reference",
        "acme_tilewright.lowerings",
        "acme_tilewright.kernels",
    ),
    passes={"fuse-squared-relu": lazy("acme_tilewright.fuse_squared_relu:FuseSquaredReluPass")},
    pipelines={"acme-compile": "fuse-squared-relu,compile"},
    rules=(_HERE / "acme.rules",),
    chips={"acme1": _HERE / "acme1.toml"},
    importers={"acme-layers": lazy("acme_tilewright.layers:Layers")},
    backends={"acme-exact": lazy("acme_tilewright.exact:Exact")},
)
