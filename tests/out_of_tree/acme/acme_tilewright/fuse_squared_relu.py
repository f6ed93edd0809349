"""The pass `fuse-squared-relu`: a ReLU multiplied by itself becomes one op."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.dialects import top
from tilewright.passes.rewriting import apply_patterns
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from acme_tilewright.dialect import SquaredReluOp


@dataclass(frozen=True)
class FuseSquaredReluPass(ModulePass):
    """Compute a ReLU that is multiplied by itself with one op.

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
      %r = top.Relu %x : tensor<4x64xf32> -> tensor<4x64xf32>
      %y = top.Mul %r, %r : tensor<4x64xf32>, tensor<4x64xf32> -> tensor<4x64xf32>
      func.return %y : tensor<4x64xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
      %y = acme.SquaredRelu %x : tensor<4x64xf32> -> tensor<4x64xf32>
      func.return %y : tensor<4x64xf32>
    }
    ```

    Requires `top` ops. Guarantees that values stay what they are; a ReLU with other uses stays.
    """

    name = "fuse-squared-relu"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, [FuseSquaredRelu()])


class FuseSquaredRelu(RewritePattern):
    """`top.Mul(r, r)` with `r = top.Relu(x)` becomes `acme.SquaredRelu(x)`."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: top.MulOp, rewriter: PatternRewriter) -> None:
        relu = op.a.owner
        if op.a is not op.b or not isinstance(relu, top.ReluOp):
            return
        rewriter.replace(op, SquaredReluOp(relu.x))
        if not relu.result.uses:
            rewriter.erase(relu)
