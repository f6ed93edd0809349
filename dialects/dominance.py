"""Whether a module is legal: xDSL's verification, and rules across ops that it lacks."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.irdl.dominance import DominanceInfo
from xdsl.traits import IsolatedFromAbove
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.errors import IRError
from tilewright.dialects.graph import Call
from tilewright.dialects.scopes import functions_of, where_of
from tilewright.dialects.tpu import LaunchOp

KERNEL = "tpu.kernel"
"""The attribute of functions that are kernels."""


def verify_module(module: ModuleOp) -> None:
    """Check every op, that values are defined before their use, and that calls meet their callees.

    Raises `IRError` that says what is illegal, at which op and source line, and why.
    """
    verify_ops(module)
    verify_dominance(module)
    verify_calls(module)


def verify_ops(module: Operation) -> None:
    """xDSL's verification of every op; raises `IRError`."""
    try:
        module.verify()
    except VerifyException as error:
        op = _failing_op(module)
        raise IRError(f"{op.name} is illegal", where=where_of(op), why=str(error)) from error


def _failing_op(module: Operation) -> Operation:
    """The innermost op that fails by itself; xDSL's exception does not say which it was."""
    for op in module.walk(reverse=True):
        try:
            op.verify(verify_nested_ops=False)
        except VerifyException:
            return op
    return module


def verify_dominance(module: ModuleOp) -> None:
    """Check that every value is defined before it is used; raises `IRError`."""
    for region in module.regions:
        _verify_region(region, set())


def _verify_region(region: Region, visible: set[SSAValue]) -> None:
    blocks = tuple(region.blocks)
    if len(blocks) == 1:
        _verify_block(blocks[0], visible)
    elif blocks:
        dominance = DominanceInfo(region)
        for block in blocks:
            above = [other for other in blocks if dominance.strictly_dominates(other, block)]
            _verify_block(block, visible.union(*(_defined_in(other) for other in above)))


def _defined_in(block: Block) -> set[SSAValue]:
    return {*block.args, *(result for op in block.ops for result in op.results)}


def _verify_block(block: Block, visible: set[SSAValue]) -> None:
    """`visible` is restored on return: the block's values end with it."""
    local: list[SSAValue] = list(block.args)
    visible.update(local)
    for op in block.ops:
        for index, operand in enumerate(op.operands):
            if operand not in visible:
                _refuse_use(op, index, operand)
        inner: set[SSAValue] = set() if op.has_trait(IsolatedFromAbove) else visible
        for region in op.regions:
            _verify_region(region, inner)
        visible.update(op.results)
        local.extend(op.results)
    visible.difference_update(local)


def _refuse_use(op: Operation, index: int, operand: SSAValue) -> None:
    name = f"%{operand.name_hint}" if operand.name_hint else "a value without a name"
    if isinstance(operand, OpResult):
        origin = f"the result of {where_of(operand.op)}"
    else:
        origin = "a block argument"
    raise IRError(
        f"operand {index} of {op.name} is used where it is not defined",
        where=where_of(op),
        why=f"{name} is {origin}, which does not come before",
    )


def verify_calls(module: ModuleOp) -> None:
    """Check that callees exist, match their calls, and do not recur; raises `IRError`."""
    functions = functions_of(module)
    programs = {op.sym_name.data for op in module.ops if isinstance(op, ProgramOp)}
    callees: dict[str, list[str]] = {name: [] for name in functions}
    for name, function in functions.items():
        for op in function.walk():
            if isinstance(op, Call):
                callees[name].append(_verify_call(op, functions))
            elif isinstance(op, LaunchOp):
                kernel = op.kernel.string_value()
                if kernel not in functions and kernel not in programs:
                    raise IRError(f"there is no kernel @{kernel}", where=where_of(op))
    finished: set[str] = set()
    for name in functions:
        _refuse_cycle(name, callees, (), finished)


def _verify_call(op: Call, functions: dict[str, FuncOp]) -> str:
    callee = op.callee.string_value()
    if callee not in functions:
        raise IRError(f"there is no function @{callee} to call", where=where_of(op))
    expected = functions[callee].function_type
    _match(op, callee, "takes", expected.inputs.data, tuple(op.arguments.types))
    _match(op, callee, "returns", expected.outputs.data, tuple(op.outputs.types))
    return callee


def _match(
    op: Call,
    callee: str,
    verb: str,
    expected: tuple[Attribute, ...],
    actual: tuple[Attribute, ...],
) -> None:
    if expected != actual:
        raise IRError(
            f"the call does not match @{callee}",
            where=where_of(op),
            why=f"@{callee} {verb} {_types(expected)}, the call has {_types(actual)}",
        )


def _types(types: tuple[Attribute, ...]) -> str:
    return f"({', '.join(str(type_) for type_ in types)})"


def _refuse_cycle(
    name: str, callees: dict[str, list[str]], callers: tuple[str, ...], finished: set[str]
) -> None:
    if name in callers:
        path = " -> ".join(f"@{caller}" for caller in (*callers, name))
        raise IRError("functions call each other in a circle", where=f"@{name}", why=path)
    if name in finished:
        return
    for callee in callees[name]:
        _refuse_cycle(callee, callees, (*callers, name), finished)
    finished.add(name)
