"""Passes that xDSL's own walkers drive are watched and held back like all others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)

from tilewright.compiler.workbench.bisect import bisect
from tilewright.dialects import top
from tilewright.dialects.context import parse_module
from tilewright.passes.actions import Watcher, watching

X = "tensor<2x4xf32>"
MODULE = f"""
func.func @main(%x: {X}) -> {X} {{
  %a = top.Neg %x : {X} -> {X}
  %b = top.Neg %a : {X} -> {X}
  %c = top.Sub %b, %x : {X}, {X} -> {X}
  %d = top.Sub %c, %x : {X}, {X} -> {X}
  func.return %d : {X}
}}
"""


class DropNegations(RewritePattern):
    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: top.NegOp, rewriter: PatternRewriter) -> None:
        if isinstance(op.x.owner, top.NegOp):
            rewriter.replace(op, (), [op.x.owner.x])


class SubToAdd(RewritePattern):
    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: top.SubOp, rewriter: PatternRewriter) -> None:
        rewriter.replace(op, top.AddOp(op.a, op.b))


class XdslPass(ModulePass):
    name = "in-xdsl-manner"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        pattern = GreedyRewritePatternApplier([DropNegations(), SubToAdd()])
        PatternRewriteWalker(pattern).rewrite_module(op)


class Steps(Watcher):
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.begun: list[tuple[str, str]] = []
        self.made: list[list[str]] = []

    def begin(self, pattern: str, op: Operation) -> bool:
        self.begun.append((pattern, op.name))
        return len(self.begun) <= self.limit

    def end(self, new_ops: Sequence[Operation]) -> None:
        self.made.append([op.name for op in new_ops])


STEPS = [
    ("DropNegations", "top.Neg", []),
    ("EraseOrFold", "top.Neg", []),
    ("SubToAdd", "top.Sub", ["top.Add"]),
    ("SubToAdd", "top.Sub", ["top.Add"]),
]


@pytest.mark.parametrize("limit", range(5))
def test_steps_are_announced_and_held_back(limit: int):
    module, steps = parse_module(MODULE, "m.mlir"), Steps(limit)
    with watching(steps):
        XdslPass().apply(Context(), module)
    assert steps.begun == [(pattern, op) for pattern, op, _ in STEPS[: limit + 1]]
    assert steps.made == [made for _, _, made in STEPS[:limit]]
    left = [op.name for op in module.walk()]
    assert left.count("top.Add") == sum("top.Add" in made for made in steps.made)


def test_what_is_done_does_not_depend_on_who_watches():
    watched, unwatched = parse_module(MODULE, "m.mlir"), parse_module(MODULE, "m.mlir")
    with watching(Steps(100)):
        XdslPass().apply(Context(), watched)
    XdslPass().apply(Context(), unwatched)
    assert str(watched) == str(unwatched)


def test_the_first_bad_step_is_found():
    found = bisect(parse_module(MODULE, "m.mlir"), [XdslPass()])
    assert found is not None
    assert found.step is not None
    assert found.step.pattern == "SubToAdd"
