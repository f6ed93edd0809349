"""The `gdma` dialect: data movement between global and local memory, in a kernel.

The GDMA engine is one in-order queue that serves loads and stores one after the other, beside the
compute engine. Its ops move a tile between a two-dimensional view of global memory (`!gdma.global`,
a kernel argument) and local memory (`!bdc.local`). `[%row, %col]` is the position of the tile's
first element in the view, in elements.

A tile that reaches across the last row or column of the view is cut there; where a view stacks
several matrices, `upto %limit` cuts it at row `%limit`. Nothing is padded: later ops work on the
rows and columns that are left.

Two attributes are added by passes. `offsets` (from `allocate-local-memory`) is the ring of local
byte addresses that the result takes in turn, one for each execution. `waits` (from `insert-waits`)
has one entry for each execution of the op: the id of the compute command that must have finished
before, 0 for none.
"""

from __future__ import annotations

from xdsl.dialects.builtin import I32, DenseArrayBase, IndexType
from xdsl.ir import Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from tilewright.dialects.element_types import I32 as I32_ELEMENT
from tilewright.dialects.memory_types import GlobalType, LocalType


def _verify_move(op: Operation, view: GlobalType, tile: LocalType) -> None:
    if view.element_type != tile.element_type:
        raise VerifyException(
            f"{op.name} does not convert: the view holds {view.element.name}, "
            f"the tile {tile.element.name}"
        )
    if tile.cols > view.cols:
        raise VerifyException(
            f"{op.name}: a tile of {tile.cols} columns is wider than its view of {view.cols}"
        )


def _verify_indices(op: Operation, indices: GlobalType) -> None:
    if indices.element != I32_ELEMENT or indices.rows != 1:
        raise VerifyException(f"{op.name}: row indices are one row of i32, not {indices}")


@irdl_op_definition
class LoadOp(IRDLOperation):
    """Load a tile from global memory.

    ```mlir
    %t = gdma.load %w[%n, %zero] : !gdma.global<13696x4096xi8> -> !bdc.local<384x4096xi8>
    ```

    With a replicated result, one row is copied to every lane.

    Invariants:

    - `gdma.load does not convert: the view holds T, the tile U`
    - `gdma.load: a tile of C columns is wider than its view of D`
    """

    name = "gdma.load"

    source = operand_def(GlobalType)
    row = operand_def(IndexType)
    col = operand_def(IndexType)
    limit = opt_operand_def(IndexType)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$source `[` $row `,` $col `]` (`upto` $limit^)? attr-dict "
        "`:` type($source) `->` type($result)"
    )

    def __init__(
        self,
        source: SSAValue,
        row: SSAValue,
        col: SSAValue,
        result_type: LocalType,
        limit: SSAValue | None = None,
    ) -> None:
        super().__init__(operands=[source, row, col, limit], result_types=[result_type])

    def verify_(self) -> None:
        assert isinstance(self.source.type, GlobalType)
        assert isinstance(self.result.type, LocalType)
        _verify_move(self, self.source.type, self.result.type)


@irdl_op_definition
class StoreOp(IRDLOperation):
    """Store a tile to global memory.

    ```mlir
    gdma.store %t, %y[%m, %n] : !bdc.local<64x256xf16>, !gdma.global<512x13696xf16>
    ```

    Invariants:

    - `gdma.store does not convert: the view holds T, the tile U`
    - `gdma.store: a tile of C columns is wider than its view of D`
    - `gdma.store takes a tile over the lanes, not a replicated row`
    """

    name = "gdma.store"

    tile = operand_def(LocalType)
    target = operand_def(GlobalType)
    row = operand_def(IndexType)
    col = operand_def(IndexType)
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$tile `,` $target `[` $row `,` $col `]` attr-dict `:` type($tile) `,` type($target)"
    )

    def __init__(self, tile: SSAValue, target: SSAValue, row: SSAValue, col: SSAValue) -> None:
        super().__init__(operands=[tile, target, row, col])

    def verify_(self) -> None:
        assert isinstance(self.tile.type, LocalType)
        assert isinstance(self.target.type, GlobalType)
        _verify_move(self, self.target.type, self.tile.type)
        if self.tile.type.replicated:
            raise VerifyException("gdma.store takes a tile over the lanes, not a replicated row")


@irdl_op_definition
class GatherOp(IRDLOperation):
    """Load the rows that an index vector names: `result[i, :] = source[indices[0, at + i], col:]`.

    ```mlir
    %t = gdma.gather %table[%zero], %ids[%i] :
      !gdma.global<65024x4096xf16>, !gdma.global<1x512xi32> -> !bdc.local<64x4096xf16>
    ```

    Invariants:

    - `gdma.gather does not convert: the view holds T, the tile U`
    - `gdma.gather: a tile of C columns is wider than its view of D`
    - `gdma.gather: row indices are one row of i32, not ...`
    """

    name = "gdma.gather"

    source = operand_def(GlobalType)
    col = operand_def(IndexType)
    indices = operand_def(GlobalType)
    at = operand_def(IndexType)
    result = result_def(LocalType)
    offsets = opt_prop_def(DenseArrayBase.constr(I32))
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$source `[` $col `]` `,` $indices `[` $at `]` attr-dict "
        "`:` type($source) `,` type($indices) `->` type($result)"
    )

    def __init__(
        self,
        source: SSAValue,
        col: SSAValue,
        indices: SSAValue,
        at: SSAValue,
        result_type: LocalType,
    ) -> None:
        super().__init__(operands=[source, col, indices, at], result_types=[result_type])

    def verify_(self) -> None:
        assert isinstance(self.source.type, GlobalType)
        assert isinstance(self.indices.type, GlobalType)
        assert isinstance(self.result.type, LocalType)
        _verify_move(self, self.source.type, self.result.type)
        _verify_indices(self, self.indices.type)


@irdl_op_definition
class ScatterOp(IRDLOperation):
    """Store rows where an index vector says: `target[indices[0, at + i], col:] = tile[i, :]`.

    ```mlir
    gdma.scatter %t, %cache[%zero], %positions[%i] :
      !bdc.local<64x256xf16>, !gdma.global<512x256xf16>, !gdma.global<1x512xi32>
    ```

    Invariants:

    - `gdma.scatter does not convert: the view holds T, the tile U`
    - `gdma.scatter: a tile of C columns is wider than its view of D`
    - `gdma.scatter: row indices are one row of i32, not ...`
    """

    name = "gdma.scatter"

    tile = operand_def(LocalType)
    target = operand_def(GlobalType)
    col = operand_def(IndexType)
    indices = operand_def(GlobalType)
    at = operand_def(IndexType)
    waits = opt_prop_def(DenseArrayBase.constr(I32))

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = (
        "$tile `,` $target `[` $col `]` `,` $indices `[` $at `]` attr-dict "
        "`:` type($tile) `,` type($target) `,` type($indices)"
    )

    def __init__(
        self, tile: SSAValue, target: SSAValue, col: SSAValue, indices: SSAValue, at: SSAValue
    ) -> None:
        super().__init__(operands=[tile, target, col, indices, at])

    def verify_(self) -> None:
        assert isinstance(self.tile.type, LocalType)
        assert isinstance(self.target.type, GlobalType)
        assert isinstance(self.indices.type, GlobalType)
        _verify_move(self, self.target.type, self.tile.type)
        _verify_indices(self, self.indices.type)


Gdma = Dialect("gdma", [LoadOp, StoreOp, GatherOp, ScatterOp], [GlobalType])
