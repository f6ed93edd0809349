"""What packages outside this one add, found through the entry point group `tilewright.plugins`.

    [project.entry-points."tilewright.plugins"]
    acme = "acme_tilewright:PLUGIN"

names a `Plugin`. Everything in it is a name and a way to load what the name stands for. The package
is imported when a name is asked for that is not Tilewright's own, or names are listed, or IR is
read; `tw --help` never looks.

A plugin that cannot be used (its import fails, another thing stands behind the entry point, its
names clash) is left out: stderr says so once, `tw doctor` says it again, and whoever asks for a
name that nobody gives hears of it too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from tilewright.dialects.errors import PluginError
from tilewright.dialects.installed_packages import Package, packages_with
from tilewright.dialects.plugin_types import (
    KINDS,
    Installed,
    Kind,
    Plugin,
    PluginFile,
    shape_problem,
)

__all__ = [
    "GROUP",
    "KINDS",
    "Installed",
    "Kind",
    "Plugin",
    "PluginFile",
    "discover",
    "given",
    "givers",
    "installed_plugins",
    "lazy",
    "left_out",
    "load_file",
    "load_modules",
    "loaded",
    "loaded_files",
    "require_modules",
    "temporarily",
    "warn",
]

GROUP = "tilewright.plugins"

T = TypeVar("T")

_PASSES = "tilewright.passes.registry"
_OWN: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "dialects": (("tilewright.dialects.context", "DIALECT_NAMES"),),
    "passes": ((_PASSES, "PASSES"), (_PASSES, "PIPELINES")),
    "chips": (("tilewright.backends.chip", "CHIP_NAMES"),),
    "importers": (("tilewright.compiler.importers.registry", "IMPORTERS"),),
    "backends": (("tilewright.compiler.execution.registry", "BACKENDS"),),
}
"""Where Tilewright's own names stand: a plugin may not give them again. Rooms above this one are
looked up by name, and only if a plugin gives something of the kind."""


def lazy(target: str) -> Callable[[], Any]:
    """A loader: imports the module of `"package.module:name"` when it is called, gives the name."""
    module, _, name = target.partition(":")
    return lambda: getattr(import_module(module), name)


@cache
def discover() -> tuple[Installed, ...]:
    """Every entry point of the group, by name; stderr hears of those that cannot be used."""
    found = [
        _load(name, target, package)
        for package in packages_with(GROUP)
        for name, target in package.entry_points.items()
    ]
    found = _refuse_clashes(sorted(found, key=lambda each: (each.name, each.package)))
    for each in found:
        if each.error is not None:
            warn(each.error)
    return tuple(found)


def load_file(path: Path | str) -> PluginFile:
    """Use a file of Python or rules as a plugin (`plugin_files`); again, if its text has changed.

    Raises `OptionError` where there is no such file, `PluginError` where it raises, gives nothing,
    or gives a name that somebody else gives.
    """
    from tilewright.dialects.plugin_files import plugin_file  # it is built on this module

    resolved = Path(path).resolve()
    before, module = list(_FILES), sys.modules.get(resolved.stem)
    _FILES[:] = [each for each in before if each.path != resolved]
    try:
        file = plugin_file(Path(path))
        file = next((each for each in before if each.same_as(file)), file)
        _refuse_taken_names(file)
    except BaseException:
        _FILES[:] = before
        sys.modules.pop(resolved.stem, None)
        if module is not None:
            sys.modules[resolved.stem] = module
        raise
    _FILES.append(file)
    return file


_FILES: list[PluginFile] = []


def loaded_files() -> tuple[PluginFile, ...]:
    """The files that `load_file` has loaded."""
    return tuple(_FILES)


@contextmanager
def temporarily() -> Generator[None]:
    """Files that are loaded inside are forgotten afterwards, with their modules and those that
    were imported from beside them."""
    before, modules = list(_FILES), set(sys.modules)
    try:
        yield
    finally:
        for each in _FILES:
            if each not in before:
                for name in each.beside().keys() - modules:
                    del sys.modules[name]
                if sys.modules.get(each.module.__name__) is each.module:
                    del sys.modules[each.module.__name__]
        _FILES[:] = before


def givers() -> tuple[Installed, ...]:
    """Whoever may give names: the entry points of packages, and the loaded files."""
    return (*discover(), *_FILES)


def installed_plugins() -> tuple[Plugin, ...]:
    """The plugins that can be used: of installed packages by name, of files in their order."""
    return tuple(each.plugin for each in givers() if each.plugin is not None)


def given(kind: Kind) -> Mapping[str, Installed]:
    """Which plugin gives which name of a kind."""
    return {
        name: each
        for each in givers()
        if each.plugin is not None
        for name in each.plugin.names(kind)
    }


def loaded(giver: Installed, kind: Kind, name: str, kind_of: type[T]) -> T:
    """Call what a plugin maps `name` to: that gives a `kind_of`, or a class to make one of.

    Raises `PluginError` where it does neither.
    """
    try:
        value: object = getattr(giver.plugin, kind)[name]()
        if isinstance(value, type) and issubclass(value, kind_of):
            value = value()
    except Exception as error:
        raise giver.failure(f"{name!r} of its {kind} cannot be loaded", error) from error
    if not isinstance(value, kind_of):
        problem = f"it is {value!r}, not a {kind_of.__name__}"
        raise giver.failure(f"{name!r} of its {kind} cannot be loaded", problem)
    return value


def left_out() -> str | None:
    """Why a name that nobody gives may be missing: the plugins that cannot be used."""
    errors = [each.error for each in discover() if each.error is not None]
    return "; ".join(f"{e.what} ({e.why})" for e in errors) or None


def warn(error: PluginError) -> None:
    """Say on stderr that something of a plugin is left out."""
    print(f"tilewright: warning: {error}", file=sys.stderr, flush=True)


# Loading.


def _load(name: str, target: str, package: Package) -> Installed:
    found = Installed(name, target, package.name, package.version)
    try:
        module, _, attributes = target.partition(":")
        plugin: object = import_module(module)
        for attribute in filter(None, attributes.split(".")):
            plugin = getattr(plugin, attribute)
    except Exception as error:
        return replace(found, error=found.failure("cannot be imported", error))
    problem = shape_problem(plugin)
    if not isinstance(plugin, Plugin) or problem is not None:
        return replace(found, error=found.failure("is not a plugin", problem or "it is none"))
    return replace(found, plugin=plugin)


# Names.


def _refuse_clashes(found: list[Installed]) -> list[Installed]:
    """Leave out each plugin that gives a name which Tilewright, xDSL or another plugin gives."""
    givers: dict[tuple[str, str], list[str]] = {}
    for each in found:
        for kind, name in _names(each):
            givers.setdefault((_space(kind), name), []).append(each.label)
    for kind in KINDS:
        if any(kind == _space(used) for each in found for used, _ in _names(each)):
            for name in _own_names(kind):
                givers.setdefault((kind, name), []).append("Tilewright or xDSL")
    return [_without_clash(each, givers) for each in found]


def _refuse_taken_names(file: PluginFile) -> None:
    """Raise `PluginError` if the file gives a name that somebody else gives."""
    for kind, name in _names(file):
        label = next(
            (
                giver.label
                for each in KINDS
                if _space(each) == _space(kind) and (giver := given(each).get(name)) is not None
            ),
            "Tilewright or xDSL" if name in _own_names(_space(kind)) else None,
        )
        if label is not None:
            raise file.failure(
                f"the name {name!r} among its {kind} is taken",
                f"{label} gives it too",
                f"rename it in {file.target}",
            )


def _names(each: Installed) -> list[tuple[Kind, str]]:
    if each.plugin is None:
        return []
    return [(kind, name) for kind in KINDS for name in each.plugin.names(kind)]


def _space(kind: Kind) -> Kind:
    """Kinds whose names may not be equal either: a pipeline may stand where a pass may."""
    return "passes" if kind == "pipelines" else kind


def _without_clash(each: Installed, givers: Mapping[tuple[str, str], list[str]]) -> Installed:
    for kind, name in _names(each):
        others = list(givers[_space(kind), name])
        others.remove(each.label)
        if others:
            clash = each.failure(
                f"the name {name!r} among its {kind} is taken",
                f"{', '.join(others)} gives it too",
                f"rename it, or pip uninstall {each.package}",
            )
            return replace(each, plugin=None, error=clash)
    return each


def _own_names(kind: Kind) -> Iterable[str]:
    names: list[str] = []
    for module, attribute in _OWN.get(kind, ()):
        names += getattr(import_module(module), attribute)
    if kind == "dialects":
        from xdsl.dialects import get_all_dialects

        names += get_all_dialects()
    if kind == "passes":
        from xdsl.transforms import get_all_passes

        names += get_all_passes()
    return names


# Modules that register.


def load_modules() -> None:
    """Import the modules of all plugins: what they register is there afterwards.

    A plugin of which one fails is warned of once; asking for its ops raises.
    """
    for each in givers():
        error = _module_error(each)
        if error is not None and each not in _WARNED:
            _WARNED.append(each)
            warn(error)


_WARNED: list[Installed] = []


def require_modules(each: Installed) -> None:
    """Import the modules of one plugin; raises `PluginError` where that fails."""
    error = _module_error(each)
    if error is not None:
        raise error


@cache
def _module_error(each: Installed) -> PluginError | None:
    for module in each.plugin.modules if each.plugin is not None else ():
        try:
            import_module(module)
        except Exception as error:
            return each.failure(f"its module {module} cannot be imported", error)
    return None
