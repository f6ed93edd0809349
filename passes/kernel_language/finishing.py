"""What happens to a traced kernel before the compiler's passes get it: casts are folded, and its
stores must cover its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from xdsl.dialects import arith, func, scf
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import Rewriter

from tilewright.dialects import bdc, gdma
from tilewright.dialects.bdc import UnaryFunction
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import IRError
from tilewright.dialects.memory_types import GlobalType, LocalType
from tilewright.dialects.scopes import where_of
from tilewright.passes.kernels.expansion import INDEX_OPS, evaluate
from tilewright.passes.kernels.index_arithmetic import known

_ROUNDING = (bdc.UnaryOp, bdc.BinaryOp, bdc.ScalarOp, bdc.MmOp, bdc.ReduceOp, bdc.RotateOp)
"""Ops that compute in f32 and round once to the type of their result."""


def fuse_casts(kernel: func.FuncOp) -> None:
    """`cast(f(x))` as one command, where nothing else reads the f32 tile `f(x)`.

    The rounding is the same one: a command computes in f32 and rounds to the type of its result.
    """
    for op in list(kernel.walk()):
        if not isinstance(op, bdc.UnaryOp) or op.function.data != UnaryFunction.CAST:
            continue
        source, made = op.x, op.x.owner
        if (
            isinstance(made, _ROUNDING)
            and isinstance(source.type, LocalType)
            and source.type.element == F32
            and source.has_one_use()
            and made.parent_block() is op.parent_block()
        ):
            narrow = Rewriter.replace_value_with_new_type(source, op.result.type)
            Rewriter.replace_op(op, [], [narrow])


def erase_unused(kernel: func.FuncOp) -> None:
    """Erase what nothing uses: index arithmetic, and tiles that were made for nothing."""
    for op in list(kernel.walk(reverse=True)):
        made = isinstance(op, (*INDEX_OPS, arith.ConstantOp, bdc.FillOp, bdc.ViewOp))
        if made and not op.results[0].uses:
            Rewriter.erase_op(op)


def check_coverage(kernel: func.FuncOp, results: Mapping[int, str]) -> None:
    """Raise `IRError` unless the stores to each argument of `results` (number: name) write all.

    The loops are walked as they will run. Rows that a scatter names are not known, and nor is what
    it covers.
    """
    arguments = kernel.body.block.args
    written: dict[SSAValue, list[tuple[int, int, int, int]]] = {
        arguments[number]: [] for number in results
    }
    scattered = {op.target for op in kernel.walk() if isinstance(op, gdma.ScatterOp)}
    last: dict[SSAValue, Operation] = {}
    for store, row, col in _stores(kernel.body.block, {}):
        tile = store.tile.type
        assert isinstance(tile, LocalType)
        written[store.target].append((row, row + tile.rows, col, col + tile.cols))
        last[store.target] = store
    for number, name in results.items():
        argument = arguments[number]
        view = argument.type
        assert isinstance(view, GlobalType)
        if argument in scattered:
            continue
        place = where_of(last[argument]) if argument in last else None
        gap = _first_gap(view, written[argument])
        if gap is not None:
            raise IRError(
                f"the stores to {name} do not cover it: nothing writes row {gap[0]}, "
                f"column {gap[1]}",
                where=place or kernel.sym_name.data,
                why=f"{name} has {view.rows} rows and {view.cols} columns",
                hint="the loops around its stores run from 0 to its rows and columns",
            )


def _stores(block: Block, values: dict[SSAValue, int]) -> Iterator[tuple[gdma.StoreOp, int, int]]:
    """Every execution of a store with its row and column."""
    ops = [op for op in block.ops if isinstance(op, (*INDEX_OPS, scf.ForOp, gdma.StoreOp))]
    if not any(isinstance(op, scf.ForOp | gdma.StoreOp) for op in ops):
        return

    def value(operand: SSAValue) -> int:
        constant = known(operand)
        return values[operand] if constant is None else constant

    for op in ops:
        if isinstance(op, gdma.StoreOp):
            yield op, value(op.row), value(op.col)
        elif isinstance(op, scf.ForOp):
            for index in range(value(op.lb), value(op.ub), value(op.step)):
                values[op.body.block.args[0]] = index
                yield from _stores(op.body.block, values)
        else:
            left, right = op.operands
            values[op.results[0]] = evaluate(op, value(left), value(right))


def _first_gap(
    view: GlobalType, boxes: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int] | None:
    """The first row and column that no box (rows, then columns, from and to) holds."""
    cut = [
        (first, min(last, view.rows), left, min(right, view.cols))
        for first, last, left, right in boxes
    ]
    rows = sorted({0, view.rows, *(edge for box in cut for edge in box[:2])})
    cols = sorted({0, view.cols, *(edge for box in cut for edge in box[2:])})
    row_at = {edge: number for number, edge in enumerate(rows)}
    col_at = {edge: number for number, edge in enumerate(cols)}
    covered = np.zeros((len(rows) - 1, len(cols) - 1), dtype=np.bool_)
    for first, last, left, right in cut:
        covered[row_at[first] : row_at[last], col_at[left] : col_at[right]] = True
    if bool(covered.all()):
        return None
    row, col = (int(part) for part in np.argwhere(~covered)[0])
    return rows[row], cols[col]
