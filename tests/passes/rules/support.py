"""Rules from text, and what they make of the body of a function."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation

from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.scopes import functions_of
from tilewright.passes.rewriting import apply_patterns
from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.pattern import RulePattern
from tilewright.passes.rules.rule import Rule, RuleSet
from tilewright.passes.rules.source import Source


def rule_set(text: str) -> RuleSet:
    """The checked rules of a text called test.rules."""
    return load_rules(Source("test.rules", text))


def rule(text: str) -> Rule:
    """The only rule of a text."""
    (only,) = rule_set(text).rules
    return only


def function(body: str, arguments: str = "%x: tensor<4x8xf32>") -> ModuleOp:
    """A verified module of one function, that returns the result of its last op."""
    *_, last = (line for line in body.strip().splitlines() if "=" in line)
    name = last.split("=")[0].strip()
    result = last.rsplit("->" if "->" in last else ":", 1)[1].split(" loc(")[0].strip()
    text = f"func.func @f({arguments}) -> {result} {{\n{body}\nfunc.return {name} : {result}\n}}\n"
    module = parse_module(text, "test.mlir")
    verify_module(module)
    return module


def rewrite(rules: str, module: ModuleOp) -> int:
    """Apply rules until none applies, and verify what is left; how often they did."""
    steps = apply_patterns(module, [RulePattern(rule_set(rules).rules)])
    verify_module(module)
    return steps


def ops(module: ModuleOp) -> list[Operation]:
    """The ops of the function but for its end, in order."""
    block = functions_of(module)["f"].body.block
    return [op for op in block.ops if not isinstance(op, ReturnOp)]


def names(module: ModuleOp) -> list[str]:
    """The names of those ops, without their dialect."""
    return [op.name.rpartition(".")[2] for op in ops(module)]
