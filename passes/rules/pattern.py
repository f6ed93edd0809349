"""Rules as an xDSL pattern: one for a rule, or one for a whole set with its merged tree."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import UnknownLoc
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.rewriter import InsertPoint
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from tilewright.passes import actions
from tilewright.passes.rewriting import AnnouncingPattern
from tilewright.passes.rules.building import Builder, Built
from tilewright.passes.rules.matching import MatchedRule, Matcher
from tilewright.passes.rules.rule import Rule, parts_of


class RulePattern(AnnouncingPattern):
    """Applies the first of `rules` that matches: the highest benefit, then the order of the list.

    A rule does not apply where its replacement cannot be made of the matched values, or has other
    types than the results it replaces. Each application is an action called like the rule.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._matcher = Matcher(self.rules)
        self._builders = {id(rule): Builder(rule) for rule in self.rules}
        self._spread = {
            id(rule) for rule in self.rules if len(parts_of(rule.ops, rule.root)[0]) > 1
        }
        """Rules whose ops need not lead to the root, so that they may stand behind it."""

    @property
    def roots(self) -> frozenset[type[Operation]]:
        return self._matcher.roots

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        for match in self._matcher.matches(op):
            built = self._builders[id(match.rule)].build(match.names)
            if built is None:
                continue
            targets = _targets(match)
            is_spread = id(match.rule) in self._spread
            place = _place(op, targets, built) if is_spread else op
            if place is None or [each.type for each in built.results] != [
                each.type for each in targets
            ]:
                built.discard()
                continue
            if actions.begin(match.rule.name, op):
                self.last_applied = match.rule.name
                _replace(op, match, built, place, rewriter)
                actions.end(built.ops)
            else:
                built.discard()
            return


def _targets(match: MatchedRule) -> list[OpResult]:
    """The results that are replaced."""
    values = (match.names[name] for name in match.rule.replacement.targets)
    return [value for value in values if isinstance(value, OpResult)]


def _place(root: Operation, targets: Sequence[OpResult], built: Built) -> Operation | None:
    """The op before which new ops can stand: behind what they use, before what uses them.

    That is what is replaced first, or what comes behind the last operand. None where there is no
    such place in the root's block.
    """
    block = root.parent
    if block is None:
        return None
    others = {operand for op in built.ops for operand in op.operands} | set(built.results)
    order = {op: at for at, op in enumerate(block.ops)}
    if any(target.op not in order for target in targets):
        return None
    made = set(built.ops)
    behind = [
        order[value.owner] + 1
        for value in others
        if isinstance(value.owner, Operation) and value.owner not in made and value.owner in order
    ]
    place = max([min(order[target.op] for target in targets), *behind])
    for target in targets:
        for use in target.uses:
            user = block.find_ancestor_op_in_block(use.operation)
            if user is not None and order[user] < place:
                return None
    return list(block.ops)[place]


def _replace(
    root: Operation,
    match: MatchedRule,
    built: Built,
    place: Operation,
    rewriter: PatternRewriter,
) -> None:
    """Put what is built in the place of `root`, and erase what nothing uses any more."""
    for new in built.ops:
        _inherit(new, root, match)
    new_of = dict(zip(_targets(match), built.results, strict=True))
    replaced = list(dict.fromkeys(target.op for target in new_of))
    if replaced == [root] and place is root:
        rewriter.replace(root, built.ops, built.results)
    else:
        rewriter.insert(built.ops, InsertPoint.before(place))
        for op in replaced:
            rewriter.replace(op, [], [new_of[result] for result in op.results])
    matched = [old for old in reversed(match.ops) if old not in replaced]
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
