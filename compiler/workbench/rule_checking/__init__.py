"""Checks rewrite rules, each on its own: the user's test is

    @pytest.mark.parametrize("rule", rules_of("mine.rules"), ids=lambda rule: rule.name)
    def test_rule(rule):
        check_rule(rule)

Instances of a rule's pattern are made up, with shapes, types and attributes solved for so that its
ops verify and its conditions hold (`planning`); they run in the float64 reference before and after
the rule (`trial`); and Hypothesis makes the first wrong one small (`checks`).
"""

from tilewright.compiler.workbench.rule_checking.checks import check_rule, examine_rule
from tilewright.compiler.workbench.rule_checking.finding import (
    RuleGroup,
    registered_groups,
    rule_groups,
    rules_of,
)
from tilewright.compiler.workbench.rule_checking.op_relations import Site
from tilewright.compiler.workbench.rule_checking.op_shapes import register_shapes
from tilewright.compiler.workbench.rule_checking.verdicts import Counterexample, RuleReport

__all__ = [
    "Counterexample",
    "RuleGroup",
    "RuleReport",
    "Site",
    "check_rule",
    "examine_rule",
    "register_shapes",
    "registered_groups",
    "rule_groups",
    "rules_of",
]
