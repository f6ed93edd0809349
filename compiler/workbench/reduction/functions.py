"""Fewer functions and fewer calls: one public function, one scope a call, calls inlined."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from tilewright.compiler.workbench.inputs import public_functions
from tilewright.dialects import graph, tpu
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.scopes import functions_of


def single_functions(module: ModuleOp) -> Iterator[ModuleOp]:
    """The module with one of its public functions and what that calls."""
    names = public_functions(module)
    if len(names) < 2:
        return
    for name in names:
        candidate = module.clone()
        for other in names:
            if other != name:
                _erase(functions_of(candidate)[other])
        drop_unused_functions(candidate)
        yield candidate


def single_scopes(module: ModuleOp) -> Iterator[ModuleOp]:
    """Every chain of calls cut to its first call; else to its last."""
    for place in (0, -1):
        candidate = module.clone()
        for call in _calls(candidate):
            call.scopes = ArrayAttr([call.scopes.data[place]])
        yield candidate


def inlined(module: ModuleOp) -> Iterator[ModuleOp]:
    """All calls inlined; else one of them. Keys get the scope of the call."""
    count = len(_calls(module))
    if count > 1:
        yield _inlined(module, range(count))
    for number in range(count):
        yield _inlined(module, (number,))


def _inlined(module: ModuleOp, numbers: range | tuple[int, ...]) -> ModuleOp:
    candidate = module.clone()
    calls = [(number, call) for number, call in enumerate(_calls(candidate)) if number in numbers]
    while calls:
        # Callees first have their own calls inlined: those come later in `calls` or are new.
        for _, call in calls:
            _inline(candidate, call)
        calls = list(enumerate(_calls(candidate))) if len(numbers) > 1 else []
    drop_unused_functions(candidate)
    return candidate


def _inline(module: ModuleOp, call: graph.Call) -> None:
    body = functions_of(module)[call.callee.string_value()].body.block
    operands: list[SSAValue] = list(call.arguments)
    for scope in call.scope_names:
        values: dict[SSAValue, SSAValue] = dict(zip(body.args, operands, strict=True))
        results: list[SSAValue] = []
        for op in body.ops:
            if isinstance(op, ReturnOp):
                results = [values[operand] for operand in op.operands]
                break
            clone = op.clone(values)
            _put_under(clone, scope)
            Rewriter.insert_op(clone, InsertPoint.before(call))
        operands = [*results, *operands[len(results) :]]
    Rewriter.replace_op(call, [], operands[: len(call.results)])


def _put_under(op: Operation, scope: str) -> None:
    if isinstance(op, graph.Weight | graph.State):
        op.key = StringAttr(scope + op.key.data)
    elif isinstance(op, graph.Call):
        op.scopes = ArrayAttr([StringAttr(scope + inner) for inner in op.scope_names])


def drop_unused_functions(module: ModuleOp) -> None:
    """Erase private functions and kernels that nothing calls any more."""
    while True:
        used = {
            (op.callee if isinstance(op, graph.Call) else op.kernel).string_value()
            for op in module.walk()
            if isinstance(op, graph.Call | tpu.LaunchOp)
        } | set(public_functions(module))
        unused = [
            op
            for op in module.ops
            if isinstance(op, FuncOp | ProgramOp) and op.sym_name.data not in used
        ]
        if not unused:
            return
        for op in unused:
            _erase(op)


def _calls(module: ModuleOp) -> list[graph.Call]:
    return [op for op in module.walk() if isinstance(op, graph.Call)]


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()
