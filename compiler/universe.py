"""Tilewright's dialects and passes, and those of its plugins, for xDSL's own tools: `xdsl-opt` and
`xdsl-gui`.

The entry point group `xdsl.universe` in pyproject.toml names `TILEWRIGHT_UNIVERSE`. Dialects and
passes are imported when a tool asks for them, not when it starts. A plugin needs no entry point of
xDSL's: giving a name twice is an error there.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe

from tilewright.dialects import plugins
from tilewright.passes.registry import find_pass, pass_names


def _top() -> Dialect:
    from tilewright.dialects.top import Top

    return Top


def _tpu() -> Dialect:
    from tilewright.dialects.tpu import Tpu

    return Tpu


def _gdma() -> Dialect:
    from tilewright.dialects.gdma import Gdma

    return Gdma


def _bdc() -> Dialect:
    from tilewright.dialects.bdc import Bdc

    return Bdc


def _of_plugin(name: str) -> Callable[[], Dialect]:
    def load() -> Dialect:
        from tilewright.dialects.context import dialect_of_plugin

        return dialect_of_plugin(name)

    return load


def _pass(name: str) -> Callable[[], type[ModulePass]]:
    return lambda: find_pass(name)


def make_universe() -> Universe:
    """All dialects and passes of this installation."""
    return Universe(
        all_dialects={
            "top": _top,
            "tpu": _tpu,
            "gdma": _gdma,
            "bdc": _bdc,
            **{name: _of_plugin(name) for name in plugins.given("dialects")},
        },
        all_passes={name: _pass(name) for name in pass_names()},
    )


TILEWRIGHT_UNIVERSE = make_universe()
