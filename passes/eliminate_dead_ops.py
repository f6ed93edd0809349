"""The pass `eliminate-dead-ops`: what nothing reads is not computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.traits import Pure

from tilewright.dialects.graph import Call
from tilewright.dialects.scopes import functions_of
from tilewright.passes import actions

OP, FUNCTION = "EraseDeadOp", "EraseUncalledFunction"
"""What the steps are called in traces."""


@dataclass(frozen=True)
class EliminateDeadOpsPass(ModulePass):
    """Erase ops whose results nothing reads, and private functions that nothing calls.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %w = top.Weight "unused" : tensor<8xf32>
      %e = top.Exp %x : tensor<4x8xf32> -> tensor<4x8xf32>
      %d = top.Mul %e, %w : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
      %y = top.Neg %x : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.Neg %x : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` or `tpu` ops. Guarantees that every op without
    effects is read, and every private function called; what has effects stays.
    """

    name = "eliminate-dead-ops"
    same_bits: ClassVar[bool] = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        functions = functions_of(op)
        for function in functions.values():
            for block in function.body.blocks:
                for each in reversed(list(block.ops)):
                    if _is_dead(each) and actions.begin(OP, each):
                        _erase(each)
        _erase_uncalled(functions)


def _is_dead(op: Operation) -> bool:
    return op.has_trait(Pure) and all(result.first_use is None for result in op.results)


def _erase_uncalled(functions: dict[str, FuncOp]) -> None:
    """Erase private functions from callers to callees: a callee may lose its last call."""
    while True:
        called = {
            op.callee.string_value()
            for function in functions.values()
            for op in function.walk()
            if isinstance(op, Call)
        }
        dead = [n for n, f in functions.items() if f.sym_visibility is not None and n not in called]
        erasable = [name for name in dead if "tpu.kernel" not in functions[name].attributes]
        if not erasable:
            return
        for name in erasable:
            function = functions.pop(name)
            if actions.begin(FUNCTION, function):
                _erase(function)


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()
    actions.end()
