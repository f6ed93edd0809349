"""What a plugin is: names, how to load what they stand for, and who gives them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

from xdsl.ir import Dialect

from tilewright.dialects.errors import PluginError, TilewrightError

Kind: TypeAlias = Literal["dialects", "passes", "pipelines", "chips", "importers", "backends"]
"""The fields of a `Plugin` that give names."""

KINDS: tuple[Kind, ...] = ("dialects", "passes", "pipelines", "chips", "importers", "backends")


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

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names that it gives of one kind."""
        return tuple(getattr(self, kind))


@dataclass(frozen=True, eq=False)
class Installed:
    """An entry point of an installed package: the plugin behind it, or why it is left out."""

    name: str
    target: str
    """What the entry point names: `module:attribute`."""
    package: str
    version: str
    plugin: Plugin | None = None
    error: PluginError | None = None

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"plugin {self.name} of {self.package} {self.version}"

    @property
    def origin(self) -> str:
        """Where it is named."""
        return f"entry point {self.name} = {self.target}"

    @property
    def remedy(self) -> str:
        """What helps if it cannot be used."""
        return f"mend the package, or pip uninstall {self.package}"

    def failure(self, what: str, why: BaseException | str, hint: str | None = None) -> PluginError:
        """What to raise where something of the plugin is not as it must be."""
        return PluginError(
            f"{self.label}: {what}",
            where=self.origin,
            why=_said(why),
            hint=hint or self.remedy,
        )


def _said(why: BaseException | str) -> str:
    if isinstance(why, str | TilewrightError):
        return str(why)
    return f"{type(why).__name__}: {why}".removesuffix(": ")


@dataclass(frozen=True, eq=False, kw_only=True)
class PluginFile(Installed):
    """A file that is used as a plugin; `package` is the file's name, `version` its digest."""

    path: Path
    module: ModuleType
    source: bytes
    """The text that was executed."""

    def same_as(self, other: PluginFile) -> bool:
        """Whether it is the same file, with the same text."""
        return (self.path, self.version) == (other.path, other.version)

    def beside(self) -> Mapping[str, Path]:
        """The modules that are imported from its folder, by name: those whose names say the way
        from there, without Tilewright's own."""
        found: dict[str, Path] = {}
        for name, module in list(sys.modules.items()):
            text = getattr(module, "__file__", None)
            way = self.path.parent.joinpath(*name.split("."))
            ways = (way.parent / f"{way.name}.py", way / "__init__.py")
            if isinstance(text, str) and (source := Path(text).resolve()) in ways:
                found[name] = source
        own = __name__.partition(".")[0]
        return {name: path for name, path in found.items() if name.partition(".")[0] != own}

    @property
    def label(self) -> str:
        return f"file {self.package}"

    @property
    def origin(self) -> str:
        return self.target

    @property
    def remedy(self) -> str:
        return f"mend {self.target}"


def shape_problem(plugin: object) -> str | None:
    """What is wrong with the types of a plugin's fields; what they load is checked when it is."""
    if not isinstance(plugin, Plugin):
        return f"it is of type {type(plugin).__name__}, not tilewright.dialects.plugins.Plugin"
    for each in fields(plugin):
        value = getattr(plugin, each.name)
        if each.name in KINDS:
            values = list(value.values()) if isinstance(value, Mapping) else None
            names = list(value) if isinstance(value, Mapping) else []
            if values is None or not all(isinstance(name, str) for name in names):
                return f"{each.name} is not a mapping by name"
            expected = _VALUES.get(each.name)
            for value_ in values:
                if not (callable(value_) if expected is None else isinstance(value_, expected)):
                    wanted = "a function" if expected is None else f"a {expected.__name__}"
                    return f"{each.name} maps to {value_!r}, not to {wanted}"
        elif each.name != "name":
            expected = str if each.name == "modules" else Path
            if not isinstance(value, tuple) or not all(isinstance(v, expected) for v in value):
                return f"{each.name} is not a tuple of {expected.__name__}"
    return None


_VALUES: Mapping[str, type[object]] = {"pipelines": str, "chips": Path}
"""What a kind maps to; all others map to functions that load."""
