"""Every function of tiles computes what the op of the same name means, and rounds once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.passes.kernel_language.ops import pick_op, wide

from tilewright.dialects import tpu
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import composite
from tilewright.passes import kernel_language as tk

X, Y = ((70, 60), tk.f16), ((70, 60), tk.bf16)
COLUMN, ROW = ((70, 1), tk.f32), ((60,), tk.f16)

Reference = Callable[..., Any]
Compute = Callable[..., tk.Tile]

ONE: dict[str, tuple[Reference, Compute]] = {
    "exp": (tpu.ExpOp, tk.exp),
    "sigmoid": (tpu.SigmoidOp, tk.sigmoid),
    "tanh": (tpu.TanhOp, tk.tanh),
    "erf": (tpu.ErfOp, tk.erf),
    "silu": (tpu.SiLUOp, tk.silu),
    "gelu": (tpu.GELUOp, tk.gelu),
    "gelu_tanh": (lambda x: tpu.GELUOp(x, "tanh"), lambda x: tk.gelu(x, "tanh")),
    "relu": (tpu.ReluOp, tk.relu),
    "absolute": (tpu.AbsOp, tk.absolute),
    "negative": (tpu.NegOp, lambda x: -x),
    "root": (lambda x: tpu.SqrtOp(tpu.AbsOp(x).result), lambda x: tk.sqrt(tk.absolute(x))),
    "inverse": (tpu.ReciprocalOp, tk.reciprocal),
    "one_over": (tpu.ReciprocalOp, lambda x: 1 / x),
    "two_minus": (
        lambda x: tpu.AddConstOp(tpu.NegOp(x).result, 2.0),
        lambda x: 2 - x,
    ),
    "plus": (lambda x: tpu.AddConstOp(x, 1.5), lambda x: 1.5 + x),
    "minus": (lambda x: tpu.AddConstOp(x, -1.5), lambda x: x - 1.5),
    "times": (lambda x: tpu.MulConstOp(x, 3.0), lambda x: 3 * x),
    "quarter": (lambda x: tpu.MulConstOp(x, 0.25), lambda x: x / 4),
    "cast": (lambda x: tpu.CastOp(x, tk.f32), lambda x: x.tile),
}


def elementwise(compute: Compute) -> Callable[..., None]:
    """A kernel that applies `compute` to whole rows."""

    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        rows = tk.fit_rows(x, y, chip=chip)
        for row in tk.range(0, x.rows, rows):
            tile = x[row : row + rows, :].load()
            y[row : row + rows, :] = tk.cast(compute(tile), y.dtype)

    return kernel


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_tile(name: str) -> None:
    reference, compute = ONE[name]

    @composite(f"test.{name}", tpu.TpuOp)
    def op(x: Value) -> Value:
        return reference(wide(x)).result

    tk.kernel(op)(elementwise(compute))
    (checked,) = tk.check(op, X, chips=["bm1684x"], remainders=False)
    assert checked.worst <= 1


TWO: dict[str, tuple[Reference, Compute, Any]] = {
    "add": (tpu.AddOp, lambda a, b: a + b, Y),
    "subtract": (tpu.SubOp, lambda a, b: a - b, Y),
    "multiply": (tpu.MulOp, lambda a, b: a * b, Y),
    "divide": (tpu.DivOp, lambda a, b: a / b, Y),
    "maximum": (tpu.MaxOp, tk.maximum, Y),
    "minimum": (tpu.MinOp, tk.minimum, Y),
    "column": (tpu.SubOp, lambda a, b: a - b, COLUMN),
    "column_first": (lambda a, b: tpu.AddOp(a, b), lambda a, b: b + a, COLUMN),
    "column_less": (
        lambda a, b: tpu.AddOp(tpu.NegOp(a).result, b),
        lambda a, b: b - a,
        COLUMN,
    ),
    "column_over": (
        lambda a, b: tpu.MulOp(tpu.ReciprocalOp(a).result, b),
        lambda a, b: b / a,
        COLUMN,
    ),
    "row": (tpu.MulOp, lambda a, b: a * b, ROW),
    "row_first": (tpu.MulOp, lambda a, b: b * a, ROW),
}


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_tiles(name: str) -> None:
    reference, compute, other = TWO[name]

    @composite(f"test.{name}", tpu.TpuOp)
    def op(x: Value, z: Value) -> Value:
        return reference(wide(x), wide(z)).result

    @tk.kernel(op)
    def kernel(op: Any, x: tk.Tensor, z: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        rows = tk.fit_rows(x, y, chip=chip)
        for row in tk.range(0, x.rows, rows):
            tile = x[row : row + rows, :].load()
            right = z.load(replicated=True) if z.rows == 1 else z[row : row + rows, :].load()
            y[row : row + rows, :] = tk.cast(compute(tile, right), y.dtype)

    assert kernel.name == "kernel"
    tk.check(op, X, other, chips=["bm1684x"], remainders=False)


REDUCTIONS: dict[str, tuple[str, Compute]] = {
    "sum": ("sum", tk.sum),
    "max": ("max", tk.max),
    "min": ("min", tk.min),
    "mean": ("mean", tk.mean),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    mode, compute = REDUCTIONS[name]

    @composite(f"test.{name}", tpu.TpuOp)
    def op(x: Value) -> Value:
        return tpu.ReduceOp(wide(x), mode).result

    tk.kernel(op)(elementwise(compute))
    tk.check(op, X, chips=["bm1684x"], remainders=False)


def test_views_of_columns_and_transposition() -> None:
    """The columns of a tile in the other order, by way of their transposes."""

    @composite("test.Swap", tpu.TpuOp)
    def op(x: Value) -> Value:
        rows, cols = 70, 60
        halves = [tpu.SliceOp(x, [0, at], [rows, cols // 2]).result for at in (cols // 2, 0)]
        return tpu.ConcatOp(halves, 1).result

    @tk.kernel(op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        tile, half = x.load(), x.cols // 2
        for first in (0, half):
            part = tk.transpose(tk.transpose(tile[:, first : first + half]))
            y[:, half - first : half - first + half] = part

    assert kernel.op_class is op
    tk.check(op, X, chips=["bm1684x"], remainders=False)


def test_rotation() -> None:
    @composite("test.Turn", tpu.TpuOp)
    def op(x: Value, cos: Value, sin: Value) -> Value:
        made = tpu.RopeOp(x, cos, sin, num_heads=1, rotary_dim=60, interleaved=True)
        return made.result

    @tk.kernel(op)
    def kernel(
        op: Any, x: tk.Tensor, cos: tk.Tensor, sin: tk.Tensor, y: tk.Tensor, chip: Any
    ) -> None:
        t = x.load()
        turned = tk.rotate(t, 60, interleaved=True)
        y.store(tk.cast(t * cos.load() + turned * sin.load(), y.dtype))

    table = ((70, 60), tk.f32)
    assert kernel.place.startswith("tests/") or "test_tiles.py" in kernel.place
    tk.check(op, X, table, table, chips=["bm1684x"], remainders=False)


def test_one_rounding_at_the_cast() -> None:
    """`cast(f(x))` is one command, and the f32 value that something else reads is kept."""

    @composite("test.Twice", tpu.TpuOp)
    def op(x: Value) -> Value:
        powers = tpu.ExpOp(wide(x)).result
        rounded = tpu.CastOp(powers, tk.f16).result
        return tpu.MulOp(wide(rounded), powers).result

    @tk.kernel(op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        powers = tk.exp(x.load())
        y.store(tk.cast(tk.cast(powers, tk.f16) * powers, y.dtype))

    built = tk.build(op, X)
    # exp, its rounding, and the product that rounds.
    assert len(built.kernel.bdc) == 3
    assert kernel.body is not None
    tk.check(op, X, chips=["bm1684x"], remainders=False)


def test_gather_and_scatter() -> None:
    @tk.kernel(pick_op)
    def kernel(op: Any, table: tk.Tensor, rows: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        step = chip.lanes
        for row in tk.range(0, y.rows, step):
            y[row : row + step, :] = table[rows[row : row + step]].load()

    ids = np.array([3, 1, 1, 0, 68, 69, 5] * 11, np.int32)
    assert kernel.op_class is pick_op
    table = np.arange(70 * 40, dtype=np.float32).reshape(70, 40)
    tk.check(pick_op, table, ids, chips=["bm1684x"], remainders=False)

    @composite("test.Reverse", tpu.TpuOp)
    def reverse(x: Value, rows: Value) -> Value:
        return tpu.GatherOp(x, rows).result

    @tk.kernel(reverse)
    def scatter(op: Any, x: tk.Tensor, rows: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        step = chip.lanes
        for row in tk.range(0, x.rows, step):
            y[rows[row : row + step], :] = x[row : row + step, :].load()

    assert scatter.op_class is reverse
    back = np.arange(69, -1, -1, dtype=np.int32)
    tk.check(reverse, X, back, chips=["bm1684x"], remainders=False)
