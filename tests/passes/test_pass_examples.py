"""Examples in docstrings of passes on the graph: what is before the arrow becomes what follows."""

from __future__ import annotations

import pytest

from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.documentation import mlir_blocks
from tilewright.dialects.dominance import verify_module
from tilewright.passes.registry import PASSES
from tilewright.passes.rules.rule_pass import RulePass

GRAPH_PASSES = [
    name
    for name in PASSES
    if issubclass(PASSES[name](), RulePass) or name.startswith(("eliminate-", "inline-"))
]


@pytest.mark.parametrize("name", GRAPH_PASSES)
def test_example(name: str) -> None:
    graph_pass = PASSES[name]()
    before, after = (parse_module(text, name) for text in mlir_blocks(graph_pass.__doc__ or ""))
    verify_module(before)
    graph_pass().apply(make_context(), before)
    verify_module(before)
    verify_module(after)
    assert before.is_structurally_equivalent(after), f"{before}\n{after}"
