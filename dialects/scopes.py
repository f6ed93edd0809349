"""Names in the words of the source model: key scopes, names and source lines of ops."""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.builtin import ArrayAttr, FileLineColLoc, FusedLoc, ModuleOp, NameLoc
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation

from tilewright.dialects.errors import IRError
from tilewright.dialects.graph import Call


def functions_of(module: ModuleOp) -> dict[str, FuncOp]:
    """The functions of `module` by symbol name, in order."""
    return {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}


def walk_calls(
    module: ModuleOp, function: FuncOp | str, scope: str = ""
) -> Iterator[tuple[Operation, str]]:
    """Every op that `function` executes, in order and going through calls, with its key scope.

    A call is followed by the ops of its callee, once under each scope of the call; the call itself
    and the terminators of functions are left out. A function called twice is walked twice. The
    resolved key of a weight or state is scope + key.

    Raises `IRError` where a callee is missing, or calls itself.
    """
    functions = functions_of(module)
    if isinstance(function, str):
        if function not in functions:
            raise IRError(f"there is no function @{function}", hint=_known(functions))
        function = functions[function]
    yield from _walk(functions, function, scope, ())


def _walk(
    functions: dict[str, FuncOp], function: FuncOp, scope: str, callers: tuple[str, ...]
) -> Iterator[tuple[Operation, str]]:
    name = function.sym_name.data
    if name in callers:
        raise IRError(f"@{name} calls itself", why=" -> ".join((*callers, name)))
    for op in function.body.block.ops:
        if op is function.body.block.last_op:
            break
        if not isinstance(op, Call):
            yield op, scope
            continue
        callee = op.callee.string_value()
        if callee not in functions:
            raise IRError(
                f"there is no function @{callee} to call",
                where=where_of(op),
                hint=_known(functions),
            )
        for inner in op.scope_names:
            yield from _walk(functions, functions[callee], scope + inner, (*callers, name))


def _known(functions: dict[str, FuncOp]) -> str:
    return "the functions are " + ", ".join(f"@{name}" for name in functions)


def op_name(op: Operation) -> str:
    """The name in the location of `op`, relative to its scope; else its op, e.g. `top.MatMul`."""
    return name_of(op.location) or op.name


def source_of(op: Operation) -> str:
    """The source line of `op` as `file:line`; empty if its location has none."""
    place = _place_of(op.location)
    return "" if place is None else f"{place.filename.data}:{place.line.data}"


def where_of(op: Operation) -> str:
    """`op` as an error message says where: its op and name, source line and function, if known."""
    name, source, function = name_of(op.location), source_of(op), _function_of(op)
    if isinstance(op.location, FileLineColLoc):
        # A line of IR text may hold several ops; one of Python has the name that is said here.
        source += f":{op.location.column.data}"
    return (
        op.name
        + (f" {name}" if name else "")
        + (f" ({source})" if source else "")
        + (f" in @{function.sym_name.data}" if function is not None else "")
    )


def _function_of(op: Operation) -> FuncOp | None:
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, FuncOp):
        parent = parent.parent_op()
    return parent


def name_of(location: Attribute) -> str:
    """The name in a location; empty if it has none."""
    if isinstance(location, NameLoc):
        return location.desc.data
    if isinstance(location, FusedLoc):
        return next((name for part in _parts(location) if (name := name_of(part))), "")
    return ""


def _place_of(location: Attribute) -> FileLineColLoc | None:
    if isinstance(location, FileLineColLoc):
        return location
    if isinstance(location, NameLoc):
        return _place_of(location.location)
    if isinstance(location, FusedLoc):
        places = (_place_of(part) for part in _parts(location))
        return next((place for place in places if place is not None), None)
    return None


def _parts(location: FusedLoc) -> tuple[Attribute, ...]:
    assert isinstance(location.locations, ArrayAttr)
    return location.locations.data
