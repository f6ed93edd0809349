"""Acme's part of Tilewright: an op with all that belongs to it, a pass, rules, a chip, an importer
and a backend.

`tw` imports this module to learn the names, and what they stand for when it needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.dialects.plugins import Plugin, lazy

if TYPE_CHECKING:
    from xdsl.passes import ModulePass

_HERE = Path(__file__).parent
_RULES = _HERE / "acme.rules"


def _simplify_acme() -> type[ModulePass]:
    from tilewright.passes.rules.rule_pass import rule_pass

    return rule_pass("simplify-acme", _RULES)


PLUGIN = Plugin(
    name="acme",
    dialects={"acme": lazy("acme_tilewright.dialect:Acme")},
    modules=(
        "acme_tilewright.reference",
        "acme_tilewright.lowerings",
        "acme_tilewright.kernels",
    ),
    passes={
        "fuse-squared-relu": lazy("acme_tilewright.fuse_squared_relu:FuseSquaredReluPass"),
        "simplify-acme": _simplify_acme,
    },
    pipelines={"acme-compile": "fuse-squared-relu,simplify-acme,compile"},
    rules=(_RULES,),
    chips={"acme1": _HERE / "acme1.toml"},
    importers={"acme-layers": lazy("acme_tilewright.layers:Layers")},
    backends={"acme-exact": lazy("acme_tilewright.exact:Exact")},
)
