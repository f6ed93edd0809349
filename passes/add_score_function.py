"""The pass `add-score-function`: a language model that gives the logits of every position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from tilewright.dialects import graph
from tilewright.dialects.element_types import tensor_type
from tilewright.dialects.errors import IRError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import functions_of, where_of
from tilewright.passes import actions

PREFILL, LAST_POSITION = "prefill", "last_position"
ADD_FUNCTION = "AddScoreFunction"
"""What the step is called in traces."""

_ROW_BY_ROW = (graph.MatMul, graph.RMSNorm, graph.LayerNorm, graph.UnaryGraphOp, graph.ConstGraphOp)
"""Ops whose result has the rows of their first operand, each computed of that row alone."""


@dataclass(frozen=True)
class AddScoreFunctionPass(ModulePass):
    """Add `score`: `prefill` with the logits of every position, not of the last one.

    ```mlir
    func.func @prefill(%ids: tensor<4xi32>, %last_position: tensor<1xi32>) -> tensor<1x8xf32> {
      %table = top.Weight "embedding.weight" : tensor<8x16xf32>
      %h = top.Gather %table, %ids : tensor<8x16xf32>, tensor<4xi32> -> tensor<4x16xf32>
      %last = top.Gather %h, %last_position :
        tensor<4x16xf32>, tensor<1xi32> -> tensor<1x16xf32>
      %head = top.Weight "head.weight" : tensor<8x16xf32>
      %logits = top.MatMul %last, %head {right_transpose, top.role = "head"} :
        tensor<1x16xf32>, tensor<8x16xf32> -> tensor<1x8xf32>
      func.return %logits : tensor<1x8xf32>
    }
    ```

    -->

    ```mlir
    func.func @prefill(%ids: tensor<4xi32>, %last_position: tensor<1xi32>) -> tensor<1x8xf32> {
      %table = top.Weight "embedding.weight" : tensor<8x16xf32>
      %h = top.Gather %table, %ids : tensor<8x16xf32>, tensor<4xi32> -> tensor<4x16xf32>
      %last = top.Gather %h, %last_position :
        tensor<4x16xf32>, tensor<1xi32> -> tensor<1x16xf32>
      %head = top.Weight "head.weight" : tensor<8x16xf32>
      %logits = top.MatMul %last, %head {right_transpose, top.role = "head"} :
        tensor<1x16xf32>, tensor<8x16xf32> -> tensor<1x8xf32>
      func.return %logits : tensor<1x8xf32>
    }
    func.func @score(%ids: tensor<4xi32>) -> tensor<4x8xf32> {
      %table = top.Weight "embedding.weight" : tensor<8x16xf32>
      %h = top.Gather %table, %ids : tensor<8x16xf32>, tensor<4xi32> -> tensor<4x16xf32>
      %head = top.Weight "head.weight" : tensor<8x16xf32>
      %logits = top.MatMul %h, %head {right_transpose, top.role = "head"} :
        tensor<4x16xf32>, tensor<8x16xf32> -> tensor<4x8xf32>
      func.return %logits : tensor<4x8xf32>
    }
    ```

    Options:

    - `function`: its name.

    Perplexity needs the logits of all positions, generation those of the last one: so `prefill`
    spares the head the others. Requires a verified module of `func` and `top` ops with a function
    `prefill` that picks `last_position` from its hidden states. Guarantees that row `r` of `score`
    is what `prefill` gives for `last_position` = `r`.
    """

    name = "add-score-function"
    same_bits: ClassVar[bool] = True

    function: str = "score"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        functions = functions_of(op)
        if PREFILL not in functions:
            raise IRError(
                f"there is no function @{PREFILL} to make @{self.function} of",
                why=f"the module has {', '.join('@' + name for name in functions) or 'none'}",
                hint=f"{self.name} is for language models",
            )
        if self.function in functions:
            raise IRError(f"there is a function @{self.function} already")
        prefill = functions[PREFILL]
        if not actions.begin(ADD_FUNCTION, prefill):
            return
        score = prefill.clone()
        score.sym_name = StringAttr(self.function)
        score.location = prefill.location
        _keep_every_row(score)
        block = prefill.parent_block()
        assert block is not None
        block.insert_ops_after([score], prefill)
        actions.end([score])


def _keep_every_row(function: FuncOp) -> None:
    """Read all rows where the function picks those of `last_position`."""
    block = function.body.block
    last = next((each for each in block.args if each.name_hint == LAST_POSITION), None)
    picks = [use.operation for use in last.uses] if isinstance(last, BlockArgument) else []
    if last is None or len(picks) != 1 or not isinstance(picks[0], graph.Gather):
        raise IRError(
            f"@{PREFILL} does not pick {LAST_POSITION} from its hidden states",
            where=where_of(picks[0] if picks else function),
            hint=f"an argument %{LAST_POSITION} that one top.Gather reads",
        )
    pick = picks[0]
    all_rows, rows = pick.table, shape_of(pick.table)[0]
    for each in _users(pick.result):
        _set_rows(each, rows)
    pick.result.replace_all_uses_with(all_rows)
    pick.detach()
    pick.erase()
    block.erase_arg(last)
    function.update_function_type()


def _users(value: SSAValue) -> list[Operation]:
    """The ops that the value reaches, the returns left out."""
    found: list[Operation] = []
    work = [value]
    while work:
        for use in work.pop().uses:
            if use.operation not in found and not isinstance(use.operation, ReturnOp):
                found.append(use.operation)
                work += use.operation.results
    return found


def _set_rows(op: Operation, rows: int) -> None:
    if not isinstance(op, _ROW_BY_ROW):
        raise IRError(
            f"{op.name} between the last position and the logits may mix rows",
            where=where_of(op),
            hint="linear layers, normalizations and element functions do not",
        )
    (result,) = op.results
    shape = (rows, *shape_of(result)[1:])
    Rewriter.replace_value_with_new_type(result, tensor_type(shape, storage_of(result)))
