"""Rules with a planted mistake each, and what must be said of it."""

from __future__ import annotations

from xdsl.dialects.builtin import FloatAttr, f32
from xdsl.ir import Operation, SSAValue

from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.rule import Rule
from tilewright.passes.rules.source import Source

WRONG = """
use tests.compiler.workbench.rule_checking.wrong_rules: negate_in_place

/// The operands of a difference keep their places.
rule SwappedOperands {
  match { y = top.Neg(top.Sub(a, b)) }
  where shape(a) == shape(b)
  replace y with top.Sub(a, b)
}

/// Any two orders, where a square hides that they do not undo each other.
rule MissingCondition {
  match { y = top.Permute(top.Permute(x)) }
  replace y with x
}

/// No condition on the last size, which the inner reshape may change.
rule MissingShape {
  match { y = top.Reshape(top.Softmax(top.Reshape(x))) }
  where shape(x) == shape(y)
  replace y with top.Softmax(x)
}

rule WrongArithmetic {
  match { y = top.MulConst(top.MulConst(x) {value: a}) {value: b} }
  replace y with top.MulConst(x) {value: a + b}
}

/// Other users of the inner product find another number in it.
rule ForgetsAnotherUse {
  match { y = top.Neg(top.MulConst(x) {value: _}) }
  replace y with negate_in_place(y)
}

rule DropsTheBias {
  match { y = top.SiLU(top.MatMul(x, w, bias = b?)) }
  replace y with top.SiLU(top.MatMul(x, w))
}

rule WrongApproximation {
  match {
    e = top.Erf(top.MulConst(x) {value: c})
    y = top.MulConst(top.Mul(top.AddConst(e) {value: 1.0}, x)) {value: 0.5}
  }
  where approx(c, sqrt(0.5))
  replace y with top.GELU(x) {approximate: "tanh"}
}

rule EpsOutsideOfTheRoot {
  match {
    square = top.Reduce(top.Mul(x, x)) {mode: mean}
    shifted = top.AddConst(top.Sqrt(square)) {value: eps}
    y = top.Div(x, shifted)
  }
  where eps > 0.0
  replace y with top.RMSNorm(x) {eps: eps}
}

rule TransposedFlag {
  match { y = top.MatMul(x, top.Permute(w) {order: [1, 0]}) {right_transpose: t} }
  replace y with top.MatMul(x, w) {right_transpose: t}
}

/// The mean is that over the last axis, not over the first.
rule WrongAxis {
  match { y = top.MulConst(top.Reduce(x) {mode: sum}) {value: c} }
  where approx(c, 1 / dim(x, 0))
  replace y with top.Reduce(x) {mode: mean}
}

rule WrongOffsets {
  match { y = top.Slice(top.Slice(x) {offsets: outer}) {offsets: inner} }
  replace y with top.Slice(x) {offsets: inner} -> like y
}

rule WrongOrder {
  match { y = top.Concat(a, b) {axis: k} }
  where shape(a) == shape(b)
  replace y with top.Concat(b, a) {axis: k}
}
"""

SILENT = """
/// Its conditions contradict each other.
rule NeverHolds {
  match { y = top.Relu(x: rank 2) }
  where rank(x) == 3
  replace y with x
}

/// What replaces the root never has its type.
rule NeverTyped {
  match { y = top.Relu(x: rank 2) }
  replace y with top.Reduce(top.Concat(x, x) {axis: 0}) {mode: sum}
}
"""

RIGHT = """
rule MatMulOfSum {
  match { y = top.Add(top.MatMul(x, w) {right_transpose: t}, b: rank 1) }
  where dim(b, 0) == dim(y, -1)
  replace y with top.MatMul(x, w, bias = b) {right_transpose: t}
}

rule ScaledAttention {
  match { y = top.MulConst(top.Exp(x: rank 2)) {value: s} }
  where approx(s, 1 / sqrt(dim(x, -1))) and dim(x, -1) % 2 == 0
  replace y with top.MulConst(top.Exp(x)) {value: s}
}

/// A factor that f32 does not hold is no mistake of the rule.
rule RoundedFactor {
  match { y = top.MulConst(top.MulConst(x) {value: a}) {value: b} }
  replace y with top.MulConst(x) {value: a * b}
}

/// 0 / 0 is no number before, and 1 after: whatever is undefined may become anything.
rule UndefinedAtZero {
  match { y = top.Div(x, x) }
  replace y with top.AddConst(top.MulConst(x) {value: 0.0}) {value: 1.0}
}
"""


def rules(text: str) -> tuple[Rule, ...]:
    """The rules in a text."""
    return load_rules(Source("planted.rules", text)).rules


def negate_in_place(y: SSAValue) -> SSAValue:
    """Change the op before a negation, which others may read too."""
    assert isinstance(y.owner, Operation)
    product = y.owner.operands[0]
    assert isinstance(product.owner, Operation)
    value = product.owner.properties["value"]
    assert isinstance(value, FloatAttr)
    product.owner.properties["value"] = FloatAttr(-value.value.data, f32)
    return product
