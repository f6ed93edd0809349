"""What may be asked of a value on its own: its element type, its sizes, where it comes from."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects.builtin import TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.traits import is_side_effect_free

from tilewright.dialects import graph
from tilewright.dialects.element_types import ElementType, element_of
from tilewright.dialects.errors import UnsupportedError
from tilewright.passes.rules.rule import Dim, Origin

Holds = Callable[[SSAValue], bool]
"""Asks a value."""


def has_element(element: ElementType) -> Holds:
    """Whether a value is a tensor of this element type."""

    def holds(value: SSAValue) -> bool:
        try:
            return isinstance(value.type, TensorType) and element_of(value.type) == element
        except UnsupportedError:
            return False

    return holds


def has_dims(dims: tuple[Dim, ...]) -> Holds:
    """Whether a value has these sizes; names are looked at later."""
    rest = next((at for at, dim in enumerate(dims) if dim.rest), None)
    fixed = len(dims) - (rest is not None)
    sizes = [
        (at if rest is None or at < rest else at - len(dims), dim.size)
        for at, dim in enumerate(dims)
        if dim.size is not None
    ]

    def holds(value: SSAValue) -> bool:
        if not isinstance(value.type, TensorType):
            return False
        shape = value.type.get_shape()
        if len(shape) < fixed or (rest is None and len(shape) != fixed):
            return False
        return all(shape[axis] == size for axis, size in sizes)

    return holds


def has_origin(origin: Origin) -> Holds:
    """Whether a value comes from there."""
    match origin:
        case Origin.WEIGHT:
            return lambda value: isinstance(value.owner, graph.Weight)
        case Origin.STATE:
            return _is_state
        case Origin.ARGUMENT:
            return lambda value: (
                isinstance(value, BlockArgument) and isinstance(value.block.parent_op(), FuncOp)
            )
        case Origin.CONSTANT:
            return _is_constant


def _is_state(value: SSAValue) -> bool:
    while isinstance(value.owner, graph.CacheUpdate):
        value = value.owner.cache
    return isinstance(value.owner, graph.State)


def _is_constant(value: SSAValue) -> bool:
    """Whether a value follows from weights alone: no argument, state or effect on the way."""
    work, seen = [value], {value}
    while work:
        owner = work.pop().owner
        if not isinstance(owner, Operation) or not is_side_effect_free(owner):
            return False
        if isinstance(owner, graph.State):
            return False
        for operand in owner.operands:
            if operand not in seen:
                seen.add(operand)
                work.append(operand)
    return True
