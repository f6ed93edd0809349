"""How a mistake is planted: a wrong function, or a wrong rule, in the place of a right one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any
from unittest.mock import patch

from tests.compiler.workbench.models import language_model, mixture
from tests.compiler.workbench.spelled_out import mixed_precision, spelled_out
from xdsl.dialects.builtin import ModuleOp

from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.pattern import RulePattern
from tilewright.passes.rules.rule_pass import RulePass
from tilewright.passes.rules.source import docstring_source

Function = Callable[..., Any]

GRAPH = "inline-calls,simplify,eliminate-dead-ops"
CASTS = "simplify-casts"
KERNELS = (
    "convert-top-to-tpu{quant=w8a16},decompose-composites{all=true},tile-for-local-memory,"
    "double-buffer,allocate-local-memory,insert-waits,emit-commands"
)
"""The pipelines that mistakes are planted into."""

MODELS: Mapping[str, Callable[[], ModuleOp]] = {
    "language model": language_model,
    "mixture": mixture,
    "spelled out": spelled_out,
    "mixed precision": mixed_precision,
}

MOST_OPS = 5


@dataclass(frozen=True)
class Mutation:
    """A wrong `module.attribute` (`attribute` may be `Class.method`), made of the right one."""

    pass_name: str
    pattern: str
    """The step of the pass that is at fault."""
    name: str
    module: str
    attribute: str
    wrong: Callable[[Function], Function]
    model: str = "language model"
    pipeline: str = KERNELS
    most_ops: int = MOST_OPS
    """How many ops may be left: more only where the pattern itself matches more."""

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.name}"


@contextmanager
def mutated(mutation: Mutation) -> Generator[None]:
    """Plant a mutation while the block runs."""
    holder: Any = import_module(f"tilewright.{mutation.module}")
    *path, name = mutation.attribute.split(".")
    for part in path:
        holder = getattr(holder, part)
    with patch.object(holder, name, mutation.wrong(getattr(holder, name))):
        yield


def in_rule(
    pass_name: str,
    pattern: str,
    name: str,
    right: str,
    wrong: str,
    *,
    model: str = "spelled out",
    pipeline: str = GRAPH,
    most_ops: int = MOST_OPS,
) -> Mutation:
    """A rule of a pass in which the text `right`, which stands there once, is `wrong`."""

    def wrong_pattern(pattern_of: Any) -> Function:
        holder: type[RulePass] = pattern_of.__self__  # of a class method: the class
        source = docstring_source(holder)
        assert source is not None
        start = source.text.index(f"rule {pattern} ")
        end = source.text.find("\n    rule ", start + 1)
        rule = source.text[start : end if end >= 0 else None]
        assert rule.count(right) == 1, f"{pattern} has {rule.count(right)} times {right!r}"
        text = source.text.replace(rule, rule.replace(right, wrong))
        rules = RulePattern(load_rules(replace(source, text=text)).rules)
        return lambda *_: rules

    words = "".join(_CAPITALS.get(word, word.capitalize()) for word in pass_name.split("-"))
    return Mutation(
        pass_name,
        pattern,
        name,
        f"passes.{pass_name.replace('-', '_')}",
        f"{words}Pass.pattern",
        wrong_pattern,
        model,
        pipeline,
        most_ops,
    )


_CAPITALS = {"silu": "SiLU", "swiglu": "SwiGLU", "gelu": "GELU", "rms": "RMS"}
