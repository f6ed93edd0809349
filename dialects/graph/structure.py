"""Ops that connect a function with the outside: weights, states, calls, picked rows."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    ArrayAttr,
    FlatSymbolRefAttrConstr,
    StringAttr,
    SymbolRefAttr,
    TensorType,
)
from xdsl.ir import Attribute
from xdsl.irdl import (
    ParsePropInAttrDict,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, Pure

from tilewright.dialects import shape_rules
from tilewright.dialects.element_types import I32, ElementType, tensor_type
from tilewright.dialects.graph.base import (
    GraphOp,
    Value,
    like,
    require_element,
    shape_of,
    storage_of,
)
from tilewright.dialects.shape_rules import require


class Weight(GraphOp):
    """The tensor of the weight container that is called scope + `key`. The IR holds no data of it.

    Invariants:

    - `the key is empty`
    """

    key = prop_def(StringAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$key attr-dict `:` type($result)"

    def __init__(self, key: str, shape: Sequence[int], element: ElementType) -> None:
        super().__init__(
            properties={"key": StringAttr(key)},
            result_types=[tensor_type(tuple(shape), element)],
        )

    def check(self) -> None:
        require(self.key.data != "", "the key is empty")


class State(GraphOp):
    """A tensor `T[L, C]` that lives between calls (a KV cache), called scope + `key`.

    The value is the state as the function finds it. `CacheUpdate` writes it in place: later reads
    take the updated value.

    Invariants:

    - `the key is empty`
    - `the state has rank 2, not R`
    """

    key = prop_def(StringAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$key attr-dict `:` type($result)"

    def __init__(self, key: str, shape: Sequence[int], element: ElementType) -> None:
        super().__init__(
            properties={"key": StringAttr(key)},
            result_types=[tensor_type(tuple(shape), element)],
        )

    def check(self) -> None:
        require(self.key.data != "", "the key is empty")
        shape_rules.require_rank("the state", shape_of(self.result), 2)


class Call(GraphOp):
    """Call a private function, once under each of `scopes`: a layer, or a stack of equal layers.

    With several scopes the calls are a chain: the results of one are the first operands of the
    next, the other operands stay. Keys in the function are resolved under the scope: the resolved
    key of a weight is the scopes of the calls that lead to it, then its key.

    Operands and results are those of the function. `verify_module` checks that it is there, takes
    these types, and does not reach itself.

    Invariants:

    - `there is no scope`
    - `scope "..." does not end in a dot`
    - `the results are not the first operands of the next call`
    """

    callee = prop_def(FlatSymbolRefAttrConstr)
    scopes = prop_def(ArrayAttr[StringAttr])
    arguments = var_operand_def()
    outputs = var_result_def()

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$callee `(` $arguments `)` attr-dict `:` functional-type($arguments, $outputs)"
    )

    def __init__(
        self,
        callee: str,
        arguments: Sequence[Value],
        result_types: Sequence[Attribute],
        *,
        scopes: Sequence[str] = ("",),
    ) -> None:
        super().__init__(
            operands=[arguments],
            properties={
                "callee": SymbolRefAttr(callee),
                "scopes": ArrayAttr([StringAttr(scope) for scope in scopes]),
            },
            result_types=[result_types],
        )

    @property
    def scope_names(self) -> tuple[str, ...]:
        """The scopes in order of execution."""
        return tuple(scope.data for scope in self.scopes.data)

    def check(self) -> None:
        require(len(self.scopes) > 0, "there is no scope")
        for scope in self.scope_names:
            require(scope == "" or scope.endswith("."), f'scope "{scope}" does not end in a dot')
        if len(self.scopes) > 1:
            handed_on = tuple(self.arguments.types)[: len(self.outputs)]
            require(
                handed_on == tuple(self.outputs.types),
                "the results are not the first operands of the next call",
            )


class Gather(GraphOp):
    """`result[n, c] = table[indices[n], c]`: embedding lookup, the last position.

    `table` is `T[V, C]`, `indices` `i32[N]`, the result `T[N, C]`.

    Invariants:

    - `table has rank 2, not R`
    - `indices has rank 1, not R`
    - `result is [N, C], not [...]`
    - `indices holds i32, not ...`
    - `result holds T, not ...`
    """

    table = operand_def(TensorType)
    indices = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$table `,` $indices attr-dict `:` type($table) `,` type($indices) `->` type($result)"
    )

    def __init__(self, table: Value, indices: Value) -> None:
        shape = shape_rules.gather(shape_of(table), shape_of(indices))
        super().__init__(operands=[table, indices], result_types=[like(table, shape)])

    def check(self) -> None:
        shape = shape_rules.gather(shape_of(self.table), shape_of(self.indices))
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_element("indices", self.indices, I32)
        require_element("result", self.result, storage_of(self.table))


class CacheUpdate(GraphOp):
    """`result = cache` but `result[positions[r], c] = rows[r, c]`, in place.

    The result is the memory of the cache.

    `cache` and the result are `T[L, C]`, `rows` `T[R, C]`, `positions` `i32[R]`.

    Invariants:

    - `cache has rank 2, not R`, `rows has rank 2, not R`
    - `rows is [R, C], not [...]`
    - `positions is [R], not [...]`
    - `R rows do not fit a cache of L`
    - `result is [L, C], not [...]`
    - `positions holds i32, not ...`
    - `rows holds T, not ...`, `result holds T, not ...`
    """

    cache = operand_def(TensorType)
    rows = operand_def(TensorType)
    positions = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$cache `,` $rows `at` $positions attr-dict "
        "`:` type($cache) `,` type($rows) `,` type($positions) `->` type($result)"
    )

    def __init__(self, cache: Value, rows: Value, positions: Value) -> None:
        shape_rules.cache_update(shape_of(cache), shape_of(rows), shape_of(positions))
        super().__init__(operands=[cache, rows, positions], result_types=[cache.type])

    def check(self) -> None:
        shape = shape_rules.cache_update(
            shape_of(self.cache), shape_of(self.rows), shape_of(self.positions)
        )
        shape_rules.require_shape("result", shape_of(self.result), shape)
        require_element("positions", self.positions, I32)
        require_element("rows", self.rows, storage_of(self.cache))
        require_element("result", self.result, storage_of(self.cache))
