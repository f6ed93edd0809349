"""What is wrong in a kernel is said at its line, with what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from tests.passes.kernel_language.ops import copy_op, linear_op, quantized_op, row_sum_op, traced
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import FileLineColLoc, NameLoc

from tilewright.dialects.errors import FitError, IRError, TilewrightError
from tilewright.passes import kernel_language as tk


def build(body: Callable[..., None]) -> func.FuncOp:
    """The kernel of `copy_op` with that body, traced."""
    return traced(tk.kernel(copy_op)(body), ((512, 256), tk.f16))


def half(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    y[0:64, :] = x[0:64, :].load()  # wrong: not all rows


def gap_in_columns(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    for row in tk.range(0, x.rows, 64):
        y[row : row + 64, 0:128] = x[row : row + 64, 0:128].load()  # wrong: not all columns


def not_rounded(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    y[0:64, :] = tk.exp(x[0:64, :].load())  # wrong: f32 into f16


def shapes(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    a, b = x[0:64, 0:128].load(), x[0:64, 0:64].load()
    y[0:64, 0:128] = a + b  # wrong: neither shape


def row_over_lanes(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    y[0:64, :] = x[0:64, :].load() * x[0:1, :].load()  # wrong: a row on one lane


def outside(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    tiles: list[tk.Tile] = []
    for row in tk.range(0, x.rows, 64):
        tiles.append(x[row : row + 64, :].load())
    y[0:64, :] = tiles[0]  # wrong: made in the loop


def index_outside(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    (row,) = list(tk.range(0, x.rows, 64))
    y[row : row + 64, :] = x[row : row + 64, :].load()  # wrong: the loop's index


def too_large(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    tk.zeros(100_000, 256)  # wrong: larger than local memory


def depths(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    tk.dot(x[0:64, :].load(), x[0:64, :].load())  # wrong: 256 and 64


def mixed_dot(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    a = x[0:64, :].load()
    tk.dot(a, tk.exp(a), transpose_right=True)  # wrong: f16 and f32


def broken(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    for row in tk.range(0, x.rows, 64):  # wrong: left by break
        y[row : row + 64, :] = x[row : row + 64, :].load()
        break


def not_carried(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    loop = tk.range(0, x.rows, 64, carry=(x[0:64, :].load(),))  # wrong: nothing is carried
    for row in loop:
        y[row : row + 64, :] = loop.values[0]


def other_carried(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    loop = tk.range(0, x.rows, 64, carry=(x[0:64, :].load(),))
    for _ in loop:
        loop.carry(tk.exp(loop.values[0]))  # wrong: another type


def branch(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    for row in tk.range(0, x.rows, 64):
        if row > 0:  # wrong: not known
            y[row : row + 64, :] = x[row : row + 64, :].load()


def unknown_size(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    for row in tk.range(0, x.rows, 64):
        x[0:row, :].load()  # wrong: as many rows as the index says


def unassigned(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    y[0:64, :] = tk.cast(tk.local(64, 256) + 1, y.dtype)  # wrong: nothing is in it


def assigned_in_loop(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    total = tk.local(64, 1)
    for row in tk.range(0, x.rows, 64):
        total[:] = tk.sum(x[row : row + 64, :].load())  # wrong: not outside first


def loads_result(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    y[0:64, :].load()  # wrong: a result


def stores_operand(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    x[0:64, :] = x[0:64, :].load()  # wrong: an operand


def window_too_small(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    y[0:32, :] = x[0:64, :].load()  # wrong: 64 rows into 32


def viewed_late(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    x[0:64, :].load()
    x.reshape(256, 512)  # wrong: in use


def overwritten(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    a = x[0:64, :].load()
    sums = tk.dot(a, a, transpose_right=True)
    tk.accumulate(sums, a, a, transpose_right=True)
    _ = sums + 1  # wrong: the sums before


CASES: list[tuple[Callable[..., None], str, str]] = [
    (half, "the stores to y do not cover it: nothing writes row 64, column 0", "run from 0"),
    (gap_in_columns, "do not cover it: nothing writes row 0, column 128", "run from 0"),
    (not_rounded, "a tile of f32 is stored to a tensor of f16", "tk.cast(tile, f16)"),
    (shapes, "f16[64, 128] does not meet f16[64, 64]", "replicated=True"),
    (row_over_lanes, "f16[64, 256] does not meet f16[1, 256]", "load(replicated=True)"),
    (outside, "a tile of f16[64, 256] is used outside of the loop", "carry it"),
    (index_outside, "a loop index is used outside of the loop", "carry it"),
    (too_large, "a tile of 100000x256 f32 exceeds local memory", "tk.fit_rows"),
    (depths, "dot of f16[64, 256] and f16[64, 256]", "transpose_right=True"),
    (mixed_dot, "dot of f16[64, 256] and f32[64, 256], transposed", "tk.cast one of them"),
    (broken, "the body of a tk.range is left by break or return", ""),
    (not_carried, "does not carry its values on", "loop.carry"),
    (other_carried, "the loop carries f16[64, 256], not f32[64, 256]", "cast it"),
    (branch, "a loop index is not known while the kernel is traced", "Python's range"),
    (unknown_size, "the number of rows of a window is not known", "x[row : row + 64, :]"),
    (unassigned, "a tk.local is read before anything is assigned to it", "tk.zeros"),
    (assigned_in_loop, "the first assignment to a tk.local is in a loop", "tk.zeros"),
    (loads_result, "a result of the op is loaded", "only stored"),
    (stores_operand, "an operand of the op is stored to", "results are stored"),
    (window_too_small, "a tile of 64x256 is stored to a window of 32x256", "the window has"),
    (viewed_late, "a tensor viewed as 512x256 is viewed as 256x512", "before the first load"),
    (overwritten, "is used after tk.accumulate has added to it", "use what tk.accumulate returns"),
]


@pytest.mark.parametrize(("body", "what", "hint"), CASES, ids=[case[0].__name__ for case in CASES])
def test_errors_say_line_and_remedy(body: Callable[..., None], what: str, hint: str) -> None:
    with pytest.raises(TilewrightError) as caught:
        build(body)
    error = caught.value
    assert what in error.what
    assert hint in (error.hint or "")
    assert isinstance(error, FitError if body is too_large else IRError)
    lines, first = inspect.getsourcelines(body)
    wrong = [first + at for at, line in enumerate(lines) if "# wrong" in line]
    if body in (half, gap_in_columns):
        wrong = [first]  # stores fail together: the kernel is named
    # A loop that does not carry is found when its body has ended.
    assert error.where is not None
    place = error.where.partition("test_errors.py:")[2]
    numbers = [int(place.split(":")[0].split(" ")[0])]
    assert numbers == wrong or body is not_carried, error


def test_codes_do_not_enter_the_matrix_unit() -> None:
    @tk.kernel(quantized_op)
    def kernel(op: Any, x: Any, codes: Any, scale: Any, bias: Any, y: Any, chip: Any) -> None:
        tk.dot(x.load(), codes.load(), transpose_right=True)

    with pytest.raises(IRError, match=r"dot of f16\[4, 64\] and i8\[8, 64\]") as caught:
        tk.trace(kernel, ((4, 64), tk.f16), ((8, 64), tk.i8), ((8, 1), tk.f16))
    assert "tk.dequant" in str(caught.value.hint)


def test_the_parameters_are_those_of_the_op() -> None:
    def body(op: Any, x: tk.Tensor, chip: Any) -> None: ...

    with pytest.raises(IRError, match="takes 3 parameters, not 4") as caught:
        tk.kernel(row_sum_op)(body)
    assert caught.value.hint == "def body(op, x, result, chip): ..."
    assert "test_errors.py" in str(caught.value.where)


def test_optional_operands_are_none() -> None:
    seen: list[object] = []

    @tk.kernel(linear_op)
    def kernel(
        op: Any, x: tk.Tensor, weight: tk.Tensor, bias: Any, y: tk.Tensor, chip: Any
    ) -> None:
        seen.append(bias)
        tk.matmul(x, weight, None, bias, y)

    assert kernel.name == "kernel"
    tk.build(linear_op, ((4, 64), tk.f16), ((8, 64), tk.f16))
    tk.build(linear_op, ((4, 64), tk.f16), ((8, 64), tk.f16), ((8,), tk.f16))
    assert seen[0] is None
    assert isinstance(seen[1], tk.Tensor)


def test_ops_carry_the_line_of_the_user() -> None:
    def body(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        for row in tk.range(0, x.rows, 64):
            tile = x[row : row + 64, :].load()
            y[row : row + 64, :] = tk.cast(tk.silu(tile), y.dtype)

    first = inspect.getsourcelines(body)[1]
    lines: set[int] = set()
    for op in build(body).body.block.walk():
        if isinstance(op, arith.ConstantOp) or op.name == "func.return" or op.name == "scf.yield":
            continue
        assert isinstance(op.location, NameLoc), op.name
        place = op.location.location
        assert op.location.desc.data == "body"
        assert isinstance(place, FileLineColLoc)
        assert place.filename.data == "test_errors.py"
        lines.add(place.line.data)
    assert lines == {first + 1, first + 2, first + 3}
