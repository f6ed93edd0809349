"""Makes plans for a rule: chooses what is free, and solves for what is not.

The steps stand in `make_plan` in their order, each in a file of its own. Choices that contradict
each other raise `ConflictError`, upon which `choices.search` turns the last of them.
"""

from __future__ import annotations

from tilewright.compiler.workbench.rule_checking.attributes import choose_attributes
from tilewright.compiler.workbench.rule_checking.choices import Choices
from tilewright.compiler.workbench.rule_checking.conditions import check_conditions, require
from tilewright.compiler.workbench.rule_checking.draft import Draft
from tilewright.compiler.workbench.rule_checking.operand_kinds import (
    apply_kinds,
    choose_same,
    choose_source,
    relate_elements,
)
from tilewright.compiler.workbench.rule_checking.operands import choose_operands
from tilewright.compiler.workbench.rule_checking.plan import Plan, Tensor
from tilewright.compiler.workbench.rule_checking.ranks import choose_ranks
from tilewright.compiler.workbench.rule_checking.sites import OpSite
from tilewright.compiler.workbench.rule_checking.surroundings import (
    choose_options,
    choose_swaps,
    choose_uses,
)
from tilewright.passes.rules.rule import Rule

CASES = ("small", "ramp", "positive", "mixed", "ties", "ones", "zeros", "large")
"""Of numbers: see `inputs`."""
_SEEDS = range(1 << 8)


def make_plan(rule: Rule, choices: Choices) -> Plan:
    """A plan for an instance of the pattern of `rule`.

    Raises `ConflictError` where the choices contradict each other.
    """
    draft = Draft(rule, choices)
    choose_operands(draft)
    choose_ranks(draft)
    relate_elements(draft)
    same = _relate_sizes(draft)
    draft.sizes.solve()
    check_conditions(draft)
    for wait in draft.waiting:
        wait()
    loose = choose_attributes(draft)
    tensors = {
        name: Tensor(draft.sizes.values(shape), draft.elements.choose(name))
        for name, shape in draft.shapes.items()
    }
    return Plan(
        tensors,
        draft.operands,
        draft.attributes,
        {name: choose_source(draft, name, same) for name in draft.inputs() if name not in same},
        same,
        frozenset(draft.absent),
        choose_swaps(draft, tensors),
        choose_uses(draft),
        loose,
        choose_options(draft),
        choices.pick(_SEEDS),
        choices.pick(CASES),
    )


def _relate_sizes(draft: Draft) -> dict[str, str]:
    """All equations between sizes: by kind, by op, by condition, and last those of reshapes, which
    have many solutions. Returns the inputs that are another input."""
    apply_kinds(draft)
    sites = [OpSite(draft, index) for index in range(len(draft.rule.ops))]
    for site, row in zip(sites, draft.rows, strict=True):
        if not row.reshapes:
            row.relate(site)
    same = choose_same(draft)
    for condition in draft.conditions:
        require(draft, condition)
    for target, value in draft.kept_values():
        draft.sizes.equal_shapes(draft.shapes[target], draft.shapes[value])
        draft.elements.equal(target, value)
    for site, row in zip(sites, draft.rows, strict=True):
        if row.reshapes:
            row.relate(site)
    return same
