"""`simplify-casts`: casts that lose nothing go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class SimplifyCastsPass(RulePass):
    """Remove casts there and back, and join casts in a row.

    ```mlir
    func.func @f(%x: tensor<4x8xf16>) -> tensor<4x8xf16> {
      %w = tpu.Cast %x : tensor<4x8xf16> -> tensor<4x8xf32>
      %n = tpu.Cast %w : tensor<4x8xf32> -> tensor<4x8xf16>
      %y = tpu.Neg %n : tensor<4x8xf16> -> tensor<4x8xf16>
      func.return %y : tensor<4x8xf16>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf16>) -> tensor<4x8xf16> {
      %y = tpu.Neg %x : tensor<4x8xf16> -> tensor<4x8xf16>
      func.return %y : tensor<4x8xf16>
    }
    ```

    Requires a verified module of `func` and `tpu` ops. Guarantees the same bits: a value that was
    made wider is what it was; a cast to a narrower type rounds, and stays.

    ```rules
    rule CastToSameType benefit 3 {
      match { y = tpu.Cast(x) }
      where dtype(x) == dtype(y)
      replace y with x
    }

    /// To f32 and back: f32 holds every f16 and bf16.
    rule CastThereAndBack benefit 2 {
      match { w = tpu.Cast(x)  y = tpu.Cast(w) }
      where dtype(w) == f32 and dtype(x) == dtype(y)
      replace y with x
    }

    /// To f32 and on to another type: one rounding either way.
    rule CastThroughF32 {
      match { w = tpu.Cast(x)  y = tpu.Cast(w) }
      where dtype(w) == f32
      replace y with tpu.Cast(x) -> like y
    }
    ```
    """

    name = "simplify-casts"
    same_bits: ClassVar[bool] = True
