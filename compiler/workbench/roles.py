"""What the arguments and weights of a module are used for, traced through calls, views and
launches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from tilewright.dialects import gdma, graph, tpu
from tilewright.dialects.graph import shape_of
from tilewright.dialects.memory_types import GlobalType
from tilewright.dialects.scopes import functions_of

RoleKind = Literal["matrix", "weight of a norm", "cos", "sin", "mask", "positive", "activation"]

_SAME_ELEMENTS = (graph.Reshape, graph.Slice, graph.Permute, graph.Concat, graph.Cast)
"""Ops whose result holds elements of their operands: its uses are theirs."""
_OF_POSITIVE = ("Sqrt", "Rsqrt", "Reciprocal")


@dataclass(frozen=True)
class Role:
    """What a tensor is used for.

    `rows`: the tables that it indexes have at least so many rows; `distinct`: its indices are
    places that are written. `channels`: the axis of output channels, if all uses agree on one.
    `rotary_dim`: columns of a RoPE table from there on turn nothing.
    """

    kind: RoleKind
    rows: int | None = None
    distinct: bool = False
    channels: int | None = None
    rotary_dim: int | None = None


_Use: TypeAlias = tuple[Operation, int, bool | None]
"""An op, the number of the operand, and whether the operand is the transpose of the value asked
for; None where its axes are others."""


class Roles:
    """The roles of the values of a module."""

    def __init__(self, module: ModuleOp) -> None:
        self._functions = functions_of(module)

    def of(self, value: SSAValue) -> Role:
        """What `value` is used for, all of its uses taken together."""
        rows: list[int] = []
        channels: set[int | None] = set()
        kinds: list[RoleKind] = []
        distinct, rotary_dim = False, None
        for op, index, turned in self._uses(value, set()):
            if (limit := _rows_indexed(op, index)) is not None:
                rows.append(limit)
                distinct = distinct or isinstance(op, graph.CacheUpdate | gdma.ScatterOp)
            if (kind := _kind(op, index)) is not None:
                kinds.append(kind)
            if isinstance(op, graph.Rope) and index > 0:
                rotary_dim = op.rotary_dim.value.data
            axis = None if turned is None else _channels(op, index)
            channels.add(axis if axis is None or not turned else 1 - axis)
        return Role(
            kinds[0] if kinds else "activation",
            min(rows, default=None),
            distinct,
            channels.pop() if len(channels) == 1 else None,
            rotary_dim,
        )

    def _uses(
        self, value: SSAValue, seen: set[SSAValue], turned: bool | None = False
    ) -> Iterator[_Use]:
        """The ops that use `value`, which has the axes of the value asked for if not `turned`."""
        if value in seen:
            return
        seen.add(value)
        for use in value.uses:
            op, index = use.operation, use.index
            if isinstance(op, graph.Call):
                yield from self._uses_inside(op.callee.string_value(), index, seen, turned)
            elif isinstance(op, tpu.LaunchOp):
                yield from self._uses_inside(op.kernel.string_value(), index, seen, turned)
            elif isinstance(op, _SAME_ELEMENTS):
                yield from self._uses(op.results[0], seen, _turned_by(op, turned))
            else:
                yield op, index, turned
                if isinstance(op, graph.Gather) and index == 0:
                    yield from self._rope_uses(op.result, seen)

    def _rope_uses(self, value: SSAValue, seen: set[SSAValue]) -> Iterator[_Use]:
        """Rows of a table may be angles: of their uses only those by RoPE say what the table is."""
        for op, index, turned in self._uses(value, seen):
            if isinstance(op, graph.Rope) and index > 0:
                yield op, index, turned

    def _uses_inside(
        self, name: str, index: int, seen: set[SSAValue], turned: bool | None
    ) -> Iterator[_Use]:
        function = self._functions.get(name)
        if isinstance(function, FuncOp) and not function.is_declaration:
            arguments = function.body.block.args
            if index < len(arguments):
                yield from self._uses(arguments[index], seen, turned)


def _turned_by(op: Operation, turned: bool | None) -> bool | None:
    """Whether rows and columns of the result are columns and rows of the value asked for."""
    if turned is None or isinstance(op, graph.Cast):
        return turned
    if isinstance(op, graph.Permute) and op.order.get_values() == (1, 0):
        return not turned
    return None


def _rows_indexed(op: Operation, index: int) -> int | None:
    """Rows of the table that operand `index` of `op` names rows of."""
    operand = op.operands[index]
    if isinstance(op, graph.Gather) and operand is op.indices:
        return shape_of(op.table)[0]
    if isinstance(op, tpu.W8A16GatherOp) and operand is op.indices:
        return shape_of(op.codes)[0]
    if isinstance(op, graph.CacheUpdate) and operand is op.positions:
        return shape_of(op.cache)[0]
    if isinstance(op, gdma.GatherOp) and operand is op.indices:
        return _rows(op.source)
    if isinstance(op, gdma.ScatterOp) and operand is op.indices:
        return _rows(op.target)
    return None


def _rows(view: SSAValue) -> int | None:
    return view.type.rows if isinstance(view.type, GlobalType) else None


def _kind(op: Operation, index: int) -> RoleKind | None:
    operand = op.operands[index]
    if isinstance(op, graph.RMSNorm | graph.LayerNorm):
        return "weight of a norm" if operand is op.weight else None
    if isinstance(op, graph.Rope):
        return (None, "cos", "sin")[index]
    if isinstance(op, graph.Attention):
        return "mask" if operand is op.mask else None
    function = op.name.rpartition(".")[2]
    if function in _OF_POSITIVE or (function == "Div" and index == 1):
        return "positive"
    if isinstance(op, graph.MatMul | tpu.A16MatMul | tpu.Int8MatMulOp) and index == 1:
        return "matrix"
    return None


def _channels(op: Operation, index: int) -> int | None:
    """The axis of output channels of operand `index`, where it is a quantizable matrix."""
    if isinstance(op, graph.MatMul) and index == 1:
        return 1 if op.right_transpose is None else 0
    if isinstance(op, tpu.A16MatMul | tpu.Int8MatMulOp) and index == 1:
        return 0
    if isinstance(op, graph.Gather | tpu.W8A16GatherOp) and index == 0:
        return 0
    return None
