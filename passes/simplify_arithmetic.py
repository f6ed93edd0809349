"""`simplify-arithmetic`: cheaper ops for the same values."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class SimplifyArithmeticPass(RulePass):
    """Write sums, products and quotients with the fewest ops.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>, %z: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %n = top.Neg %z : tensor<4x8xf32> -> tensor<4x8xf32>
      %s = top.Add %x, %n : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      %r = top.Reciprocal %z : tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.Mul %s, %r : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>, %z: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %s = top.Sub %x, %z : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.Div %s, %z : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees fewer ops, of at most as many
    roundings, for the same values.

    ```rules
    /// a + (-b)
    rule AddOfNeg {
      match { y = top.Add(a, top.Neg(b)) }
      replace y with top.Sub(a, b)
    }

    /// a - (-b)
    rule SubOfNeg {
      match { y = top.Sub(a, top.Neg(b)) }
      replace y with top.Add(a, b)
    }

    /// -(a - b), where b has the shape of a
    rule NegOfSub {
      match { y = top.Neg(top.Sub(a, b) [uses = 1]) }
      where shape(a) == shape(b)
      replace y with top.Sub(b, a)
    }

    /// a * (1 / b)
    rule MulOfReciprocal {
      match { y = top.Mul(a, top.Reciprocal(b)) }
      replace y with top.Div(a, b)
    }

    /// 1 / sqrt(x)
    rule ReciprocalOfSqrt {
      match { y = top.Reciprocal(top.Sqrt(x)) }
      replace y with top.Rsqrt(x)
    }

    /// sqrt(x) for its reciprocal's reciprocal
    rule ReciprocalOfRsqrt {
      match { y = top.Reciprocal(top.Rsqrt(x)) }
      replace y with top.Sqrt(x)
    }

    /// max(x, -x)
    rule MaxOfNeg {
      match { y = top.Max(x, top.Neg(x)) }
      replace y with top.Abs(x)
    }

    /// -(x * c)
    rule NegOfMulConst {
      match { y = top.Neg(top.MulConst(x) {value: c} [uses = 1]) }
      replace y with top.MulConst(x) {value: -c}
    }
    ```
    """

    name = "simplify-arithmetic"
