"""What tests of passes and rules need, in one import.

def test_rules():
    check_rules("fuse-linear-gelu")

def test_model():
    check_passes("mlp.mlir", "fuse-linear-gelu,compile")
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.workbench.equivalence import CheckOptions, EquivalenceCheck
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.rule_checking import check_rule, rules_of
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.compiler.workbench.sources import read_sources
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.passes.rules.rule_pass import RulePass


def check_rules(origin: str | Path | type[RulePass]) -> None:
    """Check each rule of a pass, or of a file, on its own (`tw rules check`).

    Raises `MiscompileError` with the smallest counterexample for a rule that is not right.
    """
    for rule in rules_of(origin):
        check_rule(rule)


def check_passes(
    module: ModuleOp | str | Path,
    passes: str | Iterable[ModulePass],
    options: CheckOptions | None = None,
) -> ModuleOp:
    """What `passes` make of a module, or of an IR file, which is left as it is; the model is run on
    made-up inputs before and after each (`tw opt --check-each-pass`).

    Raises `MiscompileError` where a pass changes what is computed, and what the passes raise.
    """
    if isinstance(module, ModuleOp):
        made = module.clone()
    else:
        (source,) = read_sources(str(module))
        made = parse_module(source.text, source.name, places="missing")
    verify_module(made)
    pipeline = passes_from_text(passes) if isinstance(passes, str) else passes
    run_pipeline(made, pipeline, [EquivalenceCheck(options or CheckOptions())])
    return made
