"""An order of inputs that becomes an order of the output channels of the layers before.

Where the input of a weight with its inputs in another order (`apply_input_order`) is made of
products, element by element, no gather is needed: their weights put out the channels in that order.
So it is with the down projection behind `SiLU(gate) * up`:

    down[:, order] (SiLU(gate x) * (up x))[order]
        =  down[:, order] (SiLU(gate[order] x) * (up[order] x))

The module stays as it is: only the rows of weights move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.dialects import top
from tilewright.dialects.graph import shape_of
from tilewright.dialects.scopes import functions_of, walk_calls

Order = npt.NDArray[np.int32]

_ELEMENTWISE = (
    top.SiLUOp,
    top.GELUOp,
    top.ReluOp,
    top.SigmoidOp,
    top.TanhOp,
    top.MulOp,
    top.AddOp,
)


@dataclass(frozen=True)
class FoldedOrders:
    """What `fold_input_order` found."""

    rows: Mapping[str, Order]
    """For weights by resolved key: `i32[N]`, row `n` is to be row `rows[key][n]` of the source."""
    left: Mapping[str, Order]
    """The orders that are not folded."""


@dataclass(frozen=True)
class _Leaf:
    """Output channels `first ...` of a weight, by its resolved key."""

    key: str
    channels: int
    first: int


_Leaves: TypeAlias = frozenset[_Leaf]


@dataclass
class _Reads:
    """Who reads the weights, in all functions, by resolved key."""

    all: Counter[str] = field(default_factory=Counter[str])
    as_leaf: Counter[str] = field(default_factory=Counter[str])
    inputs: dict[str, set[_Leaves]] = field(default_factory=dict[str, set[_Leaves]])
    """Of what the inputs of the weights with an order are made, wherever these are read. Empty
    where it is something else than products."""


def fold_input_order(
    module: ModuleOp, orders: Mapping[str, Order], movable: Collection[str]
) -> FoldedOrders:
    """Find orders of `apply_input_order` that rows of weights can take over.

    `movable` are the resolved keys of the weights whose rows may be moved. Moved are those that
    have no bias and are read for nothing but inputs in that one order. Requires a verified module.
    """
    reads = _Reads()
    for function in functions_of(module).values():
        if orders and function.sym_visibility is None:
            for op, scope in walk_calls(module, function):
                _note(op, scope, orders, reads)
    rows: dict[str, Order] = {}
    folded: set[str] = set()
    for key, inputs in reads.inputs.items():
        (leaves, *others) = inputs
        keys = {leaf.key for leaf in leaves}
        alone = all(reads.all[each] == reads.as_leaf[each] for each in keys)
        if leaves and not others and alone and keys.isdisjoint(rows) and keys <= set(movable):
            rows.update(_moved(leaves, orders[key]))
            folded.add(key)
    return FoldedOrders(rows, {key: each for key, each in orders.items() if key not in folded})


def _note(op: Operation, scope: str, orders: Mapping[str, Order], reads: _Reads) -> None:
    """Note what a weight is read for, and of what the input of a product with an order is made."""
    if isinstance(op, top.WeightOp):
        reads.all[scope + op.key.data] += op.result.uses.get_length()
    if not isinstance(op, top.MatMulOp) or not isinstance(op.right.owner, top.WeightOp):
        return
    key = scope + op.right.owner.key.data
    if key in orders:
        leaves = _leaves_of(op.x, scope)
        reads.as_leaf.update({leaf.key for leaf in leaves})
        reads.inputs.setdefault(key, set()).add(leaves)


def _leaves_of(x: SSAValue, scope: str) -> _Leaves:
    """The output channels of which `x` is made; none where it is made of anything else, or where a
    part of it has another use."""
    parts: list[Operation] = []
    if not _collect(x, parts):
        return frozenset()
    leaves: set[_Leaf] = set()
    for part in parts:
        product, first = part, 0
        if isinstance(part, top.SliceOp):
            product, first = part.x.owner, int(part.offsets.get_values()[-1])
            if any(use.operation not in parts for use in part.x.uses) or first % shape_of(x)[-1]:
                return frozenset()
        if not isinstance(product, top.MatMulOp) or product.bias is not None:
            return frozenset()
        weight = product.right.owner
        if not isinstance(weight, top.WeightOp) or product.right_transpose is None:
            return frozenset()
        leaves.add(_Leaf(scope + weight.key.data, shape_of(weight.result)[0], first))
    return frozenset(leaves)


def _collect(x: SSAValue, parts: list[Operation]) -> bool:
    """Add the ops that `x` is made of, element by element, to `parts`; false where it is made of
    operands of other shapes, or any of them has another use."""
    op = x.owner
    if not isinstance(op, Operation) or not x.has_one_use():
        return False
    if not isinstance(op, _ELEMENTWISE):
        parts.append(op)
        return True
    return all(
        shape_of(operand) == shape_of(x) and _collect(operand, parts) for operand in op.operands
    )


def _moved(leaves: _Leaves, order: Order) -> dict[str, Order]:
    """The rows of each weight, with those that make the input in its `order`."""
    rows: dict[str, Order] = {}
    for leaf in leaves:
        moved = rows.setdefault(leaf.key, np.arange(leaf.channels, dtype=np.int32))
        moved[leaf.first : leaf.first + len(order)] = leaf.first + order
    return rows
