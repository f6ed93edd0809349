"""The pass `remove-double-negation`: a number negated twice is the number."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from tilewright.dialects import top
from tilewright.passes.rewriting import apply_patterns


@dataclass(frozen=True)
class RemoveDoubleNegationPass(ModulePass):
    """Remove negations of negations.

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
      %n = top.Neg %x : tensor<4x64xf32> -> tensor<4x64xf32>
      %m = top.Neg %n : tensor<4x64xf32> -> tensor<4x64xf32>
      %y = top.Exp %m : tensor<4x64xf32> -> tensor<4x64xf32>
      func.return %y : tensor<4x64xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
      %y = top.Exp %x : tensor<4x64xf32> -> tensor<4x64xf32>
      func.return %y : tensor<4x64xf32>
    }
    ```

    Requires `top` ops. Guarantees that values stay what they are, to the bit, and that no
    `top.Neg` takes the result of another.
    """

    name = "remove-double-negation"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, [RemoveDoubleNegation()])


class RemoveDoubleNegation(RewritePattern):
    """`top.Neg(top.Neg(x))` is `x`."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: top.NegOp, rewriter: PatternRewriter) -> None:
        inner = op.x.owner
        if not isinstance(inner, top.NegOp):
            return
        rewriter.replace(op, [], [inner.x])
        if not inner.result.uses:
            rewriter.erase(inner)
