"""Instances: what is made verifies, and conditions hold by construction."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiler.workbench.rule_checking.wrong_rules import rules
from xdsl.irdl import IRDLOperation

from tilewright.compiler.workbench.rule_checking.choices import Choices, ConflictError, search
from tilewright.compiler.workbench.rule_checking.instances import build
from tilewright.compiler.workbench.rule_checking.lowering import rule_on
from tilewright.compiler.workbench.rule_checking.op_shapes import has_shapes
from tilewright.compiler.workbench.rule_checking.plan import Plan
from tilewright.compiler.workbench.rule_checking.planning import make_plan
from tilewright.compiler.workbench.rule_checking.sizes import MOST_ELEMENTS, Sizes, Term
from tilewright.dialects import graph, top, tpu
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.graph import shape_of
from tilewright.passes.rules.matching import Matcher
from tilewright.passes.rules.rule import Rule

OPS = [
    op
    for op in (*top.Top.operations, *tpu.Tpu.operations)
    if issubclass(op, IRDLOperation) and not issubclass(op, graph.Call | tpu.LaunchOp)
]


def plan(rule: Rule, seed: int) -> Plan:
    found = search(lambda choices: make_plan(rule, choices), Random(seed).randrange, limit=400)
    assert found is not None
    return found


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_instances_of_every_op_verify(op: type[IRDLOperation]) -> None:
    """The rows say what the shape rules of the dialects say."""
    assert has_shapes(op)
    shapes: set[tuple[int, ...]] = set()
    for seed in range(15):
        instance = build(rule_on(op, "any"), plan(rule_on(op, "any"), seed))
        verify_module(instance.module)
        shapes.add(shape_of(instance.root.results[0]))
    assert len(shapes) > 5, "hardly any variety"


PATTERN = "y = top.MulConst(top.MatMul(x, w) {right_transpose: t} [uses = 1]) {value: v}"
CONDITIONS = (
    "dim(x, -1) == 4",
    "dim(w, 0) == 2 * dim(w, 1)",
    "rank(x) == 3 and dim(x, 0) == dim(x, 1)",
    "elements(x) == 6 * dim(w, 0)",
    "shape(w) == [3, 5]",
    "shape(y) == shape(x)",
    "dim(x, 0) in [7, 5]",
    "dim(x, 0) % 2 == 1",
    "dim(w, 0) < dim(w, 1)",
    "not t and dim(x, -1) > 2",
    "t or dim(w, 0) == 3",
    "v == 0.375",
    "approx(v, 1 / sqrt(dim(x, -1)))",
    "approx(2 * v - 1, dim(w, 0))",
    "v > 17.5",
    "abs(v) == 6",
    "uses(x) == 1",
)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_are_solved_for(condition: str) -> None:
    """Nearly every instance is one to which the rule applies."""
    text = f"rule R {{ match {{ {PATTERN} }} where {condition} replace y with top.Neg(x) }}"
    (rule,) = rules(text)
    matcher = Matcher((rule,))
    matched = 0
    for seed in range(20):
        instance = build(rule, plan(rule, seed))
        verify_module(instance.module)
        matched += any(True for _ in matcher.matches(instance.root))
    assert matched >= (10 if "uses" in condition else 20)


HALVES = """
rule RotateHalves {
  match {
    low = top.Slice(x: _[p, d]) {offsets: lows}
    high = top.Slice(x) {offsets: highs}
    y = top.Concat(top.Neg(high), low) {axis: 1}
  }
  let half = d / 2
  where shape(low) == [p, half] and shape(high) == [p, half]
  where lows == [0, 0] and highs == [0, half]
  replace y with x
}
"""


def test_halves_and_offsets_are_solved_for() -> None:
    """At the first attempt: chance would take hundreds."""
    (rule,) = rules(HALVES)
    matcher = Matcher((rule,))
    for seed in range(20):
        found = search(lambda choices: make_plan(rule, choices), Random(seed).randrange, limit=1)
        assert found is not None
        assert any(True for _ in matcher.matches(build(rule, found).root))


@pytest.mark.parametrize(
    "pattern",
    [
        "y = top.Reshape(top.Permute(top.Reshape(x)) {order: [0, 2, 1, 3]})",
        "y = top.Concat(top.Slice(x) {offsets: a}, top.Slice(x) {offsets: b}) {axis: k}",
        "y = top.Attention(q, k, v, mask = m?) {num_heads: h, num_kv_heads: h, scale: _}",
        "y = tpu.W8A16MatMul(x, c: weight, s: f32, bias = b)",
        "y = top.CacheUpdate(cache: state, rows, positions)",
        "y = top.Relu(x: f32[n, _, ..., n])",
        "y = tpu.Add(tpu.Cast(x: f16), b: constant rank 1)",
        "y = top.Gather(table: weight, ids: argument)",
    ],
)
def test_patterns_are_present_in_their_instances(pattern: str) -> None:
    dialect = "tpu" if "tpu." in pattern else "top"
    name = next(each for each in ("x", "q", "cache", "table") if re.search(rf"\b{each}\b", pattern))
    (rule,) = rules(f"rule R {{ match {{ {pattern} }} replace y with {dialect}.Relu({name}) }}")
    matcher = Matcher((rule,))
    for seed in range(15):
        instance = build(rule, plan(rule, seed))
        verify_module(instance.module)
        assert any(True for _ in matcher.matches(instance.root)), str(instance.module)


terms = st.builds(
    Term, st.integers(1, 6), st.lists(st.integers(1, 4), max_size=3).map(lambda a: tuple(sorted(a)))
)


@given(st.lists(st.tuples(terms, terms), min_size=1, max_size=3), st.integers(0, 1000))
@settings(deadline=None, max_examples=200)
def test_equal_terms_have_equal_numbers(equations: list[tuple[Term, Term]], seed: int) -> None:
    def solve(choices: Choices) -> Sizes:
        sizes = Sizes(choices)
        for _ in range(4):
            sizes.fresh()
        for left, right in equations:
            sizes.equal(left, right)
        sizes.solve()
        return sizes

    sizes = search(solve, Random(seed).randrange, limit=300)
    if sizes is not None:
        for left, right in equations:
            assert sizes.value(left) == sizes.value(right) > 0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Term(1, (1, 2)), Term(1, (3, 4))),
        (Term(12), Term(1, (1, 2, 3))),
        (Term(6, (1,)), Term(4, (2, 3))),
        (Term(2, (1, 1)), Term(1, (2,))),
        (Term(1, (1, 2)), Term(1)),
    ],
)
def test_products_have_solutions(left: Term, right: Term) -> None:
    for seed in range(20):
        choices = Choices(Random(seed).randrange)
        sizes = Sizes(choices)
        for _ in range(4):
            sizes.fresh()
        sizes.equal(left, right)
        sizes.solve()
        assert sizes.value(left) == sizes.value(right)


def test_contradictions_are_found() -> None:
    sizes = Sizes(Choices(Random(0).randrange))
    with pytest.raises(ConflictError):
        sizes.equal(Term(3), Term(2, (sizes.fresh().atoms[0],)))


def test_tensors_stay_small() -> None:
    (rule,) = rules("rule R { match { y = top.Relu(x: rank 4) } replace y with x }")
    for seed in range(30):
        instance = build(rule, plan(rule, seed))
        size = 1
        for each in shape_of(instance.root.results[0]):
            size *= each
        assert size <= MOST_ELEMENTS
