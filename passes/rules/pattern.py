"""Rules as an xDSL pattern: one for a rule, or one for a whole set with its merged tree."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import UnknownLoc
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from tilewright.passes import actions
from tilewright.passes.rewriting import AnnouncingPattern
from tilewright.passes.rules.building import Builder, Built
from tilewright.passes.rules.matching import MatchedRule, Matcher
from tilewright.passes.rules.rule import Rule


class RulePattern(AnnouncingPattern):
    """Applies the first of `rules` that matches: the highest benefit, then the order of the list.

    A rule does not apply where its replacement cannot be made of the matched values, or has other
    types than the results it replaces. Each application is an action called like the rule.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._matcher = Matcher(self.rules)
        self._builders = {id(rule): Builder(rule) for rule in self.rules}

    @property
    def roots(self) -> frozenset[type[Operation]]:
        return self._matcher.roots

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        for match in self._matcher.matches(op):
            built = self._builders[id(match.rule)].build(match.names)
            if built is None:
                continue
            if [value.type for value in built.results] != [value.type for value in op.results]:
                built.discard()
                continue
            if actions.begin(match.rule.name, op):
                self.last_applied = match.rule.name
                _replace(op, match, built, rewriter)
                actions.end(built.ops)
            else:
                built.discard()
            return


def _replace(op: Operation, match: MatchedRule, built: Built, rewriter: PatternRewriter) -> None:
    """Put what is built in the place of `op`, and erase what nothing uses any more."""
    for new in built.ops:
        _inherit(new, op, match)
    rewriter.replace(op, built.ops, built.results)
    matched = [old for old in reversed(match.ops) if old is not op]
    for value in match.names.values():
        if isinstance(value, SSAValue) and isinstance(value.owner, Operation):
            matched.append(value.owner)
    for old in dict.fromkeys(matched):
        if old.parent is not None and is_trivially_dead(old):
            rewriter.erase(old)


def _inherit(new: Operation, root: Operation, match: MatchedRule) -> None:
    """Give a new op its location, and the marks and names of a matched op like it."""
    if isinstance(new.location, UnknownLoc):
        new.location = root.location
    like = next((old for old in (root, *reversed(match.ops)) if old.name == new.name), None)
    if like is None:
        return
    for name, attribute in like.attributes.items():
        new.attributes.setdefault(name, attribute)
    for result, before in zip(new.results, like.results, strict=False):
        result.name_hint = result.name_hint or before.name_hint
