"""Functions of the graph, op by op."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from tilewright.dialects import top
from tilewright.dialects.element_types import F32


class Builder:
    """Appends ops to a block; gives their first results."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def __call__(self, op: Operation) -> SSAValue:
        self.block.add_op(op)
        return op.results[0]

    def weight(self, key: str, *shape: int) -> SSAValue:
        return self(top.WeightOp(key, shape, F32))


def finished(name: str, block: Block, results: Sequence[SSAValue]) -> FuncOp:
    """The function of a block that returns `results`."""
    block.add_op(ReturnOp(*results))
    types = [argument.type for argument in block.args], [value.type for value in results]
    return FuncOp(name, types, Region(block))
