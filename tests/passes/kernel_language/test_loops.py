"""Loops: tiles that are carried, local buffers, loops of one and of no iteration."""

from __future__ import annotations

from typing import Any

import pytest
from tests.passes.kernel_language.ops import copy_op, product_op, row_sum_op, softmax_op, traced
from xdsl.dialects import scf

from tilewright.passes import kernel_language as tk

X = ((70, 1000), tk.f16)
WIDTH = 128


def loops_of(kernel: tk.Kernel, *shape: int) -> list[scf.ForOp]:
    """The loops of the traced kernel, before any pass."""
    return [op for op in traced(kernel, (shape, tk.f16)).walk() if isinstance(op, scf.ForOp)]


def test_carried_tiles() -> None:
    """A softmax over columns in pieces: the maximum and the sum run along."""

    @tk.kernel(softmax_op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        rows = chip.lanes
        for row in tk.range(0, x.rows, rows):
            lines = slice(row, row + rows)
            first = x[lines, 0:WIDTH].load()
            largest = tk.max(first)
            total = tk.sum(tk.exp(first - largest))
            loop = tk.range(WIDTH, x.cols, WIDTH, carry=(largest, total))
            for col in loop:
                before, sums = loop.values
                tile = x[lines, col : col + WIDTH].load()
                now = tk.maximum(before, tk.max(tile))
                added = tk.sum(tk.exp(tile - now))
                loop.carry(now, sums * tk.exp(before - now) + added)
            largest, total = loop.values
            share = tk.reciprocal(total)
            for col in tk.range(0, x.cols, WIDTH):
                tile = x[lines, col : col + WIDTH].load()
                y[lines, col : col + WIDTH] = tk.cast(tk.exp(tile - largest) * share, y.dtype)

    assert len(tk.check(softmax_op, X)) == 9


def test_local_buffers_are_carried() -> None:
    @tk.kernel(row_sum_op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        rows = chip.lanes
        untouched = tk.zeros(rows, 1)
        for row in tk.range(0, x.rows, rows):
            total = tk.zeros(rows, 1)
            for col in tk.range(0, x.cols, WIDTH):
                total[:] = total + tk.sum(x[row : row + rows, col : col + WIDTH].load())
            y[row : row + rows, :] = tk.cast(total + untouched, y.dtype)

    tk.check(row_sum_op, X)
    outer, inner = sorted(loops_of(kernel, 70, 1000), key=lambda loop: len(loop.iter_args))
    assert len(outer.iter_args) == 0
    assert len(inner.iter_args) == 1


def test_products_are_accumulated_in_place() -> None:
    @tk.kernel(product_op)
    def kernel(op: Any, x: tk.Tensor, weight: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        rows = chip.lanes
        for row in tk.range(0, x.rows, rows):
            left = x[row : row + rows, :WIDTH].load()
            sums = tk.local(rows, weight.rows)
            sums[:, :] = tk.dot(left, weight[:, :WIDTH].load(), transpose_right=True)
            for k in tk.range(WIDTH, x.cols, WIDTH):
                left = x[row : row + rows, k : k + WIDTH].load()
                right = weight[:, k : k + WIDTH].load()
                tk.accumulate(sums, left, right, transpose_right=True)
            y[row : row + rows, :] = tk.cast(sums, y.dtype)

    tk.check(product_op, X, ((50, 1000), tk.f16))


@pytest.mark.parametrize("rows", [1, 64, 65])
def test_loops_of_one_iteration(rows: int) -> None:
    @tk.kernel(copy_op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        step = chip.lanes
        for never in tk.range(5, 5, 1):
            y[never : never + 1, :] = x[never : never + 1, :].load()
        for row in tk.range(0, x.rows, step):
            y[row : row + step, :] = x[row : row + step, :].load()

    assert len(loops_of(kernel, rows, 40)) == (rows > 64)
    tk.check(copy_op, ((rows, 40), tk.f16), remainders=False)


def test_stacked_matrices_end_where_they_end() -> None:
    """Tiles of 64 rows of matrices of 70: the second tile of each has 6 rows."""

    @tk.kernel(copy_op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        for number in tk.range(0, 3, 1):
            source, target = x.matrix(number, 70), y.matrix(number, 70)
            for row in tk.range(0, 70, 64):
                target[row : row + 64, :] = source[row : row + 64, :].load()

    assert len(loops_of(kernel, 3, 70, 40)) == 2
    tk.check(copy_op, ((3, 70, 40), tk.f16), remainders=False)


def test_index_arithmetic() -> None:
    """Rows in the other order of blocks, by division and remainder of one index."""

    @tk.kernel(copy_op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        for block in tk.range(0, 6, 1):
            row, col = (block // 2) * 10, (block % 2) * 20
            assert (3 * (row + 1) - row * 3).is_constant
            y[row : row + 10, col : col + 20] = x[row : row + 10, col : col + 20].load()

    assert len(loops_of(kernel, 30, 40)) == 1
    tk.check(copy_op, ((30, 40), tk.f16), remainders=False)
