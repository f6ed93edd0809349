"""Tilewright as a plug-in of xDSL's tools."""

from __future__ import annotations

from xdsl.universe import Universe

from tilewright.compiler.universe import TILEWRIGHT_UNIVERSE
from tilewright.passes.registry import PASSES


def test_xdsl_finds_the_dialects_and_passes() -> None:
    """Fails too if a name clashes with one of xDSL's own."""
    found = Universe.get_multiverse()
    for name, dialect in TILEWRIGHT_UNIVERSE.all_dialects.items():
        assert dialect().name == name
        assert found.all_dialects[name] is dialect
    assert found.all_passes.keys() >= PASSES.keys()
