"""What a rule leaves: types, places, marks, names, and nothing that is not needed any more."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest
from tests.passes.rules.support import function, names, ops, rewrite, rule, rule_set
from xdsl.dialects.builtin import IntegerAttr, StringAttr, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    var_operand_def,
)
from xdsl.pattern_rewriter import PatternRewriteWalker

from tilewright.dialects import top
from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.graph import shape_of
from tilewright.dialects.scopes import op_name, source_of
from tilewright.passes.actions import Watcher, watching
from tilewright.passes.rewriting import apply_patterns
from tilewright.passes.rules import scope
from tilewright.passes.rules.building import Builder
from tilewright.passes.rules.matching import Matcher
from tilewright.passes.rules.pattern import RulePattern
from tilewright.passes.rules.source import RuleError

X = "tensor<4x8xf32>"


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes functions importable from `acme_helpers`."""

    def install(**functions: object) -> None:
        module = types.ModuleType("acme_helpers")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, "acme_helpers", module)

    return install


def neg_of_neg(location: str = "") -> str:
    return f"%a = top.Neg %x : {X} -> {X}\n%y = top.Neg %a : {X} -> {X}{location}"


def test_a_value_replaces_the_root_and_what_made_it_goes():
    module = function(neg_of_neg())
    assert rewrite("rule R { match { y = top.Neg(top.Neg(x)) } replace y with x }", module) == 1
    assert ops(module) == []


def test_a_matched_op_that_is_used_elsewhere_stays():
    module = function(
        f"%a = top.Neg %x : {X} -> {X}\n%b = top.Neg %a : {X} -> {X}\n"
        f"%y = top.Add %a, %b : {X}, {X} -> {X}"
    )
    rewrite("rule R { match { y = top.Neg(top.Neg(x)) } replace y with x }", module)
    assert names(module) == ["Neg", "Add"]


def test_an_op_with_effects_stays():
    module = function(
        f"""%s = top.State "s" : {X}
        %p = top.Weight "p" : tensor<4xi32>
        %u = top.CacheUpdate %s, %x at %p : {X}, {X}, tensor<4xi32> -> {X}
        %y = top.Neg %u : {X} -> {X}"""
    )
    rewrite(
        """rule R {
          match { y = top.Neg(top.CacheUpdate(_, rows, _)) }
          replace y with top.Abs(rows)
        }""",
        module,
    )
    assert names(module) == ["State", "Weight", "CacheUpdate", "Abs"]


def test_weights_that_nothing_reads_any_more_go():
    module = function(
        f"""%w = top.Weight "w" : {X}
        %z = top.Sub %x, %w : {X}, {X} -> {X}
        %y = top.Abs %z : {X} -> {X}"""
    )
    rewrite("rule R { match { y = top.Abs(top.Sub(x, w: weight)) } replace y with x }", module)
    assert ops(module) == []


def test_new_ops_have_the_location_of_the_root():
    module = function(neg_of_neg(' loc("act"("model.py":3:1))'))
    rewrite(
        """rule R {
          match { y = top.Neg(top.Neg(x)) }
          replace y { a = top.Abs(x) top.Relu(a) }
        }""",
        module,
    )
    assert names(module) == ["Abs", "Relu"]
    for op in ops(module):
        assert op_name(op) == "act"
        assert source_of(op) == "model.py:3"


def test_ops_inherit_marks_and_names_of_matched_ops_like_them():
    module = function(
        f"""%m = top.MatMul %x, %w {{top.role = "head"}} : {X}, tensor<8x8xf32> -> {X}
        %y = top.Neg %m {{top.other = "mark"}} : {X} -> {X}""",
        f"%x: {X}, %w: tensor<8x8xf32>",
    )
    rewrite(
        """rule R {
          match { y = top.Neg(top.MatMul(x, w)) }
          replace y with top.MatMul(top.Abs(x), w)
        }""",
        module,
    )
    negated, product = ops(module)
    assert product.attributes == {"top.role": StringAttr("head")}
    assert product.results[0].name_hint == "m"
    assert negated.attributes == {}


def test_marks_can_be_written():
    module = function(f"%y = top.Relu %x : {X} -> {X}")
    rewrite(
        'rule R { match { y = top.Relu(x) } replace y with top.Abs(x) {top.role: "head"} }', module
    )
    assert ops(module)[0].attributes == {"top.role": StringAttr("head")}


def test_a_replacement_of_another_type_does_not_apply():
    """And leaves nothing that would count as a use."""
    module = function(f"%a = top.Neg %x : {X} -> {X}\n%y = top.Abs %a : {X} -> {X}")
    wrong = "rule R { match { y = top.Abs(x) } replace y with top.Reduce(x) {mode: sum} }"
    assert rewrite(wrong, module) == 0
    assert names(module) == ["Neg", "Abs"]
    assert ops(module)[0].results[0].has_one_use()
    other = "rule S { match { y = top.Abs(x) } replace y with top.Relu(x) }"
    assert rewrite(wrong + other, module) == 1
    assert names(module) == ["Neg", "Relu"]


def test_a_replacement_that_cannot_be_made_does_not_apply():
    module = function(f"%y = top.Abs %x : {X} -> {X}")
    text = "rule R { match { y = top.Abs(x) } replace y with top.MatMul(x, x) }"
    assert rewrite(text, module) == 0
    text = "rule R { match { y = top.Abs(x) } replace y with top.MulConst(x) {value: 1 / 0} }"
    assert rewrite(text, module) == 0
    assert names(module) == ["Abs"]


def test_an_argument_of_a_wrong_kind_is_said_at_its_place():
    module = function(f"%y = top.Abs %x : {X} -> {X}")
    text = 'rule R { match { y = top.Abs(x) } replace y with top.MulConst(x) {value: "a"} }'
    with pytest.raises(RuleError, match=r"test.rules:1:50: top.MulConst cannot be made"):
        rewrite(text, module)
    text = "rule R { match { y = top.Abs(x) } where 1 < [2] replace y with x }"
    with pytest.raises(RuleError, match=r"test.rules:1:41: this has no value"):
        rewrite(text, module)


def test_types_of_results():
    body = (
        f"%a = top.Reshape %x : {X} -> tensor<32xf32>\n%y = top.Reshape %a : tensor<32xf32> -> {X}"
    )
    for replacement, applied in [
        ("top.Reshape(x) -> like y", 1),
        ("top.Reshape(x) -> f32[4, 8]", 1),
        ("top.Reshape(x) -> f32[dim(x, 0), 2 * 4]", 1),
        ("top.Reshape(x) {shape: shape(y)}", 1),
        ("top.Reshape(x) {shape: [4, 8]}", 1),
        ("top.Reshape(x) -> f32[8, 4]", 0),
        ("top.Reshape(x) -> f32[3, 8]", 0),
        ("top.Neg(x) -> f32[8, 4]", 0),
        ("top.Cast(x) {element: f32}", 1),
        ("top.Cast(x) -> like y", 1),
        ("top.Slice(x) {offsets: [0, 0]} -> like y", 1),
    ]:
        module = function(body)
        match = "match { y = top.Reshape(top.Reshape(x)) }"
        text = f"rule R {{ {match} replace y with {replacement} }}"
        steps = apply_patterns(module, [RulePattern(rule_set(text).rules)], to_fixpoint=False)
        assert steps == applied, replacement


def test_optional_operands_stay_what_they_are():
    text = """rule R {
      match { y = top.Neg(top.LayerNorm(x, weight = w?, bias = b?) {eps: e}) }
      replace y with top.Abs(top.LayerNorm(x, weight = w, bias = b) {eps: e * 2})
    }"""
    for given in ("", " weight %w : tensor<8xf32>", " bias %w : tensor<8xf32>"):
        module = function(
            f"%n = top.LayerNorm %x{given} {{eps = 0.5 : f32}} : {X} -> {X}\n"
            f"%y = top.Neg %n : {X} -> {X}",
            f"%x: {X}, %w: tensor<8xf32>",
        )
        assert rewrite(text, module) == 1
        norm = ops(module)[0]
        assert isinstance(norm, top.LayerNormOp)
        found = (norm.weight is not None, norm.bias is not None)
        assert found == ("weight" in given, "bias" in given)
        assert norm.eps.value.data == 1.0


def test_builders_in_python(helpers: Callable[..., None]):
    def twice(x: SSAValue) -> SSAValue:
        return top.AbsOp(top.AbsOp(x).result).result

    def listed(x: SSAValue) -> list[Operation]:
        first = top.AbsOp(x)
        return [first, top.ReluOp(first.result)]

    def nothing(x: SSAValue) -> None:
        top.AbsOp(x).erase()

    def op(x: SSAValue) -> Operation:
        return top.ExpOp(x)

    def same(x: SSAValue) -> SSAValue:
        return x

    helpers(twice=twice, listed=listed, op=op, nothing=nothing, same=same)
    for call, expected in [
        ("twice(x)", ["Abs", "Abs"]),
        ("listed(x)", ["Abs", "Relu"]),
        ("op(x)", ["Exp"]),
        ("same(x)", []),
        ("nothing(x)", ["Neg"]),
        ("top.Relu(twice(x))", ["Abs", "Abs", "Relu"]),
        ("top.Add(op(x), twice(x))", ["Exp", "Abs", "Abs", "Add"]),
    ]:
        module = function(f"%y = top.Neg %x : {X} -> {X}")
        rules = f"rule R {{ match {{ y = top.Neg(x) }} replace y with {call} }}"
        rewrite(f"use acme_helpers: twice, listed, op, nothing, same\n{rules}", module)
        assert names(module) == expected, call


def test_functions_that_raise_are_said_at_their_place(helpers: Callable[..., None]):
    def broken(x: SSAValue) -> bool:
        return len(shape_of(x)) // 0 == 1

    def two(x: SSAValue) -> list[SSAValue]:
        return [x, x]

    helpers(broken=broken, two=two)
    module = function(f"%y = top.Neg %x : {X} -> {X}")
    start = "use acme_helpers: broken, two\nrule R { match { y = top.Neg(x) } "
    with pytest.raises(RuleError, match=r"test.rules:2:41: broken raises ZeroDivisionError"):
        rewrite(start + "where broken(x) replace y with x }", module)
    with pytest.raises(RuleError, match=r"test.rules:2:50: two gives 2 values, 1 are needed"):
        rewrite(start + "replace y with two(x) }", module)


def test_several_results():
    body = f"""%a, %b = top.Call @g(%x) {{scopes = [""]}} : ({X}) -> ({X}, {X})
    %y = top.Sub %a, %b : {X}, {X} -> {X}"""
    text = f"func.func private @g(%x: {X}) -> ({X}, {X}) {{ func.return %x, %x : {X}, {X} }}\n"
    module = parse_module(
        text + f"func.func @f(%x: {X}) -> {X} {{ {body}\nfunc.return %y : {X} }}", "test.mlir"
    )
    rules = """rule R {
      match { a, b = top.Call(x) }
      replace a, b { c = top.Neg(x) d = top.Abs(x) c, d }
    }"""
    assert rewrite(rules, module) == 1
    negated, absolute, difference = ops(module)
    assert difference.operands[0] is negated.results[0]
    assert difference.operands[1] is absolute.results[0]


def test_a_result_of_several_is_told_from_the_others():
    text = f"""func.func private @g(%x: {X}) -> ({X}, {X}) {{ func.return %x, %x : {X}, {X} }}
    func.func @f(%x: {X}) -> {X} {{
      %a, %b = top.Call @g(%x) {{scopes = [""]}} : ({X}) -> ({X}, {X})
      %y = top.Neg %b : {X} -> {X}
      func.return %y : {X}
    }}"""
    for name, expected in (("a", 0), ("b", 1)):
        rules = f"rule R {{ match {{ a, b = top.Call(x) y = top.Neg({name}) }} replace y with x }}"
        assert rewrite(rules, parse_module(text, "test.mlir")) == expected


class _Steps(Watcher):
    """Records steps, and holds back those from `limit` on."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.seen: list[str] = []

    def begin(self, pattern: str, op: Operation) -> bool:
        if len(self.seen) >= 2 * self.limit:
            return False
        self.seen.append(f"{pattern} at {op.name}")
        return True

    def end(self, new_ops: object) -> None:
        assert isinstance(new_ops, list)
        self.seen.append(", ".join(op.name for op in new_ops))


def test_steps_are_announced_and_held_back():
    rules = "rule ToRelu { match { y = top.Neg(x) } replace y with top.Relu(x) }"
    watcher = _Steps()
    module = function(neg_of_neg())
    with watching(watcher):
        rewrite(rules, module)
    assert watcher.seen == ["ToRelu at top.Neg", "top.Relu"] * 2
    module = function(neg_of_neg())
    with watching(_Steps(limit=1)):
        rewrite(rules, module)
    assert names(module) == ["Relu", "Neg"]
    assert ops(module)[0].results[0].has_one_use()


def test_a_rule_is_an_ordinary_pattern_of_xdsl():
    pattern = RulePattern([rule("rule R { match { y = top.Neg(top.Neg(x)) } replace y with x }")])
    module = function(neg_of_neg())
    assert PatternRewriteWalker(pattern).rewrite_module(module)
    assert ops(module) == []


@irdl_op_definition
class PlainOp(IRDLOperation):
    """An op as xDSL makes it."""

    name = "test.plain"

    x = operand_def(TensorType)
    others = var_operand_def(TensorType)
    count = prop_def(IntegerAttr)
    result = result_def(TensorType)


def test_ops_without_a_constructor_are_made_as_they_are(monkeypatch: pytest.MonkeyPatch):
    context = make_context()
    context.load_op(PlainOp)
    monkeypatch.setattr(scope, "op_context", lambda: context)
    module = function(f"%y = top.Neg %x : {X} -> {X}")
    start = "rule R { match { y = top.Neg(x) } replace y with test.plain(x, x, x)"
    with pytest.raises(RuleError) as caught:
        rule_set(start + " }")
    assert [problem.message for problem in caught.value.problems] == [
        "test.plain needs count",
        "test.plain does not infer its result: say -> like y, or -> f32[2, n]",
    ]
    rules = rule_set(start + " {count: rank(x) + 1} -> like y }").rules
    apply_patterns(module, [RulePattern(rules)])
    (made,) = ops(module)
    assert isinstance(made, PlainOp)
    assert [each.name_hint for each in made.operands] == ["x"] * 3
    assert made.properties["count"] == IntegerAttr(3, 64)


def test_lowerings_are_data():
    """Whoever converts matches them, and builds with values of its own."""
    found = rule_set(
        """/// int8 codes.
        lowering MatMulToW8A16 for quant = "w8a16", act = "f16" benefit 2 {
          match { y = top.MatMul(x, w: weight, bias = b?) {right_transpose} }
          replace y with tpu.W8A16MatMul(x, codes(w), scale(w), bias = b)
        }"""
    )
    assert found.rules == ()
    (lowering,) = found.lowerings
    assert dict(lowering.options or {}) == {"quant": "w8a16", "act": "f16"}
    assert lowering.root_op.op is top.MatMulOp
    module = function(
        f"""%w = top.Weight "w" : tensor<8x8xf32>
        %y = top.MatMul %x, %w {{right_transpose}} : {X}, tensor<8x8xf32> -> {X}"""
    )
    (match,) = Matcher([lowering]).matches(ops(module)[-1])
    given = function(
        """%codes = tpu.Weight codes "w" : tensor<8x8xi8>
        %scale = tpu.Weight scale "w" : tensor<8x1xf16>
        %y = tpu.Neg %x : tensor<4x8xf16> -> tensor<4x8xf16>""",
        "%x: tensor<4x8xf16>",
    )
    codes, scales, neg = ops(given)
    names = {**match.names, "x": neg.operands[0]}
    built = Builder(lowering).build(
        names, {"codes": lambda _: codes.results[0], "scale": lambda _: scales.results[0]}
    )
    assert built is not None
    (made,) = built.ops
    assert made.name == "tpu.W8A16MatMul"
    assert list(made.operands) == [neg.operands[0], codes.results[0], scales.results[0]]
    built.discard()
    with pytest.raises(RuleError, match="codes is not there in this pass"):
        Builder(lowering).build(names)
