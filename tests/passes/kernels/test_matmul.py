"""Kernels of matrix multiplications on the machine, held against float64 and exact sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Kernel
from tilewright.backends.reference import bounds, float64
from tilewright.backends.simulator.machine import Machine
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.schedule import Schedule
from tilewright.dialects import tpu
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import BF16, F16, F32, I8, ElementType, tensor_type
from tilewright.passes.kernels.matmul import MatMulViews, build, problem_of
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.kernels.registry import View
from tilewright.passes.registry import PASSES
from tilewright.passes.tiling.matmul_tiles import Tiling, lane_bytes

CHIP = load_chip("bm1684x")
SCHEDULES: tuple[Schedule, ...] = ("early", "late")
LOWERING = ("double-buffer", "allocate-local-memory", "insert-waits", "emit-commands")

Array = npt.NDArray[Any]


def emitted(module: ModuleOp, passes: Sequence[str]) -> Kernel:
    """The one kernel of a module after `passes`."""
    context = make_context()
    for name in passes:
        PASSES[name]()().apply(context, module)
        module.verify()
    (program,) = (op for op in module.walk() if isinstance(op, ProgramOp))
    return kernel_of(program)


def kernel_for(op: Operation) -> Kernel:
    """The kernel that the whole pipeline makes of `op`, whose operands are block arguments."""
    block = op.operands[0].owner
    assert isinstance(block, Block)
    block.add_ops([op, func.ReturnOp(op.results[0])])
    types = [argument.type for argument in block.args]
    function = func.FuncOp("f", (types, [op.results[0].type]), Region(block))
    return emitted(ModuleOp([function]), ("tile-for-local-memory", *LOWERING))


def run(kernel: Kernel, inputs: Sequence[Array], result: Array) -> Array:
    """What the machine computes; both schedules of the GDMA must agree."""
    results: list[Array] = []
    for schedule in SCHEDULES:
        machine = Machine(CHIP)
        output = np.zeros_like(result)
        addresses: list[int] = []
        for array in (*inputs, output):
            addresses.append(CHIP.global_base + len(addresses) * (1 << 24))
            machine.map(addresses[-1], array, writable=array is output)
        machine.run(kernel, addresses, schedule=schedule)
        results.append(output)
    assert np.array_equal(results[0].view(np.uint8), results[1].view(np.uint8))
    return results[0]


def arguments(*tensors: tuple[tuple[int, ...], ElementType]) -> Any:
    return Block(arg_types=[tensor_type(shape, element) for shape, element in tensors]).args


def random(shape: tuple[int, ...], element: ElementType, seed: int) -> Array:
    numbers = np.random.default_rng(seed)
    if element == I8:
        return numbers.integers(-127, 128, shape).astype(np.int8)
    return numbers.standard_normal(shape).astype(element.dtype)


def check(op: Operation, seed: int = 0) -> None:
    """The kernel of `op` on random inputs is within the derived bound."""
    inputs: list[Array] = []
    for number, operand in enumerate(op.operands):
        view = View.of_type(operand.type)
        inputs.append(random(view.shape, view.element, seed + number))
    view = View.of_type(op.results[0].type)
    kernel = kernel_for(op)
    assert find_races(kernel, CHIP) == []
    actual = run(kernel, inputs, np.zeros(view.shape, view.element.dtype))
    (exact,) = float64.evaluate(op, inputs)
    assert not bounds.outside(actual, exact, bounds.bound(op, inputs, exact)).any()


SIZES = [(1, 1, 1), (1, 300, 130), (3, 65, 64), (33, 200, 257), (65, 129, 70), (200, 64, 96)]


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize("element", [F16, BF16, F32], ids=lambda e: e.name)
@pytest.mark.parametrize("transposed", [False, True])
def test_matmul(m: int, n: int, k: int, element: ElementType, transposed: bool):
    right = (n, k) if transposed else (k, n)
    x, w, bias = arguments(((m, k), element), (right, element), ((n,), element))
    check(tpu.MatMulOp(x, w, right_transpose=transposed))
    x, w, bias = arguments(((m, k), element), (right, element), ((n,), element))
    check(tpu.MatMulOp(x, w, bias, right_transpose=transposed, element=F32))


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize("element", [F16, BF16], ids=lambda e: e.name)
@pytest.mark.parametrize("scale", ["same", "f32"])
def test_w8a16_matmul(m: int, n: int, k: int, element: ElementType, scale: str):
    scales = F32 if scale == "f32" else element
    x, codes, factors, bias = arguments(
        ((m, k), element), ((n, k), I8), ((n, 1), scales), ((n,), element)
    )
    check(tpu.W8A16MatMulOp(x, codes, factors, bias))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 64, 64), (5, 70, 33), (70, 5, 66), (65, 65, 1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_batch_matmul(m: int, n: int, k: int, transposed: bool):
    right = (2, 3, n, k) if transposed else (2, 3, k, n)
    a, b = arguments(((2, 3, m, k), F16), (right, F16))
    check(tpu.BatchMatMulOp(a, b, right_transpose=transposed))


def test_leading_dimensions_are_rows():
    x, w = arguments(((2, 3, 40), F16), ((50, 40), F16))
    check(tpu.MatMulOp(x, w, right_transpose=True))


@st.composite
def tiled_problems(draw: st.DrawFn) -> tuple[tuple[int, int, int], Tiling, bool, int, bool]:
    m, n, k = (draw(st.integers(1, 200)) for _ in range(3))
    batches = draw(st.sampled_from([1, 1, 2]))
    transposed = draw(st.booleans())
    channels_left = transposed and draw(st.booleans())
    tm = m if channels_left else draw(st.integers(max(1, m // 5), m))
    tn = draw(st.integers(max(1, n // 5), n))
    tk = draw(st.integers(max(1, k // 5), k))
    bias = batches == 1 and draw(st.booleans())
    return (m, n, k), Tiling(channels_left, tm, tn, tk), transposed, batches, bias


@given(tiled_problems())
@settings(deadline=None, max_examples=60)
def test_every_tiling_covers_every_product_once(
    case: tuple[tuple[int, int, int], Tiling, bool, int, bool],
):
    """Small integers add up exactly in f32, so a product left out or taken twice shows."""
    (m, n, k), tiling, transposed, batches, biased = case
    numbers = np.random.default_rng(m * n * k)
    x = numbers.integers(-9, 10, (batches, m, k)).astype(np.float32)
    w = numbers.integers(-9, 10, (batches, n, k) if transposed else (batches, k, n))
    w = w.astype(np.float32)
    bias = numbers.integers(-9, 10, n).astype(np.float32)
    views = MatMulViews(
        View.of((batches * m, k), F32),
        View.of((batches * w.shape[1], w.shape[2]), F32),
        View.of((batches * m, n), F32),
        bias=View.of((n,), F32) if biased else None,
    )
    problem = problem_of(views, channels_are_rows=transposed, batches=batches)
    function = build(views, problem, tiling)
    kernel = emitted(ModuleOp([function]), LOWERING)
    assert find_races(kernel, CHIP) == []
    assert kernel.local_bytes <= max(lane_bytes(problem, tiling, CHIP), CHIP.lane_bytes)
    inputs = [x, w, bias] if biased else [x, w]
    expected = x @ (w.transpose(0, 2, 1) if transposed else w) + (bias if biased else 0)
    assert np.array_equal(run(kernel, inputs, np.zeros_like(expected)), expected)
