"""What packages outside this one add, found through the entry point group `tilewright.plugins`.

    [project.entry-points."tilewright.plugins"]
    acme = "acme_tilewright:PLUGIN"

names a `Plugin`. Everything in it is a name and a way to load what the name stands for: `tw`
starts without importing any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from xdsl.ir import Dialect

GROUP = "tilewright.plugins"


@dataclass(frozen=True)
class Plugin:
    """What a package adds. A value is called, or imported, only when its name is asked for."""

    name: str
    dialects: Mapping[str, Callable[[], Dialect]] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    """Modules whose import registers reference semantics, bounds, lowerings and kernels of the
    dialects' ops."""
    passes: Mapping[str, Callable[[], type[Any]]] = field(default_factory=dict)
    pipelines: Mapping[str, str] = field(default_factory=dict)
    """Named pipelines: lists of passes as `tw opt -p` takes them."""
    rules: tuple[Path, ...] = ()
    """Files of rewrite rules, which `tw rules` lists and checks."""
    chips: Mapping[str, Path] = field(default_factory=dict)
    """Chip files by the chip's name."""
    importers: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    backends: Mapping[str, Callable[[], Any]] = field(default_factory=dict)


@cache
def installed_plugins() -> tuple[Plugin, ...]:
    """The plugins of all installed packages, by name."""
    found = (point.load() for point in entry_points(group=GROUP))
    return tuple(sorted(found, key=lambda plugin: plugin.name))
