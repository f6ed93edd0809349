"""The driver of patterns: order, rounds, ends, and steps that are announced and held back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.passes.rules.support import function, names, ops, rule_set
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from tilewright.dialects import top
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import OptionError
from tilewright.dialects.scopes import functions_of, op_name
from tilewright.passes.actions import Watcher, watching
from tilewright.passes.rewriting import apply_patterns
from tilewright.passes.rules.pattern import RulePattern

X = "tensor<4x8xf32>"


def rules(text: str) -> RulePattern:
    return RulePattern(rule_set(text).rules)


def chain(*made: str) -> ModuleOp:
    """Ops one on the other, with a location each: `op0`, `op1`, ..."""
    lines, value = "", "%x"
    for number, op in enumerate(made):
        lines += f'%v{number} = top.{op} {value} : {X} -> {X} loc("op{number}")\n'
        value = f"%v{number}"
    return function(lines)


class AbsToRelu(RewritePattern):
    """A pattern as users of xDSL write it: it makes its op before it asks the rewriter."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: top.AbsOp, rewriter: PatternRewriter) -> None:
        rewriter.replace(op, top.ReluOp(op.x))


class ForwardNeg(RewritePattern):
    """Changes uses, and nothing else."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: top.NegOp, rewriter: PatternRewriter) -> None:
        rewriter.replace_all_uses_with(op.result, op.x)


class MarkExp(RewritePattern):
    """Changes an op in place, and says so afterwards."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: top.ExpOp, rewriter: PatternRewriter) -> None:
        if "top.seen" not in op.attributes:
            op.attributes["top.seen"] = op.location
            rewriter.notify_op_modified(op)


class Recorder(Watcher):
    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.begun: list[tuple[str, str]] = []
        self.ended: list[list[str]] = []

    def begin(self, pattern: str, op: Operation) -> bool:
        if len(self.begun) == self.limit:
            return False
        self.begun.append((pattern, op_name(op)))
        return True

    def end(self, new_ops: Sequence[Operation]) -> None:
        self.ended.append([op.name for op in new_ops])


TO_RELU = "rule ToRelu { match { y = top.Abs(x) } replace y with top.Relu(x) }"


def test_all_functions_are_visited():
    body = f"%y = top.Abs %x : {X} -> {X}\nfunc.return %y : {X}"
    text = "".join(f"func.func @{name}(%x: {X}) -> {X} {{ {body} }}\n" for name in "fg")
    module = parse_module(text, "test.mlir")
    assert apply_patterns(module, [rules(TO_RELU)]) == 2
    module = parse_module(text, "test.mlir")
    assert apply_patterns(functions_of(module)["g"], [rules(TO_RELU)]) == 1
    assert [op.name for op in module.walk() if op.name.startswith("top.")] == [
        "top.Abs",
        "top.Relu",
    ]


def test_one_round_leaves_new_ops_alone():
    grow = "rule Grow { match { y = top.Abs(x) } replace y with top.Relu(top.Abs(x)) }"
    module = chain("Abs", "Abs")
    assert apply_patterns(module, [rules(grow)], to_fixpoint=False) == 2
    assert names(module) == ["Abs", "Relu", "Abs", "Relu"]


def test_a_change_travels_as_far_as_it_must():
    """Up through a chain, against the order of the visits; and past ops that do not match yet."""
    up = "rule Up { match { y = top.Neg(top.Abs(x)) } replace y with top.Abs(top.Neg(x)) }"
    module = chain(*["Abs"] * 30, "Neg")
    assert apply_patterns(module, [rules(up)]) == 30
    assert names(module) == ["Neg"] + ["Abs"] * 30

    far = """
    rule First benefit 1 { match { y = top.Exp(x) } replace y with top.Tanh(x) }
    rule Then benefit 2 {
      match { y = top.Neg(top.Abs(top.Tanh(x))) }
      replace y with top.Sqrt(x)
    }"""
    module = chain("Exp", "Abs", "Neg")
    assert apply_patterns(module, [rules(far)]) == 2
    assert names(module) == ["Sqrt"]


def test_rules_that_undo_each_other_are_named():
    undo = TO_RELU + "rule Back { match { y = top.Relu(x) } replace y with top.Abs(x) }"
    with pytest.raises(OptionError) as caught:
        apply_patterns(chain("Abs", "Exp"), [rules(undo)])
    assert caught.value.what == "patterns keep applying: Back, ToRelu"
    assert caught.value.where is not None
    assert "op0" in caught.value.where


def test_a_rule_that_grows_without_end_is_named():
    grow = "rule Grow { match { y = top.Abs(x) } replace y with top.Abs(top.Abs(x)) }"
    with pytest.raises(OptionError, match="patterns keep applying: Grow"):
        apply_patterns(chain("Abs"), [rules(grow)])
    with pytest.raises(OptionError, match="patterns keep applying: Grow") as caught:
        apply_patterns(chain("Abs"), [rules(grow)], max_rounds=2)
    assert caught.value.why is not None
    assert "no end after 3 rounds" in caught.value.why


def test_the_first_pattern_of_the_list_is_tried_first():
    to_exp = "rule ToExp { match { y = top.Abs(x) } replace y with top.Exp(x) }"
    for patterns, expected in [
        ([rules(TO_RELU), rules(to_exp)], "Relu"),
        ([rules(to_exp), rules(TO_RELU)], "Exp"),
        ([AbsToRelu(), rules(to_exp)], "Relu"),
        ([rules(to_exp), AbsToRelu()], "Exp"),
    ]:
        module = chain("Abs")
        assert apply_patterns(module, patterns) == 1
        assert names(module) == [expected]


def test_patterns_of_xdsl_are_announced_under_their_names():
    watcher = Recorder()
    module = chain("Abs", "Neg", "Exp", "Abs")
    with watching(watcher):
        assert apply_patterns(module, [AbsToRelu(), ForwardNeg(), MarkExp()]) == 4
    assert watcher.begun == [
        ("AbsToRelu", "op0"),
        ("ForwardNeg", "op1"),
        ("MarkExp", "op2"),
        ("AbsToRelu", "op3"),
    ]
    assert watcher.ended == [["top.Relu"], [], [], ["top.Relu"]]
    verify_module(module)


def test_ops_of_patterns_of_xdsl_get_the_location_of_what_they_replace():
    module = chain("Exp", "Abs")
    apply_patterns(module, [AbsToRelu()])
    assert [op_name(op) for op in ops(module)] == ["op0", "op1"]


@pytest.mark.parametrize("limit", range(4))
def test_a_pattern_of_xdsl_that_is_held_back_has_changed_nothing(limit: int):
    """Neither the op, nor the uses of its operands: the op it made is dropped."""
    watcher = Recorder(limit)
    module = chain("Abs", "Neg", "Abs")
    with watching(watcher):
        assert apply_patterns(module, [AbsToRelu(), ForwardNeg()]) == limit
    verify_module(module)
    expected = [["Abs", "Relu"][limit > 0], "Neg", ["Abs", "Relu"][limit > 2]]
    assert names(module) == expected
    argument = functions_of(module)["f"].body.block.args[0]
    assert len(list(argument.uses)) == 1
    first, neg, last = ops(module)
    assert last.operands[0] is (first if limit > 1 else neg).results[0]


def test_what_dies_is_not_visited():
    drop = "rule Drop { match { y = top.Neg(top.Abs(x)) } replace y with x }"
    watcher = Recorder()
    module = chain("Abs", "Neg", "Exp")
    both = f"{drop} rule Late {{ match {{ y = top.Abs(x) }} where uses(x) > 5 replace y with x }}"
    with watching(watcher):
        apply_patterns(module, [rules(both)])
    assert watcher.begun == [("Drop", "op1")]
    assert names(module) == ["Exp"]
