"""Backends by name: Tilewright's own, then those of plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tilewright.compiler.execution import Backend
from tilewright.dialects import plugins
from tilewright.dialects.errors import OptionError


def _simulator() -> Backend:
    from tilewright.compiler.execution.simulator import Simulator

    return Simulator()


def _reference() -> Backend:
    from tilewright.compiler.execution.reference import Reference

    return Reference()


DEFAULT_BACKEND = "simulator"
BACKENDS: Mapping[str, Callable[[], Backend]] = MappingProxyType(
    {DEFAULT_BACKEND: _simulator, "reference": _reference}
)
"""Tilewright's own backends by name. A value imports and makes the backend."""


def backend_names() -> tuple[str, ...]:
    """The names that `find_backend` knows."""
    return (*BACKENDS, *plugins.given("backends"))


def find_backend(name: str) -> Backend:
    """The backend of that name, Tilewright's or a plugin's.

    Raises `OptionError` where there is none, `PluginError` where a plugin's cannot be loaded.
    """
    if name in BACKENDS:
        return BACKENDS[name]()
    giver = plugins.given("backends").get(name)
    if giver is None:
        raise OptionError(
            f"no backend {name!r}",
            why=plugins.left_out(),
            hint=f"one of {', '.join(backend_names())}",
        )
    return plugins.loaded(giver, "backends", name, Backend)
