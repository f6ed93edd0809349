"""`canonicalize-top`: what does nothing goes, what undoes itself too, and pairs become one."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class CanonicalizeTopPass(RulePass):
    """Remove ops that change nothing, and join pairs of ops that are one.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<2x16xf32> {
      %a = top.Neg %x : tensor<4x8xf32> -> tensor<4x8xf32>
      %b = top.Neg %a : tensor<4x8xf32> -> tensor<4x8xf32>
      %c = top.Reshape %b : tensor<4x8xf32> -> tensor<32xf32>
      %d = top.Reshape %c : tensor<32xf32> -> tensor<2x16xf32>
      func.return %d : tensor<2x16xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<2x16xf32> {
      %d = top.Reshape %x : tensor<4x8xf32> -> tensor<2x16xf32>
      func.return %d : tensor<2x16xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that none of its rules applies
    any more, and the same values: constants are joined only where f32 holds the result exactly.

    ```rules
    rule NegOfNeg {
      match { y = top.Neg(top.Neg(x)) }
      replace y with x
    }

    rule AbsOfNeg {
      match { y = top.Abs(top.Neg(x)) }
      replace y with top.Abs(x)
    }

    rule AbsOfAbs {
      match { a = top.Abs(_)  y = top.Abs(a) }
      replace y with a
    }

    rule ReluOfRelu {
      match { a = top.Relu(_)  y = top.Relu(a) }
      replace y with a
    }

    rule MaxOfOneValue {
      match { y = top.Max(x, x) }
      replace y with x
    }

    rule MinOfOneValue {
      match { y = top.Min(x, x) }
      replace y with x
    }

    /// x * 1
    rule MulConstByOne {
      match { y = top.MulConst(x) {value: 1.0} }
      replace y with x
    }

    /// x + 0
    rule AddConstOfZero {
      match { y = top.AddConst(x) {value: 0.0} }
      replace y with x
    }

    /// (x * a) * b
    rule MulConstOfMulConst {
      match { y = top.MulConst(top.MulConst(x) {value: a}) {value: b} }
      where is_f32(a * b)
      replace y with top.MulConst(x) {value: a * b}
    }

    /// (x + a) + b
    rule AddConstOfAddConst {
      match { y = top.AddConst(top.AddConst(x) {value: a}) {value: b} }
      where is_f32(a + b)
      replace y with top.AddConst(x) {value: a + b}
    }

    rule ReshapeToSameShape benefit 2 {
      match { y = top.Reshape(x) }
      where shape(x) == shape(y)
      replace y with x
    }

    rule ReshapeOfReshape {
      match { y = top.Reshape(top.Reshape(x)) }
      replace y with top.Reshape(x) -> like y
    }

    rule PermuteInOrder benefit 2 {
      match { y = top.Permute(x) {order: axes} }
      where axes == range(rank(x))
      replace y with x
    }

    rule PermuteOfPermute {
      match { y = top.Permute(top.Permute(x) {order: first}) {order: second} }
      replace y with top.Permute(x) {order: compose(first, second)}
    }

    rule SliceOfAll benefit 2 {
      match { y = top.Slice(x) }
      where shape(x) == shape(y)
      replace y with x
    }

    rule SliceOfSlice {
      match { y = top.Slice(top.Slice(x) {offsets: outer}) {offsets: inner} }
      replace y with top.Slice(x) {offsets: add(outer, inner)} -> like y
    }

    rule CastToSameType {
      match { y = top.Cast(x) }
      where dtype(x) == dtype(y)
      replace y with x
    }

    rule ConcatOfOneValue {
      match { y = top.Concat(x) }
      replace y with x
    }
    ```
    """

    name = "canonicalize-top"
