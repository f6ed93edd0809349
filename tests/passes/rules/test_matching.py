"""What patterns match, form by form: on an op that each is for, and on one that it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.passes.rules.support import function, names, ops, rewrite, rule_set
from xdsl.ir import Dialect
from xdsl.irdl import IRDLOperation

from tilewright.dialects import top, tpu
from tilewright.dialects.context import print_module
from tilewright.dialects.graph.composite import CompositeOp
from tilewright.passes.rewriting import apply_patterns
from tilewright.passes.rules.constructors import making_of
from tilewright.passes.rules.pattern import RulePattern
from tilewright.passes.rules.rule import Making

X = "tensor<4x8xf32>"
TO_RELU = "rule R {{ match {{ y = {pattern} }} {where} replace y with top.Relu({value}) }}"


def applies(
    pattern: str, body: str, *, value: str = "x", where: str = "", arguments: str = ""
) -> bool:
    """Whether a rule with the pattern applies to the last op of the body."""
    module = function(body, f"%x: {X}" + (f", {arguments}" if arguments else ""))
    text = TO_RELU.format(pattern=pattern, value=value, where=where)
    return rewrite(text, module) > 0


ADD_XX = f"%y = top.Add %x, %x : {X}, {X} -> {X}"
ADD_XZ = f"%y = top.Add %x, %z : {X}, {X} -> {X}"
Z = f"%z: {X}"


def test_a_name_that_stands_twice_is_one_value():
    assert applies("top.Add(x, x)", ADD_XX)
    assert not applies("top.Add(x, x)", ADD_XZ, arguments=Z)
    assert applies("top.Add(x, _)", ADD_XZ, arguments=Z)


def test_a_name_of_a_result_that_stands_twice_is_one_op():
    shared = f"%a = top.Neg %x : {X} -> {X}\n%y = top.Add %a, %a : {X}, {X} -> {X}"
    equal = (
        f"%a = top.Neg %x : {X} -> {X}\n%b = top.Neg %x : {X} -> {X}\n"
        f"%y = top.Add %a, %b : {X}, {X} -> {X}"
    )
    pattern = "match { a = top.Neg(x) y = top.Add(a, a) } replace y with x"
    assert rewrite(f"rule R {{ {pattern} }}", function(shared)) == 1
    assert rewrite(f"rule R {{ {pattern} }}", function(equal)) == 0


LINEAR = "%y = top.MatMul %x, %w{bias} {attributes} : {types} -> tensor<4x8xf32>"
W = "%w: tensor<8x8xf32>, %b: tensor<8xf32>"
PLAIN = LINEAR.format(bias="", attributes="", types=f"{X}, tensor<8x8xf32>")
BIASED = LINEAR.format(bias=" bias %b", attributes="", types=f"{X}, tensor<8x8xf32>, tensor<8xf32>")
TURNED = LINEAR.format(bias="", attributes="{right_transpose}", types=f"{X}, tensor<8x8xf32>")


@pytest.mark.parametrize(
    ("pattern", "plain", "biased"),
    [
        ("top.MatMul(x, _)", True, False),
        ("top.MatMul(x, _, bias = none)", True, False),
        ("top.MatMul(x, _, bias = b)", False, True),
        ("top.MatMul(x, _, bias = b?)", True, True),
        ("top.MatMul(x, _, bias = _)", False, True),
        ("top.MatMul(x, _, bias = _?)", True, True),
        ("top.MatMul(x, right = _)", True, False),
        ("top.MatMul(x, _, bias = b?: rank 1)", True, True),
        ("top.MatMul(x, _, bias = b?: rank 2)", True, False),
    ],
)
def test_optional_operands(pattern: str, plain: bool, biased: bool):
    assert applies(pattern, PLAIN, arguments=W) is plain
    assert applies(pattern, BIASED, arguments=W) is biased


def test_two_optional_operands_that_are_told_apart():
    arguments = "%b: tensor<8xf32>"
    body = f"%y = top.LayerNorm %x bias %b : tensor<8xf32> {{eps = 1.0 : f32}} : {X} -> {X}"
    assert applies("top.LayerNorm(x, bias = b)", body, arguments=arguments)
    assert not applies("top.LayerNorm(x, weight = b)", body, arguments=arguments)


@pytest.mark.parametrize(
    ("attributes", "plain", "turned"),
    [
        ("", True, False),
        ("{right_transpose}", False, True),
        ("{right_transpose: true}", False, True),
        ("{right_transpose: false}", True, False),
        ("{right_transpose: none}", True, False),
        ("{right_transpose: _}", True, True),
        ("{right_transpose: t}", True, True),
    ],
)
def test_attributes_that_may_be_missing(attributes: str, plain: bool, turned: bool):
    assert applies(f"top.MatMul(x, _) {attributes}", PLAIN, arguments=W) is plain
    assert applies(f"top.MatMul(x, _) {attributes}", TURNED, arguments=W) is turned


@pytest.mark.parametrize(
    ("pattern", "op", "expected"),
    [
        ("top.MulConst(x) {value: 0.1}", "MulConst %x {value = 0.1 : f32}", True),
        ("top.MulConst(x) {value: 2}", "MulConst %x {value = 2.0 : f32}", True),
        ("top.MulConst(x) {value: -2}", "MulConst %x {value = 2.0 : f32}", False),
        ("top.GELU(x) {approximate: tanh}", "GELU %x approximate tanh", True),
        ("top.GELU(x) {approximate: none}", "GELU %x approximate none", True),
        ("top.GELU(x) {approximate: none}", "GELU %x approximate tanh", False),
        ('top.Neg(x) {top.role: "head"}', 'Neg %x {top.role = "head"}', True),
        ("top.Neg(x) {top.role: none}", 'Neg %x {top.role = "head"}', False),
    ],
)
def test_attributes_that_are_written(pattern: str, op: str, expected: bool):
    assert applies(pattern, f"%y = top.{op} : {X} -> {X}") is expected


def test_lists_as_attributes():
    body = f"%y = top.Permute %x {{order = array<i64: 1, 0>}} : {X} -> tensor<8x4xf32>"
    for order, expected in (("[1, 0]", 1), ("[0, 1]", 0)):
        rules = f"""rule R {{
          match {{ y = top.Permute(x) {{order: {order}}} }}
          replace y with top.Reshape(x) -> like y
        }}"""
        assert rewrite(rules, function(body)) == expected


KINDS = """
%w = top.Weight "w" : tensor<4x8xf32>
%n = top.Neg %w : tensor<4x8xf32> -> tensor<4x8xf32>
%s = top.State "s" : tensor<4x8xf32>
%p = top.Weight "p" : tensor<4xi32>
%u = top.CacheUpdate %s, %x at %p :
  tensor<4x8xf32>, tensor<4x8xf32>, tensor<4xi32> -> tensor<4x8xf32>
%y = top.Abs %{name} : tensor<4x8xf32> -> tensor<4x8xf32>
"""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("weight", "w"),
        ("constant", "wn"),
        ("argument", "x"),
        ("state", "su"),
        ("rank 2", "wnsux"),
        ("rank 1", ""),
        ("f32", "wnsux"),
        ("i32", ""),
        ("f32[4, 8]", "wnsux"),
        ("f32[4, _]", "wnsux"),
        ("f32[5, _]", ""),
        ("_[..., 8]", "wnsux"),
        ("_[4, ...]", "wnsux"),
        ("_[..., 7]", ""),
        ("_[_, ..., _, _]", ""),
        ("weight f32 rank 2", "w"),
    ],
)
def test_kinds(kind: str, expected: str):
    holds = [
        name
        for name in "wnsux"
        if applies(f"top.Abs(v: {kind})", KINDS.format(name=name), value="v")
    ]
    assert holds == list(expected)


def test_sizes_with_a_name_are_equal_wherever_it_stands():
    arguments = "%a: tensor<4x4xf32>, %b: tensor<4x6xf32>"
    square = "top.MatMul(a: f32[n, n], b)"
    body = "%y = top.MatMul %a, %b : tensor<4x4xf32>, tensor<4x6xf32> -> tensor<4x6xf32>"
    for pattern, where, expected in [
        (square, "", True),
        (square, "where n == 4", True),
        (square, "where n == 6", False),
        ("top.MatMul(a, b: f32[n, n])", "", False),
        ("top.MatMul(a: f32[..., k], b: f32[k, n])", "where k == 4 and n == 6", True),
        ("top.MatMul(a: f32[_, n], b: f32[_, n])", "", False),
    ]:
        assert applies(pattern, body, value="b", where=where, arguments=arguments) is expected, (
            pattern
        )


def test_uses_are_counted():
    once = f"%a = top.Neg %x : {X} -> {X}\n%y = top.Abs %a : {X} -> {X}"
    twice = f"%a = top.Neg %x : {X} -> {X}\n%y = top.Add %a, %a : {X}, {X} -> {X}"
    assert applies("top.Abs(top.Neg(x) [uses = 1])", once)
    assert not applies("top.Abs(top.Neg(x) [uses = 2])", once)
    assert applies("top.Add(top.Neg(x) [uses = 2], _)", twice)
    assert not applies("top.Add(top.Neg(x) [uses = 1], _)", twice)


NEG_SECOND = f"%a = top.Neg %z : {X} -> {X}\n%y = top.Add %x, %a : {X}, {X} -> {X}"


def test_commutative_ops_match_in_both_orders():
    assert applies("top.Add(top.Neg(a), b)", NEG_SECOND, value="b", arguments=Z)
    assert applies("top.Add(b, top.Neg(a))", NEG_SECOND, value="b", arguments=Z)
    other = NEG_SECOND.replace("top.Add", "top.Sub")
    assert applies("top.Sub(b, top.Neg(a))", other, value="b", arguments=Z)
    assert not applies("top.Sub(top.Neg(a), b)", other, value="b", arguments=Z)


def test_an_operand_that_broadcasts_keeps_its_place():
    body = (
        "%a = top.Neg %r : tensor<8xf32> -> tensor<8xf32>\n"
        f"%y = top.Add %x, %a : {X}, tensor<8xf32> -> {X}"
    )
    assert not applies("top.Add(top.Neg(a), b)", body, value="b", arguments="%r: tensor<8xf32>")
    assert applies("top.Add(b, top.Neg(a))", body, value="b", arguments="%r: tensor<8xf32>")


def test_the_order_that_meets_the_conditions_is_taken():
    arguments = f"{Z}, %w: tensor<8x8xf32>"
    body = ADD_XZ
    assert applies("top.Add(a: argument, b: argument)", body, value="a", arguments=arguments)
    text = """rule R {
      match { y = top.Mul(a, b) }
      where uses(b) == 2
      replace y with b
    }"""
    module = function(
        f"%m = top.Mul %x, %z : {X}, {X} -> {X}\n%y = top.Sub %m, %x : {X}, {X} -> {X}",
        f"%x: {X}, %z: {X}",
    )
    assert rewrite(text, module) == 1
    (sub,) = ops(module)
    assert sub.operands[0] is sub.operands[1]


def test_variadic_operands():
    joined = f"%y = top.Concat %x, %z, %x {{axis = 0 : i64}} : {X}, {X}, {X} -> tensor<12x8xf32>"
    module = function(joined, f"%x: {X}, %z: {X}")
    rules = """rule R {{
      match {{ y = top.Concat({operands}) {{axis: k}} }}
      where dim(y, 0) == 12
      replace y with top.Concat({made}) {{axis: k}}
    }}"""
    for operands, made, expected in [
        ("a, b", "a, b", None),
        ("a, b, a", "b, a, b", "zxz"),
        ("a, a, b", "a, a, b", None),
        ("a, b, c", "c, b, a", "xzx"),
        ("xs...", "xs...", "xzx"),
        ("_...", "", None),
    ]:
        module = function(joined, f"%x: {X}, %z: {X}")
        apply = RulePattern(rule_set(rules.format(operands=operands, made=made)).rules)
        steps = apply_patterns(module, [apply], to_fixpoint=False)
        assert (steps == 1) is (expected is not None), operands
        concat = ops(module)[-1]
        order = "".join(str(operand.name_hint) for operand in concat.operands)
        assert order == (expected or "xzx")


def test_a_capture_twice_is_one_value():
    pattern = "top.AddConst(top.AddConst(x) {value: a}) {value: a}"
    for second, expected in (("1.0", True), ("2.0", False)):
        body = (
            f"%a = top.AddConst %x {{value = 1.0 : f32}} : {X} -> {X}\n"
            f"%y = top.AddConst %a {{value = {second} : f32}} : {X} -> {X}"
        )
        assert applies(pattern, body) is expected


def test_conditions_without_a_value_do_not_hold():
    body = f"%y = top.Neg %x : {X} -> {X}"
    for where, expected in [
        ("dim(x, -1) == 8", True),
        ("dim(x, 2) == 8", False),
        ("not dim(x, 2) == 8", False),
        ("1 / (rank(x) - 2) == 0", False),
        ("rank(x) == 3 and dim(x, 2) == 8", False),
        ("rank(x) == 2 or dim(x, 2) == 8", True),
        ("dim(x, 0) * 2 - 3 % 2 == last(x) - 1", True),
        ("last(shape(x)) in [8, 16]", True),
        ("shape(x)[0] in [8, 16]", False),
        ("shape(x) == [4, 8] and dtype(x) == f32", True),
        ("elements(x) == 32 and product(shape(x)) == 32", True),
        ("len(shape(x)) == 2 and uses(x) == 1", True),
        ("present(x) and x != y", True),
        ("approx(0.3, 0.1 + 0.2) and not approx(1, 1.001)", True),
        ("min(3, 4) < max(3, 4) and abs(-3) >= sqrt(9)", True),
        ("floor(2.7) == 2 and exp(0) <= 1", True),
        ("is_f32(0.5) and not is_f32(0.1)", True),
        ("compose([2, 0, 1], [1, 2, 0]) == range(3)", True),
        ("add([1, 2], [3, 4]) == [4, 6] and all_equal([1, 1], 1)", True),
        ("\"a\" != \"b\"", True),
        ("not (true and false) and none == none", True),
    ]:  # fmt: skip
        assert applies("top.Neg(x)", body, where=f"where {where}") is expected, where


def test_the_highest_benefit_wins_then_the_first_in_the_file():
    rules = """
    rule Low { match { y = top.Neg(x) } replace y with top.Abs(x) }
    rule High benefit 3 { match { y = top.Neg(x) } replace y with top.Exp(x) }
    rule AlsoHigh benefit 3 { match { y = top.Neg(x) } replace y with top.Tanh(x) }
    """
    module = function(f"%y = top.Neg %x : {X} -> {X}")
    assert rewrite(rules, module) == 1
    assert names(module) == ["Exp"]
    reordered = rules.replace("rule High benefit 3", "rule High")
    module = function(f"%y = top.Neg %x : {X} -> {X}")
    rewrite(reordered, module)
    assert names(module) == ["Tanh"]


# Whatever the rules: the merged tree does what each pattern alone, in order of benefit, does.

_UNARY = ("Neg", "Abs", "Exp", "Relu")
_BINARY = ("Add", "Sub", "Mul")


@st.composite
def patterns(draw: st.DrawFn, depth: int = 2) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(["a", "b", "_"]))
    if draw(st.booleans()):
        op = draw(st.sampled_from(_UNARY))
        return f"top.{op}({draw(patterns(depth - 1))})"
    op = draw(st.sampled_from(_BINARY))
    uses = draw(st.sampled_from(["", " [uses = 1]"]))
    return f"top.{op}({draw(patterns(depth - 1))}, {draw(patterns(depth - 1))}){uses}"


@st.composite
def rules_text(draw: st.DrawFn) -> str:
    text = ""
    for number in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from((*_UNARY, *_BINARY)))
        operands = [draw(patterns()) for _ in range(1 if op in _UNARY else 2)]
        benefit = draw(st.sampled_from(["", " benefit 2"]))
        # The replacement says which rule it was.
        text += (
            f"rule R{number}{benefit} {{ match {{ y = top.{op}({', '.join(operands)}) "
            f'}} replace y with top.Weight() {{key: "{number}", shape: shape(y)}} }}\n'
        )
    return text


@st.composite
def bodies(draw: st.DrawFn) -> str:
    values, lines = ["%x", "%z"], ""
    for number in range(draw(st.integers(1, 7))):
        op = draw(st.sampled_from((*_UNARY, *_BINARY)))
        operands = [draw(st.sampled_from(values)) for _ in range(1 if op in _UNARY else 2)]
        types = ", ".join([X] * len(operands))
        lines += f"%v{number} = top.{op} {', '.join(operands)} : {types} -> {X}\n"
        values.append(f"%v{number}")
    return lines


@given(rules_text(), bodies())
def test_the_merged_tree_does_what_its_rules_do_one_by_one(text: str, body: str):
    rules = rule_set(text).rules
    merged = function(body, f"%x: {X}, %z: {X}")
    apply_patterns(merged, [RulePattern(rules)])
    alone = function(body, f"%x: {X}, %z: {X}")
    in_order = sorted(rules, key=lambda rule: -rule.benefit)
    apply_patterns(alone, [RulePattern([rule]) for rule in in_order])
    assert print_module(merged) == print_module(alone)


@pytest.mark.parametrize("dialect", [top.Top, tpu.Tpu], ids=["top", "tpu"])
def test_every_op_infers_its_result(dialect: Dialect):
    """Constructors take operands by their names or in their order, so no rule must say types."""
    makings = {op.name: making_of(op) for op in dialect.operations if issubclass(op, IRDLOperation)}
    assert makings[f"{dialect.name}.MatMul"] is Making.BY_NAME
    assert Making.GENERIC not in makings.values()
    in_order = {name for name, making in makings.items() if making is Making.IN_ORDER}
    assert in_order == {op.name for op in dialect.operations if issubclass(op, CompositeOp)}
