"""Passes made of rules.

    class FuseBiasPass(RulePass):
        \"\"\"Add the bias of a linear layer inside its matrix product.

        ```rules
        rule AddBiasAfterMatMul { ... }
        ```
        \"\"\"

        name = "fuse-bias"

or with `rules_file = "fuse.rules"`, a file beside the module of the class; or without any Python:
`rule_pass("fuse-bias", path)`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.dialects.errors import InternalError
from tilewright.passes.rewriting import apply_patterns

if TYPE_CHECKING:
    from tilewright.passes.rules.pattern import RulePattern
    from tilewright.passes.rules.rule import RuleSet


@dataclass(frozen=True)
class RulePass(ModulePass):
    """Applies rules until none applies any more: those in the docstring of the class, or a file's.

    Raises `RuleError` where the rules make no sense, when they are needed first.
    """

    rules_file: ClassVar[str | Path | None] = None
    """A file beside the module of the class, or anywhere else; None for rules in the docstring."""
    to_fixpoint: ClassVar[bool] = True
    """Whether the rules are applied to what they have made, too."""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, [self.pattern()], to_fixpoint=self.to_fixpoint)

    @classmethod
    def rules(cls) -> RuleSet:
        """The checked rules of the pass."""
        return _rules_of(cls)

    @classmethod
    def pattern(cls) -> RulePattern:
        """All rules of the pass as one pattern."""
        return _pattern_of(cls)

    @classmethod
    def rule_list(cls) -> str:
        """The rules as markdown, a line for each: its name and the first line of its doc."""
        lines = [
            f"- `{rule.name}`: {rule.doc.splitlines()[0]}" if rule.doc else f"- `{rule.name}`"
            for rule in cls.rules().rules
        ]
        return "\n".join(lines)


# The language is imported when the rules of a pass are asked for: a list of passes needs none.


@cache
def _rules_of(cls: type[RulePass]) -> RuleSet:
    from tilewright.passes.rules.checking import load_rules
    from tilewright.passes.rules.source import docstring_source, file_source

    if cls.rules_file is not None:
        return load_rules(file_source(Path(inspect.getfile(cls)).parent / cls.rules_file))
    source = docstring_source(cls)
    if source is None:
        raise InternalError(f"{cls.__name__} has neither rules in its docstring nor a rules_file")
    return load_rules(source)


@cache
def _pattern_of(cls: type[RulePass]) -> RulePattern:
    from tilewright.passes.rules.pattern import RulePattern

    return RulePattern(_rules_of(cls).rules)


def rule_pass(name: str, path: Path) -> type[RulePass]:
    """A pass called `name` that applies the rules in the file `path`."""
    stem = "".join(part.capitalize() for part in name.split("-"))
    doc = f"Apply the rules of {path.name}."
    members = {"name": name, "rules_file": path.absolute(), "__doc__": doc}
    return dataclass(frozen=True)(type(f"{stem}Pass", (RulePass,), members))
