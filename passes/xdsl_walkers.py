"""Passes in xDSL's own manner say their steps, too, while somebody watches.

xDSL's `PatternRewriteWalker` drives patterns without a word. Inside `announcing_walkers` each
application is an action (see `actions`), called like the pattern's class, and is held back as those
of `rewriting.apply_patterns` are. What a walker does, and in which order, stays as it is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from xdsl.ir import Operation, Region
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriterListener,
    PatternRewriteWalker,
    RewritePattern,
)

from tilewright.passes import actions
from tilewright.passes.rewriting import AnnouncingPattern, AnnouncingRewriter, HeldBackError

_rewrite_region = PatternRewriteWalker.rewrite_region


@contextmanager
def announcing_walkers() -> Generator[None]:
    """xDSL's walkers announce the applications of patterns that run inside."""
    before = PatternRewriteWalker.rewrite_region
    PatternRewriteWalker.rewrite_region = _announced
    try:
        yield
    finally:
        PatternRewriteWalker.rewrite_region = before


def _announced(self: PatternRewriteWalker, region: Region) -> bool:
    """`self.rewrite_region(region)`, with its pattern's applications announced."""
    return _rewrite_region(replace(self, pattern=_Announced(_named(self.pattern))), region)


def _named(pattern: RewritePattern) -> RewritePattern:
    """`pattern`, or where it tries others in turn: one that says which of them is at work."""
    if not isinstance(pattern, GreedyRewritePatternApplier):
        return _Named(pattern)
    return replace(pattern, rewrite_patterns=[_named(each) for each in pattern.rewrite_patterns])


@dataclass
class _Named(RewritePattern):
    pattern: RewritePattern

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if isinstance(rewriter, AnnouncingRewriter):
            rewriter.pattern = type(self.pattern).__name__
            # It says its steps itself.
            rewriter.is_announced |= isinstance(self.pattern, AnnouncingPattern)
        self.pattern.match_and_rewrite(op, rewriter)


@dataclass
class _Announced(RewritePattern):
    """Runs the pattern with a rewriter that announces it; not at all once a step is held back."""

    pattern: RewritePattern
    is_stopped: bool = False

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if self.is_stopped:
            return
        made: dict[Operation, None] = {}
        own = AnnouncingRewriter(op, "EraseOrFold")
        own.extend_from_listener(rewriter)
        own.extend_from_listener(
            PatternRewriterListener(
                operation_insertion_handler=[lambda new: made.setdefault(new)],
                operation_removal_handler=[lambda gone: made.pop(gone, None)],
            )
        )
        try:
            self.pattern.match_and_rewrite(op, own)
        except HeldBackError:
            self.is_stopped = True
            return
        rewriter.has_done_action |= own.has_done_action
        if own.has_announced:
            actions.end(list(made))
