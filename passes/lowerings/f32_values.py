"""Which values stay f32 in every mode: RoPE tables, back to where they come from."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, OpResult, SSAValue

from tilewright.dialects import graph, top
from tilewright.dialects.scopes import functions_of

_MOVERS = (graph.Reshape, graph.Slice, graph.Permute, graph.Concat, graph.Gather)
"""Ops whose result holds their first operand's elements: a table stays one through them."""


def f32_values(module: ModuleOp) -> set[SSAValue]:
    """The values that are RoPE tables or parts of them, back to weights and arguments."""
    functions = functions_of(module)
    calls: dict[str, list[top.CallOp]] = {name: [] for name in functions}
    work: list[SSAValue] = []
    for op in module.walk():
        if isinstance(op, top.RopeOp):
            work += (op.cos, op.sin)
        elif isinstance(op, top.CallOp):
            calls[op.callee.string_value()].append(op)
    found: set[SSAValue] = set()
    while work:
        value = work.pop()
        if value in found:
            continue
        found.add(value)
        owner = value.owner
        if isinstance(value, BlockArgument):
            function = value.block.parent_op()
            if isinstance(function, FuncOp):
                work += [call.arguments[value.index] for call in calls[function.sym_name.data]]
        elif isinstance(owner, top.CallOp) and isinstance(value, OpResult):
            returned = functions[owner.callee.string_value()].body.block.last_op
            if returned is not None:
                work.append(returned.operands[value.index])
        elif isinstance(owner, graph.Concat):
            work += owner.operands
        elif isinstance(owner, _MOVERS):
            work.append(owner.operands[0])
    return found
