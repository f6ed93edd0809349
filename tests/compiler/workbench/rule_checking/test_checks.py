"""Wrong rules are found, each with a small counterexample; right ones pass."""

from __future__ import annotations

from math import prod

import pytest
from tests.compiler.workbench.rule_checking.wrong_rules import RIGHT, SILENT, WRONG, rules

from tilewright.compiler.workbench.rule_checking import check_rule, examine_rule
from tilewright.compiler.workbench.rule_checking.reports import explain, to_json
from tilewright.dialects.errors import MiscompileError
from tilewright.passes.rules.rule import Rule


def named(rule: Rule) -> str:
    return rule.name


@pytest.mark.parametrize("rule", rules(WRONG), ids=named)
def test_a_planted_mistake_is_found_and_made_small(rule: Rule) -> None:
    report = examine_rule(rule)
    assert report.verdict == "wrong"
    found = report.counterexample
    assert found is not None
    assert found.finding.kind == "different values"
    assert max(prod(tensor.shape) for tensor in found.plan.tensors.values()) <= 6
    difference = found.finding.difference
    assert difference is not None
    assert abs(difference.before - difference.after) > difference.bound
    assert found.before != found.after


@pytest.mark.parametrize("rule", rules(RIGHT), ids=named)
def test_right_rules_pass(rule: Rule) -> None:
    report = check_rule(rule, max_examples=60)
    assert report.applied > 30
    assert list(explain(report)) == []


@pytest.mark.parametrize("rule", rules(SILENT), ids=named)
def test_a_rule_that_never_applies_is_not_right(rule: Rule) -> None:
    report = examine_rule(rule, max_examples=20)
    assert report.verdict == "never exercised"
    with pytest.raises(MiscompileError, match="never exercised") as raised:
        check_rule(rule, max_examples=20)
    assert raised.value.where == rule.place


def test_the_error_of_a_wrong_rule_shows_the_instance() -> None:
    (rule,) = (rule for rule in rules(WRONG) if rule.name == "DropsTheBias")
    with pytest.raises(MiscompileError, match="rule DropsTheBias is wrong") as raised:
        check_rule(rule)
    why = raised.value.why or ""
    assert "is -0.18964545 before and -0.268941421 after" in why
    assert "smallest instance: x f32[1], w f32[1, 1], b f32[1]" in why
    assert "\nw = [[0.5]]\n" in why
    assert "%0 = top.MatMul %x, %w bias %b" in why
    assert "check.mark" not in why


def test_equal_seeds_give_equal_reports() -> None:
    for rule in (*rules(WRONG)[:3], *rules(RIGHT)[:1]):
        first, second = (to_json(examine_rule(rule, max_examples=20, seed=7)) for _ in range(2))
        assert first == second


def test_a_mistake_that_only_another_use_shows() -> None:
    """Without the extra use the rule would look right."""
    (rule,) = (rule for rule in rules(WRONG) if rule.name == "ForgetsAnotherUse")
    found = examine_rule(rule).counterexample
    assert found is not None
    assert any("used elsewhere" in variant for variant in found.plan.variants(found.root))


SHADOWS = """
rule First benefit 2 {
  match { y = top.Relu(top.Relu(x)) }
  replace y with top.Relu(x)
}
rule NeverItsTurn {
  match { y = top.Relu(top.Relu(x)) }
  replace y with top.Relu(x)
}
"""


def test_a_rule_behind_another_is_reported() -> None:
    first, second = rules(SHADOWS)
    assert examine_rule(first, max_examples=20, among=(first, second)).shadowed_by == ""
    assert examine_rule(second, max_examples=20, among=(first, second)).shadowed_by == "First"
    assert examine_rule(second, max_examples=20).shadowed_by == ""


SEVERAL_ENDS = """
rule JoinProducts {
  match {
    a = top.MatMul(x: _[_, _], v: weight)
    root b = top.MatMul(x, w: weight)
  }
  replace a, b {
    both = top.MatMul(x, top.Concat(v, w) {axis: 1})
    first = top.Slice(both) {offsets: [0, 0]} -> like a
    second = top.Slice(both) {offsets: [0, OFFSET]} -> like b
    first, second
  }
}
"""


def test_a_rule_of_several_ends() -> None:
    (rule,) = rules(SEVERAL_ENDS.replace("OFFSET", "dim(a, -1)"))
    report = check_rule(rule, max_examples=40)
    assert report.applied == report.instances == 40


def test_a_wrong_rule_of_several_ends() -> None:
    """The second slice begins where the first does."""
    (rule,) = rules(SEVERAL_ENDS.replace("OFFSET", "0"))
    report = examine_rule(rule, max_examples=40)
    assert report.counterexample is not None
    difference = report.counterexample.finding.difference
    assert difference is not None
    assert difference.what == "b"


VARIANTS = """
rule Variants {
  match { y = top.Add(top.RMSNorm(x, weight = w?) {eps: e}, b) }
  where shape(b) == shape(x)
  replace y with top.Add(top.RMSNorm(x, weight = w) {eps: e}, b)
}
"""


def test_options_of_a_pattern_are_covered() -> None:
    (rule,) = rules(VARIANTS)
    report = check_rule(rule)
    assert report.uncovered == ()
    for variant in ("with w", "without w", "operands swapped", "equal operands", "used elsewhere"):
        assert report.variants[variant] > 5, variant


def test_a_function_that_raises_is_reported() -> None:
    text = """
use operator: getitem
rule Broken {
  match { y = top.Relu(x) }
  where getitem(x, 0) == 1
  replace y with x
}
"""
    report = examine_rule(rules(text)[0], max_examples=5)
    assert report.verdict == "not checkable"
    assert "getitem raises" in "\n".join(explain(report))
