"""Every rule and lowering of this package is right, on a few instances each.

`tw rules check PASS` tries more.
"""

from __future__ import annotations

import pytest

from tilewright.compiler.workbench.rule_checking import RuleGroup, check_rule, registered_groups
from tilewright.passes.rules.rule import Rule

CASES = [(group, rule) for group in registered_groups() for rule in group.rules]


def named(value: RuleGroup | Rule) -> str:
    return value.name if isinstance(value, RuleGroup) else f"{value.name}-{value.root_op.op.name}"


@pytest.mark.parametrize(("group", "rule"), CASES, ids=named)
def test_a_rule_changes_no_value(group: RuleGroup, rule: Rule) -> None:
    report = check_rule(rule, max_examples=10, among=group.among)
    assert report.shadowed_by == ""
