"""The pass `eliminate-common-subexpressions`: what is computed twice is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.traits import Pure

from tilewright.dialects.graph import State
from tilewright.dialects.scopes import functions_of
from tilewright.passes import actions

NAME = "ReuseEqualOp"
"""What the step is called in traces."""

_Content: TypeAlias = tuple[
    str,
    tuple[SSAValue, ...],
    frozenset[tuple[str, Attribute]],
    frozenset[tuple[str, Attribute]],
    tuple[Attribute, ...],
]


@dataclass(frozen=True)
class EliminateCommonSubexpressionsPass(ModulePass):
    """Replace an op by an earlier one that is equal: name, operands, attributes and types.

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %a = top.Exp %x : tensor<4x8xf32> -> tensor<4x8xf32>
      %b = top.Exp %x : tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.Add %a, %b : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %a = top.Exp %x : tensor<4x8xf32> -> tensor<4x8xf32>
      %y = top.Add %a, %a : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }
    ```

    Requires a verified module of `func` and `top` or `tpu` ops. Guarantees that no two ops without
    effects are equal in a function; what has effects (updates of states, calls) stays, and so does
    what reads a state directly.
    """

    name = "eliminate-common-subexpressions"
    same_bits: ClassVar[bool] = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        for function in functions_of(op).values():
            for block in function.body.blocks:
                known: dict[_Content, Operation] = {}
                for each in list(block.ops):
                    if _is_reusable(each):
                        _reuse(each, known.setdefault(_content(each), each))


def _is_reusable(op: Operation) -> bool:
    """Whether an equal op gives the same wherever it stands: reads of a state may see an update."""
    reads_state = any(isinstance(value.owner, State) for value in op.operands)
    return op.has_trait(Pure) and bool(op.results) and not op.regions and not reads_state


def _reuse(op: Operation, first: Operation) -> None:
    """Let what reads `op` read `first`, an equal op before it or itself."""
    if op is not first and actions.begin(NAME, op):
        Rewriter.replace_op(op, [], list(first.results))
        actions.end()


def _content(op: Operation) -> _Content:
    """All that two ops must have in common; their places in the source may differ."""
    return (
        op.name,
        tuple(op.operands),
        frozenset(op.properties.items()),
        frozenset(op.attributes.items()),
        tuple(op.result_types),
    )
