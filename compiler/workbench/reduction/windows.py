"""Parts of a function as functions of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from tilewright.compiler.workbench.inputs import public_functions
from tilewright.compiler.workbench.reduction.functions import drop_unused_functions
from tilewright.dialects import graph
from tilewright.dialects.scopes import functions_of, where_of

_NAMED = (graph.Weight, graph.State)
"""Ops that are taken along with those that use them."""
_AROUND = (0, 1, 2, 4)
"""Ops before and after the suspect that are tried with it."""


def around(module: ModuleOp, suspect: str) -> Iterator[ModuleOp | None]:
    """What stands around the ops that `suspect` may mean, in whatever function: first little."""
    for reach in _AROUND:
        for name in _graph_functions(module):
            for place, op in enumerate(computing_ops(functions_of(module)[name])):
                if _is_at(op, suspect):
                    places = range(place - reach, place + reach + 1)
                    yield extracted(module, name, places)
                    if isinstance(op, graph.CacheUpdate):
                        yield extracted(module, name, places, return_updates=False)


def windows(module: ModuleOp) -> Iterator[ModuleOp | None]:
    """Parts of each function: runs of half of the ops, of a quarter and so on, each overlapping the
    one before by half."""
    for name in _graph_functions(module):
        ops = computing_ops(functions_of(module)[name])
        size = len(ops) // 2
        while size:
            for start in range(0, len(ops) - size + 1, max(1, size // 2)):
                yield extracted(module, name, range(start, start + size))
            size //= 2


def _graph_functions(module: ModuleOp) -> list[str]:
    return [
        name
        for name, function in functions_of(module).items()
        if "tpu.kernel" not in function.attributes and not function.is_declaration
    ]


def _is_at(op: Operation, suspect: str) -> bool:
    """Whether `suspect` names the place in the model that `op` comes from; without one, the op."""
    place = where_of(op).partition(" in @")[0]
    words = place.removeprefix(op.name) or place
    return f"{words} in @" in f" {suspect} in @"


def computing_ops(function: FuncOp) -> list[Operation]:
    """The ops of a function but weights, states and the return."""
    return [op for op in function.body.block.ops if not isinstance(op, (*_NAMED, ReturnOp))]


def extracted(
    module: ModuleOp, name: str, places: Collection[int], *, return_updates: bool = True
) -> ModuleOp | None:
    """A module with one function: those computing ops of function `name` that stand at `places`.

    What they read of others becomes an argument; it returns what nothing in it reads. Without
    `return_updates` it writes states and does not return them, but its arguments if nothing else.
    """
    function = functions_of(module)[name]
    chosen = [op for place, op in enumerate(computing_ops(function)) if place in places]
    if not chosen:
        return None
    block, values = Block(), dict[SSAValue, SSAValue]()
    for op in chosen:
        for operand in op.operands:
            if operand not in values:
                _provide(operand, block, values)
        block.add_op(op.clone(values))
    results = _unread(chosen, values)
    if not return_updates:
        others = [value for value in results if not isinstance(value.owner, graph.CacheUpdate)]
        results = others or list(block.args[:1])
    if not results:
        return None
    block.add_op(ReturnOp(*results))
    types = [value.type for value in block.args], [value.type for value in results]
    public = public_functions(module)
    main = FuncOp(public[0] if public else name, types, Region(block))
    main.location = function.location
    candidate = module.clone()
    for other in list(candidate.ops):
        if isinstance(other, FuncOp) and other.sym_name.data in (*public, main.sym_name.data):
            other.detach()
            other.erase()
    candidate.body.block.add_op(main)
    drop_unused_functions(candidate)
    return candidate


def _provide(operand: SSAValue, block: Block, values: dict[SSAValue, SSAValue]) -> None:
    """Make a value that the part reads: a copy of a weight or state, or an argument."""
    owner = operand.owner
    if isinstance(owner, Operation) and isinstance(owner, _NAMED):
        block.add_op(owner.clone(values))
        return
    argument = block.insert_arg(operand.type, len(block.args))
    argument.name_hint = operand.name_hint
    values[operand] = argument


def _unread(chosen: Sequence[Operation], values: dict[SSAValue, SSAValue]) -> list[SSAValue]:
    """The results that no op of the part reads: what it is for."""
    inside = set(chosen)
    return [
        values[result]
        for op in chosen
        for result in op.results
        if not any(use.operation in inside for use in result.uses)
    ]
