"""The kernel reference: against float64, against the machine, and with wrong allocations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.passes.lowering import KERNELS, PASSES, emitted, expected, inputs_of, run, views
from xdsl.dialects import func
from xdsl.dialects.builtin import DenseArrayBase, ModuleOp, i32
from xdsl.ir import Operation

from tilewright.backends.reference.balls import FLOAT64, MACHINE, Ball
from tilewright.backends.reference.kernels import run_kernel
from tilewright.dialects import bdc, gdma
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F16, F32, I8
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.memory_types import LocalType

Array = NDArray[Any]

STAGES = ("as built", "double-buffer", "allocate-local-memory", "insert-waits")


def at_stage(name: str, stage: str) -> func.FuncOp:
    return lowered(KERNELS[name](), STAGES.index(stage))


def lowered(kernel: func.FuncOp, passes: int) -> func.FuncOp:
    module = ModuleOp([kernel])
    for each in PASSES[:passes]:
        each.apply(make_context(), module)
    return kernel


def allocated(kernel: func.FuncOp) -> None:
    lowered(kernel, STAGES.index("allocate-local-memory"))


def arguments(name: str) -> list[Array]:
    return inputs_of(emitted(KERNELS[name]()))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", KERNELS)
def test_float64(name: str, stage: str) -> None:
    """What a kernel means, to the roundings of float64, at every stage."""
    arrays = arguments(name)
    kept = [array.copy() for array in arrays]
    results = run_kernel(at_stage(name, stage), arrays, arithmetic=FLOAT64)
    for number, exact in expected(name, arrays).items():
        ball = results[number]
        assert np.all(np.abs(ball.value - exact) <= ball.radii + 1e-12 * np.abs(exact))
        assert np.max(ball.radii) < 1e-11
    for array, before in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("stage", ["as built", "insert-waits"])
@pytest.mark.parametrize("name", KERNELS)
def test_machine(name: str, stage: str) -> None:
    """The machine's arithmetic: the exact result is in the ball, and so is the simulator's, which
    adds in another order, within both errors."""
    arrays = arguments(name)
    simulated = run(emitted(KERNELS[name]()), arrays, "early")
    results = run_kernel(at_stage(name, stage), arrays, arithmetic=MACHINE)
    for number, exact in expected(name, arrays).items():
        ball = results[number]
        slack = 1e-12 * np.abs(exact)
        assert np.all(np.abs(ball.value - exact) <= ball.radii + slack)
        wide = simulated[number].astype(np.float64)
        assert np.all(np.abs(wide - exact) <= 1.01 * ball.radii + slack)


def test_the_bound_can_fail() -> None:
    """A tenth of a radius is left by some elements of the machine's product."""
    arrays = arguments("matmul")
    results = run_kernel(at_stage("matmul", "as built"), arrays, arithmetic=MACHINE)
    exact = expected("matmul", arrays)[3]
    assert np.mean(np.abs(results[3].value - exact) > results[3].radii / 10) > 0.05


def test_operands_have_errors() -> None:
    """A ball goes through a kernel as through its op."""
    arrays = [np.asarray(array, np.float64) for array in arguments("matmul")]
    size = 1e-6
    balls = [Ball(arrays[0], size * np.abs(arrays[0])), *(Ball.exact(a) for a in arrays[1:])]
    (result,) = run_kernel(at_stage("matmul", "double-buffer"), balls, arithmetic=FLOAT64)[3:]
    law = size * np.abs(arrays[0]) @ np.abs(arrays[1]).T
    np.testing.assert_allclose(result.radius, law, rtol=1e-6)


# Wrong allocations.


def ops_of(kernel: func.FuncOp, kind: type[Operation]) -> list[Operation]:
    return [op for op in kernel.walk() if isinstance(op, kind)]


def place(op: Operation, offsets: Sequence[int]) -> None:
    op.properties["offsets"] = DenseArrayBase.from_list(i32, list(offsets))


def offsets_of(op: Operation) -> tuple[int, ...]:
    offsets = op.properties["offsets"]
    assert isinstance(offsets, DenseArrayBase)
    return tuple(int(offset) for offset in offsets.get_values())


def wrong_elements(kernel: func.FuncOp, name: str, number: int) -> float:
    arrays = arguments(name)
    ball = run_kernel(kernel, arrays, arithmetic=FLOAT64)[number]
    exact = expected(name, arrays)[number]
    return float(np.mean(~(np.abs(ball.value - exact) <= ball.radii + 1e-12 * np.abs(exact))))


def test_tiles_on_top_of_each_other() -> None:
    """The second operand of a product lies on the first: nothing is left of the first."""
    kernel = at_stage("matmul", "allocate-local-memory")
    assert wrong_elements(kernel, "matmul", 3) == 0
    loads = [op for op in ops_of(kernel, gdma.LoadOp) if len(offsets_of(op)) > 1]
    by_ring = {offsets_of(op) for op in loads}
    one, other = sorted(by_ring)[:2]
    for op in loads:
        if offsets_of(op) == other:
            place(op, one)
    assert wrong_elements(kernel, "matmul", 3) == 1


def test_a_few_bytes_of_overlap() -> None:
    """One slot of 64 bytes, on the lanes that have rows there: only what it feeds is lost."""
    kernel = at_stage("heads", "allocate-local-memory")
    assert wrong_elements(kernel, "heads", 2) == 0
    weight = ops_of(kernel, gdma.LoadOp)[0]
    # The weight has 64 rows of 128 bytes, one on each lane; the sums 32 rows, on as many lanes.
    # So its columns from 32 on are lost, in rows that every sum of those columns needs.
    (start,) = offsets_of(weight)
    for fill in ops_of(kernel, bdc.FillOp):
        place(fill, [start + 64])
    arrays = arguments("heads")
    ball = run_kernel(kernel, arrays, arithmetic=FLOAT64)[2]
    lost = np.isnan(ball.value).reshape(96, 4, 64)
    assert lost[..., 32:].all()
    assert not lost[..., :32].any()


def test_a_ring_that_is_too_short() -> None:
    """Tiles loaded ahead take the buffer of the tile that is still to be read."""
    kernel = at_stage("elementwise", "allocate-local-memory")
    loads = ops_of(kernel, gdma.LoadOp)
    assert {len(offsets_of(op)) for op in loads} == {2}
    for op in loads:
        place(op, offsets_of(op)[:1])
    assert wrong_elements(kernel, "elementwise", 1) > 0.5


def test_a_tile_that_lost_its_place() -> None:
    kernel = at_stage("elementwise", "allocate-local-memory")
    del ops_of(kernel, bdc.UnaryOp)[0].properties["offsets"]
    with pytest.raises(IRError, match=r"bdc.unary has no offsets") as info:
        run_kernel(kernel, arguments("elementwise"), arithmetic=FLOAT64)
    assert "allocate-local-memory" in str(info.value.hint)


def test_sums_in_place_destroy_what_lies_there() -> None:
    """An accumulating product writes its columns, and nothing else."""
    build = views((4, 4, F32, "read"), (4, 8, F32, "write"), (4, 4, F32, "write"))
    x, y, z = build.arguments
    tile = build.load(x, 0, 0, LocalType.of(4, 4, F32))
    sums = build.fill(0.0, LocalType.of(4, 8, F32))
    copy = build.unary(bdc.UnaryFunction.NEG, tile, LocalType.of(4, 4, F32))
    total = build.mm_accumulate(sums, 4, tile, tile, transpose_right=False)
    build.store(total, y, 0, 0)
    build.store(copy, z, 0, 0)
    kernel = build.finish("sums")
    array = np.arange(16.0).reshape(4, 4)
    nothing = [np.zeros((4, 8)), np.zeros((4, 4))]
    y_ball = run_kernel(kernel, [array, *nothing], arithmetic=FLOAT64)[1]
    np.testing.assert_array_equal(y_ball.value, np.hstack([np.zeros((4, 4)), array @ array]))
    allocated(kernel)
    after = run_kernel(kernel, [array, *nothing], arithmetic=FLOAT64)
    np.testing.assert_array_equal(after[1].value, y_ball.value)
    np.testing.assert_array_equal(after[2].value, -array)
    # The copy (16 bytes a row) at the first columns of the sums: they lose columns 0 to 3.
    (start,) = offsets_of(ops_of(kernel, bdc.FillOp)[0])
    place(ops_of(kernel, bdc.UnaryOp)[0], [start])
    lost = run_kernel(kernel, [array, *nothing], arithmetic=FLOAT64)
    assert np.isnan(lost[1].value[:, :4]).all()
    np.testing.assert_array_equal(lost[1].value[:, 4:], array @ array)
    np.testing.assert_array_equal(lost[2].value, -array)
    # At the columns that are written: the copy is lost.
    place(ops_of(kernel, bdc.UnaryOp)[0], [start + 16])
    lost = run_kernel(kernel, [array, *nothing], arithmetic=FLOAT64)
    assert np.isnan(lost[2].value).all()


def test_a_lost_integer_tile_poisons_its_product() -> None:
    build = views(
        (4, 8, I8, "read"), (4, 1, F16, "read"), (4, 8, F16, "read"), (4, 8, F16, "write")
    )
    codes, scale, other, y = build.arguments
    loaded = build.load(codes, 0, 0, LocalType.of(4, 8, I8))
    scales = build.load(scale, 0, 0, LocalType.of(4, 1, F16))
    late = build.load(other, 0, 0, LocalType.of(4, 8, F16))
    weights = build.insert(bdc.DequantOp(loaded, scales, LocalType.of(4, 8, F16))).results[0]
    total = build.binary(bdc.BinaryFunction.ADD, weights, late, LocalType.of(4, 8, F16))
    build.store(total, y, 0, 0)
    kernel = build.finish("codes")
    given = [
        np.arange(32, dtype=np.int8).reshape(4, 8),
        np.full((4, 1), 0.5, np.float16),
        np.ones((4, 8), np.float16),
        np.zeros((4, 8), np.float16),
    ]
    allocated(kernel)
    result = run_kernel(kernel, given, arithmetic=FLOAT64)[3]
    np.testing.assert_array_equal(result.value, given[0] * 0.5 + 1)
    loads = ops_of(kernel, gdma.LoadOp)
    place(loads[2], offsets_of(loads[0]))
    lost = run_kernel(kernel, given, arithmetic=FLOAT64)[3]
    assert np.isnan(lost.value).all()


# What a kernel leaves, and what it refuses.


def test_what_is_not_written_is_undefined() -> None:
    build = views((4, 4, F32, "read"), (8, 4, F32, "write"))
    x, y = build.arguments
    build.store(build.load(x, 0, 0, LocalType.of(4, 4, F32)), y, 4, 0)
    kernel = build.finish("half")
    x_ball, y_ball = run_kernel(kernel, [np.ones(16), np.zeros((2, 4, 4))], arithmetic=FLOAT64)
    assert x_ball.value.shape == (16,)
    assert y_ball.value.shape == (2, 4, 4)
    assert np.isnan(y_ball.value[0]).all()
    assert (y_ball.value[1] == 1).all()


def test_errors() -> None:
    build = views((4, 4, F32, "read"), (4, 4, F32, "write"))
    x, y = build.arguments
    build.store(build.load(x, 4, 0, LocalType.of(4, 4, F32)), y, 0, 0)
    kernel = build.finish("past")
    arrays = [np.ones((4, 4)), np.ones((4, 4))]
    with pytest.raises(IRError, match="empty tile: 0x4"):
        run_kernel(kernel, arrays, arithmetic=FLOAT64)
    with pytest.raises(OptionError, match="takes 2 arguments, not 1"):
        run_kernel(kernel, arrays[:1], arithmetic=FLOAT64)
    with pytest.raises(OptionError, match=r"argument 1 of @past is \[3, 4\]"):
        run_kernel(kernel, [arrays[0], np.ones((3, 4))], arithmetic=FLOAT64)


def test_indices_outside_of_a_table() -> None:
    arrays = arguments("gather_scatter")
    arrays[1][0, 130] = 300
    with pytest.raises(OptionError, match="index 300 is outside of the 300 rows") as info:
        run_kernel(at_stage("gather_scatter", "as built"), arrays, arithmetic=FLOAT64)
    assert info.value.why == "index number 130"
