"""Finds rules by what the user names: a file, a Python file with passes, a registered pass."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tilewright.dialects.errors import OptionError
from tilewright.passes.registry import find_pass, pass_names
from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.rule import Rule, RuleSet
from tilewright.passes.rules.rule_pass import RulePass
from tilewright.passes.rules.source import file_source


def rules_of(origin: str | Path | type[RulePass]) -> tuple[Rule, ...]:
    """All rules and lowerings of a `*.rules` file, a Python file, a pass's name or a pass.

    Raises `OptionError` where there is nothing of that name, `RuleError` where rules make no sense.
    """
    return tuple(rule for each in rule_sets(origin) for rule in (*each.rules, *each.lowerings))


def rule_sets(origin: str | Path | type[RulePass]) -> tuple[RuleSet, ...]:
    """The same, set by set: a pass or a file has one, a Python file one for each pass in it."""
    if isinstance(origin, type):
        return (origin.rules(),)
    name = str(origin)
    if name.endswith(".rules"):
        return (load_rules(file_source(Path(name))),)
    if name.endswith(".py"):
        return tuple(each.rules() for each in _passes_in(Path(name)))
    if name not in pass_names():
        raise OptionError(
            f"there are no rules called {name}",
            hint="a *.rules file, a .py file with passes, or a pass (tw passes)",
        )
    found = find_pass(name)
    if not issubclass(found, RulePass):
        raise OptionError(f"the pass {name} is not made of rules", hint="tw rules lists those")
    return (found.rules(),)


def registered_rule_passes() -> dict[str, type[RulePass]]:
    """The registered passes that are made of rules, by name."""
    found = {name: find_pass(name) for name in pass_names()}
    return {name: each for name, each in found.items() if issubclass(each, RulePass)}


def _passes_in(path: Path) -> list[type[RulePass]]:
    """The passes made of rules that a Python file defines, in its order."""
    module = _imported(path)
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, RulePass)
        and each.__module__ == module.__name__
    ]
    if not found:
        raise OptionError(f"{path} defines no pass made of rules", hint="class MyPass(RulePass)")
    return found


def _imported(path: Path) -> ModuleType:
    """The module in a file: the one that is imported already, or a new one."""
    resolved = path.resolve()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).resolve() == resolved:
            return module
    spec = importlib.util.spec_from_file_location(f"tilewright_rules_{path.stem}", resolved)
    if not resolved.is_file() or spec is None or spec.loader is None:
        raise OptionError(f"cannot read {path}", hint="a *.rules file or a .py file with passes")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        why = f"{type(error).__name__}: {error}"
        raise OptionError(f"{path} cannot be imported", why=why) from error
    return module
