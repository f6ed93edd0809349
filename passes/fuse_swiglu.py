"""`fuse-swiglu`: gated units become one op."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class FuseSwiGLUPass(RulePass):
    """Compute the gated unit of a feed-forward layer in one op.

    ```mlir
    func.func @f(%g: tensor<4x8xf32>, %u: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %s = top.SiLU %g : tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.Mul %s, %u : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%g: tensor<4x8xf32>, %u: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.SwiGLU %g, %u : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops. Guarantees that no product with a SiLU that
    nothing else reads is left: the gate stays in local memory, and three passes over the
    activations take the place of five.

    ```rules
    /// SiLU(gate) * up (Shazeer, arXiv 2002.05202)
    rule SwiGLUOfProduct {
      match { y = top.Mul(top.SiLU(gate) [uses = 1], up) }
      where shape(gate) == shape(up)
      replace y with top.SwiGLU(gate, up)
    }
    ```
    """

    name = "fuse-swiglu"
