"""Finds rules by what the user names: a file, a Python file with passes, a registered pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tilewright.compiler.workbench.rule_checking.lowering import rules_for
from tilewright.dialects import plugins
from tilewright.dialects.errors import OptionError
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.lowerings import Lowering, registered_lowerings
from tilewright.passes.registry import find_pass, pass_names
from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.rule import Rule, RuleSet
from tilewright.passes.rules.rule_pass import RulePass
from tilewright.passes.rules.source import file_source

LOWERINGS = ConvertTopToTpuPass.name
"""The pass whose rules are the registered lowerings."""


@dataclass(frozen=True)
class RuleGroup:
    """Rules that belong together: those of a pass, or of a file."""

    name: str
    rules: tuple[Rule, ...]

    @property
    def among(self) -> tuple[Rule, ...]:
        """The rules that are matched by one tree: lowerings are asked one by one."""
        return tuple(rule for rule in self.rules if rule.options is None)


def rules_of(origin: str | Path | type[RulePass]) -> tuple[Rule, ...]:
    """All rules and lowerings of a `*.rules` file, a Python file, a pass's name or a pass.

    Raises `OptionError` where there is nothing of that name, `RuleError` where rules make no sense.
    """
    return tuple(rule for group in rule_groups(origin) for rule in group.rules)


def rule_groups(origin: str | Path | type[RulePass]) -> tuple[RuleGroup, ...]:
    """The same, group by group: a pass or a file is one, a Python file has one for each pass."""
    if isinstance(origin, type):
        return (_group(origin.name, origin.rules()),)
    name = str(origin)
    plugins.load_modules()
    if name.endswith(".rules"):
        return (_group(name, load_rules(file_source(Path(name)))),)
    if name.endswith(".py"):
        return tuple(_group(each.name, each.rules()) for each in _passes_in(Path(name)))
    if name not in pass_names():
        raise OptionError(
            f"there are no rules called {name}",
            hint="a *.rules file, a .py file with passes, a pass or a pipeline (tw rules list)",
        )
    if name == LOWERINGS:
        found = (rule for each in registered_lowerings() for rule in _rules_behind(each))
        return (RuleGroup(name, tuple(found)),)
    pass_class = find_pass(name)
    if not issubclass(pass_class, RulePass):
        raise OptionError(f"the pass {name} is not made of rules", hint="tw rules list")
    return (_group(name, pass_class.rules()),)


def is_made_of_rules(pass_name: str) -> bool:
    """Whether `rule_groups` finds rules by the name of a pass."""
    return pass_name == LOWERINGS or issubclass(find_pass(pass_name), RulePass)


def registered_groups() -> Iterator[RuleGroup]:
    """All rules that there are: of passes made of rules, of lowerings, and of plugins' files."""
    for name in pass_names():
        if is_made_of_rules(name):
            yield from rule_groups(name)
    for plugin in plugins.installed_plugins():
        for path in plugin.rules:
            yield from rule_groups(path)


def _group(name: str, rules: RuleSet) -> RuleGroup:
    return RuleGroup(name, (*rules.rules, *rules.lowerings))


def _rules_behind(lowering: Lowering) -> Iterator[Rule]:
    """The rule that a lowering is, or for one in Python a rule for each op."""
    rule = getattr(lowering.lower, "rule", None)
    if isinstance(rule, Rule):
        yield rule
    else:
        yield from rules_for(lowering)


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
    """The module in a file: one that is imported as part of a package, or a file that is loaded."""
    resolved = path.resolve()
    if (resolved.parent / "__init__.py").exists():
        for name in pass_names():
            find_pass(name)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name and file and Path(file).resolve() == resolved:
            return module
    return plugins.load_file(path).module
