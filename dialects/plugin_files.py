"""One file used as a plugin, without a package around it: `tw --load FILE.py`, `FILE.rules`.

A Python file is executed once, as the module of its name. If it has a `PLUGIN`, that is what it
gives; otherwise everything that is in it: passes, `Dialect` objects, and op classes, those of
`composite` and of objects with `.ops` (`dsl.custom_op`) too, which make dialects by the first word
of their names. Kernels, lowerings and reference semantics have registered themselves. It may import
modules that stand beside it.

A file of rules gives its lowerings, and one pass of the file's name that applies the others.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from xdsl.dialects import get_all_dialects
from xdsl.ir import Dialect, Operation
from xdsl.passes import ModulePass

from tilewright.dialects.context import TILEWRIGHT_DIALECTS, dialect_of_plugin
from tilewright.dialects.errors import OptionError, PluginError, TilewrightError
from tilewright.dialects.plugin_types import Plugin, PluginFile, shape_problem
from tilewright.dialects.plugins import given, lazy

T = TypeVar("T")

ATTRIBUTE = "PLUGIN"
"""The name in a file that says what it gives."""

RULES = ".rules"
"""How the name of a file of rewrite rules ends."""

_PASS_NAME = re.compile(r"[A-Za-z][\w-]*", re.ASCII)

_RULE_PASS = lazy("tilewright.passes.rules.rule_pass:rule_pass")
"""What makes a pass of a file of rules: in a room above this one."""

_DIGEST = "__tilewright_digest__"
"""What is set in a module that was executed here: the digest of its text."""


def plugin_file(path: Path) -> PluginFile:
    """Execute the file and collect what it gives; of a file that has been imported, its module.
    Rules are read when they are asked for.

    Raises `OptionError` where there is no such file, `PluginError` where it raises, gives nothing,
    or takes the name of another module.
    """
    source = _source(path)
    digest = hashlib.sha256(source).hexdigest()
    resolved = path.resolve()
    of_rules = path.suffix == RULES
    module = ModuleType(resolved.stem) if of_rules else _module(path, resolved, source, digest)
    file = PluginFile(
        resolved.stem,
        str(path),
        resolved.name,
        digest,
        path=resolved,
        module=module,
        source=source,
    )
    return replace(file, plugin=_plugin_of_rules(file) if of_rules else _plugin_of(file))


def _source(path: Path) -> bytes:
    hint = "a Python file with passes or ops, or one of rules: tw --load FILE.py VERB ..."
    if path.suffix == RULES:
        named = _PASS_NAME.fullmatch(path.stem) is not None
        why = f"it is not called NAME{RULES}, with a NAME that a pass may have"
    else:
        named = path.suffix == ".py" and path.stem.isidentifier()
        why = f"it is neither NAME{RULES} nor NAME.py, with a NAME that Python can import"
    if not named:
        raise OptionError(f"cannot load {path}", why=why, hint=hint)
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionError(f"cannot load {path}", why=error.strerror, hint=hint) from error


def _module(path: Path, resolved: Path, source: bytes, digest: str) -> ModuleType:
    """The module of the file: the one that has been imported, or executed of the same text, or a
    new one."""
    name = resolved.stem
    there = sys.modules.get(name)
    if there is not None and _file_of(there) == resolved:
        if getattr(there, _DIGEST, digest) == digest:
            return there
    elif there is not None or _is_found_elsewhere(name, resolved):
        raise PluginError(
            f"{path} has the name of another module",
            why=f"import {name} finds {_file_of(there) if there else 'one that is installed'}",
            hint="give the file another name",
        )
    module = _executed(name, path, resolved, source)
    setattr(module, _DIGEST, digest)
    return module


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _is_found_elsewhere(name: str, resolved: Path) -> bool:
    """Whether an import of the name would find another file, beside one in the working folder: a
    copy in a reproducer is of that."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return False
    origin = Path(spec.origin).resolve() if spec.origin else None
    return origin != resolved and (origin is None or origin.parent != Path.cwd())


def _executed(name: str, path: Path, resolved: Path, source: bytes) -> ModuleType:
    """Execute the text itself: bytecode beside it may be of another text of the same second."""
    spec = importlib.util.spec_from_file_location(name, resolved)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importing_from(str(resolved.parent)):
            exec(compile(source, str(resolved), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _raised(path, resolved, error) from error
    return module


@contextmanager
def _importing_from(folder: str) -> Generator[None]:
    """Modules in the folder can be imported inside; those that Python finds anyway go before."""
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # The last one: the folder may have been there before.
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]


def _raised(path: Path, resolved: Path, error: BaseException) -> TilewrightError:
    """What to raise where the file raises: with the line of the file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(resolved)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = str(path) if line is None else f"{path}:{line}"
    if isinstance(error, TilewrightError):
        return error.placed(error.where or where)
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return PluginError(
        f"{path} cannot be loaded",
        where=where,
        why=f"{type(error).__name__}: {said}".removesuffix(": "),
    )


# What a file gives.


def _plugin_of(file: PluginFile) -> Plugin:
    given: object = getattr(file.module, ATTRIBUTE, None)
    if given is not None:
        problem = shape_problem(given)
        if not isinstance(given, Plugin) or problem is not None:
            raise file.failure(f"its {ATTRIBUTE} is not a plugin", problem or "it is none")
        return given
    values = list(vars(file.module).values())
    passes = {each.name: _giving(each) for each in _passes(values, file.module.__name__)}
    dialects = {each.name: _giving(each) for each in _dialects(values, file)}
    if not passes and not dialects:
        raise file.failure(
            "it gives nothing",
            "it has neither a pass nor an op of a dialect of its own",
            f"a pass is a class of ModulePass with a name, or {ATTRIBUTE} = Plugin(...)",
        )
    return Plugin(file.name, dialects=dialects, passes=passes)


def _plugin_of_rules(file: PluginFile) -> Plugin:
    path = file.path

    @cache
    def load() -> type[ModulePass]:
        return _RULE_PASS()(file.name, path)

    return Plugin(file.name, passes={file.name: load}, rules=(path,))


def _giving(value: T) -> Callable[[], T]:
    return lambda: value


def _passes(values: list[object], module: str) -> Iterator[type[ModulePass]]:
    for value in values:
        if isinstance(value, type) and issubclass(value, ModulePass):
            own = value.__module__ == module
            if own and isinstance(getattr(value, "name", None), str):
                yield value


def _dialects(values: list[object], file: PluginFile) -> Iterator[Dialect]:
    """The dialects in the file, and one for each first word of its other ops' names."""
    written = {each.name: each for each in values if isinstance(each, Dialect)}
    grouped: dict[str, list[type[Operation]]] = {}
    for op_class in dict.fromkeys(op for value in values for op in _ops(value)):
        prefix = op_class.name.partition(".")[0]
        if prefix in written:
            continue
        known = _dialect_of_others(prefix)
        if known is None:
            grouped.setdefault(prefix, []).append(op_class)
        elif op_class not in known.operations:
            raise file.failure(
                f"its op {op_class.name} is of a dialect that there is",
                f"{_giver_of(prefix)} gives {prefix}",
                "let the op's name begin with a word of your own",
            )
    imported = {name for name, each in written.items() if _dialect_of_others(name) is each}
    yield from (each for name, each in written.items() if name not in imported)
    yield from (Dialect(prefix, ops) for prefix, ops in grouped.items())


def _ops(value: object) -> list[type[Operation]]:
    """The op classes that a value is, or has as its `ops`."""
    several: object = [value] if isinstance(value, type) else getattr(value, "ops", None)
    if not isinstance(several, list | tuple):
        return []
    return [each for each in several if _is_op(each)]


def _is_op(value: object) -> bool:
    if not isinstance(value, type) or not issubclass(value, Operation):
        return False
    return isinstance(getattr(value, "name", None), str) and "." in value.name


def _giver_of(name: str) -> str:
    plugins = given("dialects")
    return plugins[name].label if name in plugins else "Tilewright or xDSL"


def _dialect_of_others(name: str) -> Dialect | None:
    """The dialect of this name that Tilewright, a plugin or xDSL gives."""
    own = {dialect.name: dialect for dialect in TILEWRIGHT_DIALECTS}
    if name in own:
        return own[name]
    if name in given("dialects"):
        return dialect_of_plugin(name)
    return get_all_dialects()[name]() if name in get_all_dialects() else None
