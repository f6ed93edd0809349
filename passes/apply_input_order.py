"""Linear layers whose weight has its inputs in another order: their input is gathered into it.

A checkpoint that GPTQ quantized in activation order has the groups of a weight scattered over its
inputs. The importer sorts them (`w' = w[:, order]`), and this makes the input follow:

    top.MatMul %x, %w    -->    %t = top.Permute %x {order = [1, 0]}
                                %g = top.Gather %t, %order
                                %p = top.Permute %g {order = [1, 0]}
                                top.MatMul %p, %w

`%order` is a `top.Weight` of `i32[K]`, so that layers share functions though their orders differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from tilewright.dialects import top
from tilewright.dialects.element_types import I32
from tilewright.dialects.errors import IRError
from tilewright.dialects.graph import shape_of
from tilewright.dialects.scopes import functions_of, walk_calls, where_of

Order = npt.NDArray[np.int32]

WEIGHT_SUFFIX = ".weight"
ORDER_SUFFIX = ".input_order"
"""The key of an order is that of its weight with this at the end."""


def apply_input_order(module: ModuleOp, orders: Mapping[str, Order]) -> dict[str, Order]:
    """Gather the inputs of the linear layers whose weights have the resolved keys of `orders`.

    `orders[key]` is `i32[K]`: column `j` of the weight belongs to input `orders[key][j]`. A layer
    of a function that is called for several weights gets a gather if one of them has an order; it
    leaves the inputs of the others as they are. Products that read one value in the same order
    share the gather. Returns the orders that the module reads now, by resolved key.

    Requires a verified module. Raises `IRError` where a weight with an order is anything but the
    transposed right operand of products of rank 2.
    """
    if not orders:
        return {}
    tables: dict[str, Order] = {}
    for function, scopes in _scopes_of_functions(module).items():
        _Reordering(orders, tuple(scopes), tables).apply(functions_of(module)[function])
    return tables


def _scopes_of_functions(module: ModuleOp) -> dict[str, dict[str, None]]:
    """The key scopes under which each function runs, from the public functions down."""
    scopes: dict[str, dict[str, None]] = {}
    for function in functions_of(module).values():
        if function.sym_visibility is not None:
            continue
        for op, scope in walk_calls(module, function):
            owner = op.parent_op()
            if isinstance(owner, FuncOp):
                scopes.setdefault(owner.sym_name.data, {})[scope] = None
    return scopes


@dataclass(frozen=True)
class _Reordering:
    """Inserts the gathers of one function, which runs under `scopes`."""

    orders: Mapping[str, Order]
    scopes: tuple[str, ...]
    tables: dict[str, Order]

    def apply(self, function: FuncOp) -> None:
        gathered: dict[tuple[SSAValue, tuple[bytes, ...]], SSAValue] = {}
        for product in list(_products(function, self._has_order)):
            weight = product.right.owner
            assert isinstance(weight, top.WeightOp)
            depth = shape_of(weight.result)[1]
            orders = [self._order(scope + weight.key.data, depth) for scope in self.scopes]
            shared = (product.x, tuple(order.tobytes() for order in orders))
            if shared not in gathered:
                gathered[shared] = self._gather(product, weight, orders)
            product.operands[0] = gathered[shared]

    def _has_order(self, weight: top.WeightOp) -> bool:
        return any(scope + weight.key.data in self.orders for scope in self.scopes)

    def _order(self, key: str, depth: int) -> Order:
        order = self.orders.get(key)
        return np.arange(depth, dtype=np.int32) if order is None else order

    def _gather(self, product: top.MatMulOp, weight: top.WeightOp, orders: list[Order]) -> SSAValue:
        """The input of `product` in the order of `weight`."""
        key = weight.key.data.removesuffix(WEIGHT_SUFFIX) + ORDER_SUFFIX
        for scope, order in zip(self.scopes, orders, strict=True):
            self.tables[scope + key] = order
        table = top.WeightOp(key, (len(orders[0]),), I32)
        columns = top.PermuteOp(product.x, (1, 0))
        rows = top.GatherOp(columns.result, table.result)
        back = top.PermuteOp(rows.result, (1, 0))
        block = product.parent_block()
        assert block is not None
        for op in (table, columns, rows, back):
            op.location = product.location
            block.insert_op_before(op, product)
        return back.result


def _products(function: FuncOp, chosen: Callable[[top.WeightOp], bool]) -> Iterator[top.MatMulOp]:
    """The products that read the `chosen` weights, in their order; nothing else may read one."""
    weights: set[SSAValue] = {
        op.result for op in function.walk() if isinstance(op, top.WeightOp) and chosen(op)
    }
    for op in function.walk():
        read = weights.intersection(op.operands)
        if not read:
            continue
        if not isinstance(op, top.MatMulOp) or not _takes_order(op, read):
            raise IRError(
                "the inputs of a weight cannot be put in order",
                where=where_of(op),
                why="only products of rank 2 with a weight [N, K] read a weight whose inputs have "
                "an order of their own",
            )
        yield op


def _takes_order(product: top.MatMulOp, read: set[SSAValue]) -> bool:
    """Whether the weights `read` are the transposed right operand, and `x` is of rank 2."""
    transposed = product.right_transpose is not None and read == {product.right}
    return transposed and product.x not in read and len(shape_of(product.x)) == 2
