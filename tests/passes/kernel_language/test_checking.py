"""`tk.check` finds planted faults of every kind; `fit_*` choose sizes that fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.passes.kernel_language.ops import copy_op, gate_op, traced
from xdsl.dialects import arith, scf

from tilewright.backends.chip import CHIP_NAMES
from tilewright.backends.simulator.timing import time_kernel
from tilewright.dialects import gdma
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.errors import AccuracyError, FitError, OptionError, SimulationError
from tilewright.passes import kernel_language as tk
from tilewright.passes.kernel_language import checking

X = ((70, 96), F16)


def gate(op: Any, x: tk.Tensor, z: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
    """The right kernel."""
    rows, cols = tk.fit_tile(x, z, y, chip=chip)
    for row in tk.range(0, x.rows, rows):
        for col in tk.range(0, x.cols, cols):
            part = (slice(row, row + rows), slice(col, col + cols))
            y[part] = tk.cast(x[part].load() * tk.silu(z[part].load()), y.dtype)


def test_a_right_kernel() -> None:
    tk.kernel(gate_op)(gate)
    checked = tk.check(gate_op, X, X)
    assert [each.chip for each in checked] == [*CHIP_NAMES] * 3
    assert {each.shapes for each in checked} == {((rows, 96), (rows, 96)) for rows in (70, 69, 107)}
    assert all(0 < each.worst <= 1 and each.cycles > 0 for each in checked)
    assert "bm1684x" in str(checked[0])
    assert "70x96, 70x96" in str(checked[0])


def test_a_wrong_number() -> None:
    @tk.kernel(gate_op)
    def kernel(op: Any, x: tk.Tensor, z: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        for row in tk.range(0, x.rows, chip.lanes):
            part = slice(row, row + chip.lanes)
            y[part, :] = tk.cast(x[part, :].load() * tk.sigmoid(z[part, :].load()), y.dtype)

    assert kernel.op_class is gate_op
    with pytest.raises(AccuracyError, match="elements are wrong") as caught:
        tk.check(gate_op, X, X)
    assert "test.Gate of f16[70, 96], f16[70, 96] on bm1684x" in str(caught.value.where)
    assert "within" in str(caught.value.why)


def test_a_number_that_is_wrong_only_with_a_remainder() -> None:
    """The mean of columns is right only where no tile is cut: here rows are folded away."""

    @tk.kernel(copy_op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        whole = x.rows - x.rows % 64
        for row in tk.range(0, whole, 64):
            y[row : row + 64, :] = x[row : row + 64, :].load()
        if x.rows % 64:
            y[whole : x.rows, :] = tk.cast(x[whole : x.rows, :].load() + 1, y.dtype)

    assert kernel.op_class is copy_op
    tk.check(copy_op, ((64, 96), F16), remainders=False)
    with pytest.raises(AccuracyError):
        tk.check(copy_op, ((64, 96), F16))


def test_a_wait_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    tk.kernel(gate_op)(gate)

    right = checking.build

    def forgetful(make: Any, *kinds: Any, chip: str) -> checking.Built:
        built = right(make, *kinds, chip=chip)
        records = built.kernel.bdc.copy()
        records["wait"] = 0
        return replace(built, kernel=replace(built.kernel, bdc=records))

    monkeypatch.setattr(checking, "build", forgetful)
    with pytest.raises(SimulationError):
        tk.check(gate_op, X, X, chips=["bm1684x"])


def test_the_kernel_that_is_meant() -> None:
    """Of two kernels of one op the one that is given, and afterwards the attached one again."""

    @tk.kernel(copy_op)
    def wide(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        y.store(x.load())

    @tk.kernel(copy_op)
    def narrow(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        for col in tk.range(0, x.cols, 32):
            y[:, col : col + 32] = x[:, col : col + 32].load()

    assert narrow.op_class is wide.op_class
    assert [len(tk.build(each, X).kernel.gdma) for each in (wide, narrow, copy_op)] == [2, 6, 6]
    tk.check(wide, X, chips=["bm1688"])
    assert "gdma.load %x[" in str(tk.trace(wide, X))


def test_a_kernel_that_is_not_pipelined() -> None:
    tk.kernel(gate_op)(gate)
    rows = ((1 << 16, 96), F16)
    overlapped, in_turns = (tk.build(gate_op, rows, rows, pipelined=flag) for flag in (True, False))
    assert overlapped.cycles < in_turns.cycles
    time = time_kernel(in_turns.kernel, in_turns.chip)
    assert in_turns.cycles == time.gdma.busy + time.bdc.busy


def test_operands() -> None:
    tk.kernel(gate_op)(gate)
    with pytest.raises(OptionError, match="needs operands"):
        tk.check(gate_op)
    array = np.arange(70 * 96, dtype=np.float32).reshape(70, 96) / 1000
    (checked,) = tk.check(gate_op, array, array, chips=["bm1688"], remainders=False)
    assert checked.shapes == ((70, 96), (70, 96))


def test_rows_that_fit() -> None:
    """Whole rows where they fit; a wide row is an error for `fit_rows`, pieces for `fit_tile`."""
    sizes: list[tuple[int, int]] = []

    @tk.kernel(gate_op)
    def kernel(op: Any, x: tk.Tensor, z: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        rows, cols = tk.fit_tile(x, z, y, chip=chip)
        sizes.append((rows, cols))
        if cols < x.cols:
            with pytest.raises(FitError, match="does not fit local memory") as caught:
                tk.fit_rows(x, z, y, chip=chip, replicated=[z])
            assert "test_checking.py" in str(caught.value.where)
        gate(op, x, z, y, chip)

    assert kernel.op_class is gate_op
    for cols in (96, 300_000):
        traced(kernel, ((70, cols), F16), ((70, cols), F16))
    assert sizes[0] == (70, 96)
    assert sizes[1][1] < 300_000


def test_flat_tensors_fill_the_lanes() -> None:
    @tk.kernel(copy_op)
    def kernel(op: Any, x: tk.Tensor, y: tk.Tensor, chip: Any) -> None:
        tk.flatten(x, y, chip=chip)
        assert x.rows == chip.lanes
        y.store(x.load())

    built = traced(kernel, ((1, 64 * 64), F32))
    (load,) = (op for op in built.walk() if isinstance(op, gdma.LoadOp))
    assert not any(isinstance(op, scf.ForOp | arith.AddiOp) for op in built.walk())
    assert (load.result.type.rows, load.result.type.cols) == (64, 64)
    tk.check(copy_op, ((1, 64 * 64), F32), remainders=False, chips=["bm1684x"])
