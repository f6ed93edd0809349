"""Fewer and simpler ops: removed, bypassed, turned into arguments, without optional operands, with
attributes 0 or 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xdsl.dialects.builtin import (
    DenseArrayBase,
    FloatAttr,
    FunctionType,
    IntegerAttr,
    ModuleOp,
    UnitAttr,
    i32,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation, OptOperandDef
from xdsl.rewriter import Rewriter

from tilewright.compiler.workbench.reduction.functions import drop_unused_functions
from tilewright.dialects import graph
from tilewright.dialects.scopes import functions_of
from tilewright.dialects.tpu import LaunchOp

_SIGNATURES = (graph.Call, LaunchOp)
"""Ops whose operands are those of another function: they are not changed one by one."""

Change = Callable[[FuncOp, Operation], bool]
"""Changes an op in place; false if there is nothing to change."""


def simplified(module: ModuleOp) -> Iterator[ModuleOp | None]:
    """Each change that there is to each op of the functions of the graph, the largest first."""
    for change in (_drop, _to_argument, _bypass, _drop_result):
        yield from _each(module, change)
    yield from _optional_operands(module)
    yield from _attributes(module)


def _each(module: ModuleOp, change: Change) -> Iterator[ModuleOp | None]:
    for name, function in functions_of(module).items():
        if "tpu.kernel" in function.attributes or function.is_declaration:
            continue
        for place in reversed(range(len(function.body.block.ops))):
            yield _changed(module, name, place, change)


def _changed(module: ModuleOp, name: str, place: int, change: Change) -> ModuleOp | None:
    candidate = module.clone()
    function = functions_of(candidate)[name]
    op = list(function.body.block.ops)[place]
    if not change(function, op):
        return None
    drop_unused(function)
    drop_unused_functions(candidate)
    return candidate


def _is_public(function: FuncOp) -> bool:
    return function.sym_visibility is None or function.sym_visibility.data != "private"


def _drop(function: FuncOp, op: Operation) -> bool:
    """Erase an op that only the return reads, with the results that it returns."""
    last = function.body.block.last_op
    if isinstance(op, ReturnOp) or not isinstance(last, ReturnOp) or not _is_public(function):
        return False
    if any(use.operation is not last for result in op.results for use in result.uses):
        return False
    kept = [value for value in last.arguments if value.owner is not op]
    # What the op has read may be what is returned instead.
    kept += [v for v in _computed(op) if v not in kept and v.has_one_use()]
    if not kept or len(op.results) == 0:
        return False
    _return(function, kept)
    return True


def _computed(op: Operation) -> list[SSAValue]:
    named = (graph.Weight, graph.State)
    return list(
        dict.fromkeys(
            value
            for value in op.operands
            if isinstance(value.owner, Operation) and not isinstance(value.owner, named)
        )
    )


def _to_argument(function: FuncOp, op: Operation) -> bool:
    """A public function is given what the op computed."""
    if isinstance(op, ReturnOp) or not _is_public(function) or not op.results:
        return False
    block = function.body.block
    for result in op.results:
        if any(isinstance(use.operation, ReturnOp) for use in result.uses):
            return False
        if not result.uses:
            continue
        argument = block.insert_arg(result.type, len(block.args))
        argument.name_hint = result.name_hint
        result.replace_all_uses_with(argument)
    Rewriter.erase_op(op)
    _retype(function)
    return True


def _bypass(function: FuncOp, op: Operation) -> bool:
    """An operand of the same type stands for the result."""
    del function
    if len(op.results) != 1 or isinstance(op, ReturnOp):
        return False
    for operand in op.operands:
        if operand.type == op.results[0].type:
            op.results[0].replace_all_uses_with(operand)
            Rewriter.erase_op(op)
            return True
    return False


def _drop_result(function: FuncOp, op: Operation) -> bool:
    """Return all but the results of an op."""
    last = function.body.block.last_op
    if not isinstance(last, ReturnOp) or not _is_public(function) or op is last:
        return False
    kept = [value for value in last.arguments if value.owner is not op]
    if not kept or len(kept) == len(last.arguments):
        return False
    _return(function, kept)
    return True


def _optional_operands(module: ModuleOp) -> Iterator[ModuleOp | None]:
    """Ops without a bias, a mask, a weight of a norm."""
    for name, place, op in _graph_ops(module):
        for operand_name in _optional_names(op):

            def drop(function: FuncOp, op: Operation, name: str = operand_name) -> bool:
                del function
                op.operands = [o for o in op.operands if o is not getattr(op, name)]
                _count_operands(op, name)
                return True

            yield _changed(module, name, place, drop)


def _optional_names(op: Operation) -> list[str]:
    if not isinstance(op, IRDLOperation):
        return []
    definitions = op.get_irdl_definition().operands
    return [
        name
        for name, definition in definitions
        if isinstance(definition, OptOperandDef) and getattr(op, name) is not None
    ]


def _count_operands(op: Operation, dropped: str) -> None:
    """Where an op keeps how many operands stand in each segment, set it anew."""
    sizes = op.properties.get("operandSegmentSizes")
    if sizes is None or not isinstance(op, IRDLOperation):
        return
    assert isinstance(sizes, DenseArrayBase)
    names = [name for name, _ in op.get_irdl_definition().operands]
    counts = [
        0 if name == dropped else int(count)
        for name, count in zip(names, sizes.get_values(), strict=True)
    ]
    op.properties["operandSegmentSizes"] = DenseArrayBase.from_list(i32, counts)


def _attributes(module: ModuleOp) -> Iterator[ModuleOp | None]:
    """Attributes left out; numbers 0 or 1."""
    for name, place, op in _graph_ops(module):
        for holder in ("attributes", "properties"):
            found: dict[str, Attribute] = getattr(op, holder)
            for key, value in found.items():
                for simple in _simpler(value):

                    def set_(
                        function: FuncOp,
                        op: Operation,
                        holder: str = holder,
                        key: str = key,
                        simple: Attribute | None = simple,
                    ) -> bool:
                        del function
                        attributes: dict[str, Attribute] = getattr(op, holder)
                        if simple is None:
                            del attributes[key]
                        else:
                            attributes[key] = simple
                        return True

                    yield _changed(module, name, place, set_)


def _simpler(value: Attribute) -> list[Attribute | None]:
    if isinstance(value, UnitAttr):
        return [None]
    if isinstance(value, FloatAttr) and value.value.data not in (0.0, 1.0):
        return [FloatAttr(number, value.type) for number in (0.0, 1.0)]
    if isinstance(value, IntegerAttr) and value.value.data not in (0, 1):
        return [IntegerAttr(number, value.type) for number in (0, 1)]
    return []


def _graph_ops(module: ModuleOp) -> Iterator[tuple[str, int, Operation]]:
    for name, function in functions_of(module).items():
        if "tpu.kernel" in function.attributes or function.is_declaration:
            continue
        for place, op in enumerate(function.body.block.ops):
            if not isinstance(op, (ReturnOp, *_SIGNATURES)):
                yield name, place, op


def drop_unused(function: FuncOp) -> None:
    """Erase ops without a use, and of a public function the arguments without one."""
    for op in reversed(list(function.body.block.ops)):
        writes = isinstance(op, graph.CacheUpdate) or "alias" in op.properties
        if op.results and not writes and not any(result.uses for result in op.results):
            Rewriter.erase_op(op)
    if _is_public(function):
        block = function.body.block
        for argument in reversed(block.args):
            if not argument.uses and len(block.args) > 1:
                block.erase_arg(argument)
        _retype(function)


def _return(function: FuncOp, values: list[SSAValue]) -> None:
    last = function.body.block.last_op
    assert isinstance(last, ReturnOp)
    Rewriter.replace_op(last, ReturnOp(*values))
    _retype(function)


def _retype(function: FuncOp) -> None:
    """Say the types of arguments and results that the function has now."""
    block = function.body.block
    last = block.last_op
    assert isinstance(last, ReturnOp)
    arguments = [argument.type for argument in block.args]
    results = [value.type for value in last.arguments]
    function.function_type = FunctionType.from_lists(arguments, results)
    function.arg_attrs = None
    function.res_attrs = None
