"""The pass `fuse-squared-relu`: a ReLU multiplied by itself becomes one op."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.dialects import top
from tilewright.passes import actions
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

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
        for product in [each for each in op.walk() if isinstance(each, top.MulOp)]:
            relu = product.a.owner
            if product.a is not product.b or not isinstance(relu, top.ReluOp):
                continue
            if not actions.begin("FuseSquaredRelu", product):
                continue
            fused = SquaredReluOp(relu.x)
            fused.location = product.location
            Rewriter.replace_op(product, fused)
            if not relu.result.has_one_use() and not relu.result.uses:
                Rewriter.erase_op(relu)
            actions.end([fused])
