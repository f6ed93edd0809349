"""The pass `decompose-composites`: composite ops without a kernel become the ops they stand for."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from tilewright.dialects.graph.composite import CompositeOp
from tilewright.passes import actions
from tilewright.passes.kernels.registry import has_kernel

NAME = "DecomposeComposite"
"""What the step is called in traces."""


@dataclass(frozen=True)
class DecomposeCompositesPass(ModulePass):
    """Replace every composite op that has no kernel by the ops that it is defined by.

    ```mlir
    func.func @f(%g: tensor<4x64xf16>, %u: tensor<4x64xf16>) -> tensor<4x64xf16> {
      %y = tpu.SwiGLU %g, %u : tensor<4x64xf16>, tensor<4x64xf16> -> tensor<4x64xf16>
      func.return %y : tensor<4x64xf16>
    }
    ```

    -->

    ```mlir
    func.func @f(%g: tensor<4x64xf16>, %u: tensor<4x64xf16>) -> tensor<4x64xf16> {
      %g32 = tpu.Cast %g : tensor<4x64xf16> -> tensor<4x64xf32>
      %s = tpu.SiLU %g32 : tensor<4x64xf32> -> tensor<4x64xf32>
      %u32 = tpu.Cast %u : tensor<4x64xf16> -> tensor<4x64xf32>
      %p = tpu.Mul %s, %u32 : tensor<4x64xf32>, tensor<4x64xf32> -> tensor<4x64xf32>
      %y = tpu.Cast %p : tensor<4x64xf32> -> tensor<4x64xf16>
      func.return %y : tensor<4x64xf16>
    }
    ```

    (with `all`, since this op has a kernel.) Composite ops among the parts are decomposed in their
    turn.

    Requires a verified module. Guarantees that each composite `tpu` op that is left has a kernel,
    and that the numbers are those of the composite ops, intermediate results in the types that
    their definitions say.

    Option `all`: decompose also the ops that have a kernel.
    """

    name = "decompose-composites"

    all: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        work = [item for item in op.walk(reverse=True) if isinstance(item, CompositeOp)]
        while work:
            composite = work.pop()
            if (self.all or not has_kernel(composite)) and actions.begin(NAME, composite):
                new_ops = _decompose(composite)
                actions.end(new_ops)
                work += [each for each in reversed(new_ops) if isinstance(each, CompositeOp)]


def _decompose(op: CompositeOp) -> list[Operation]:
    """Put the decomposition in the place of `op`; returns its ops."""
    made = op.decomposition()
    new_ops = list(made.block.ops)
    for each in new_ops:
        each.location = op.location
    made.result.name_hint = op.results[0].name_hint
    Rewriter.inline_block(made.block, InsertPoint.before(op), op.operands)
    Rewriter.replace_op(op, [], [made.result])
    return new_ops
