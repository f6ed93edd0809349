"""Tilewright's dialects and passes for xDSL's own tools, such as `xdsl-opt`.

The entry point group `xdsl.universe` in pyproject.toml names `TILEWRIGHT_UNIVERSE`. Dialects and
passes are imported when a tool asks for them, not when it starts.
"""

from __future__ import annotations

from xdsl.ir import Dialect
from xdsl.universe import Universe

from tilewright.passes.registry import PASSES


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


TILEWRIGHT_UNIVERSE = Universe(
    all_dialects={"top": _top, "tpu": _tpu, "gdma": _gdma, "bdc": _bdc},
    all_passes=dict(PASSES),
)
