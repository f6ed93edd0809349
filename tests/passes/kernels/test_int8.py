"""Kernels of int8 layers: equal to the bit to the reference, in any tiling; their cycles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.checking import SCHEDULES, Pitched, check, chip_file, lowered, normal
from tests.passes.lowering import emitted, run
from xdsl.dialects import func

from tilewright.backends.chip import load_chip
from tilewright.backends.encoding.records import BdcOpcode
from tilewright.backends.program import Kernel
from tilewright.backends.reference.balls import FLOAT64
from tilewright.backends.reference.kernels import run_kernel
from tilewright.backends.reference.requant import requant_table, requantize_by_table
from tilewright.backends.simulator.fusion import fusions
from tilewright.backends.simulator.machine import Machine
from tilewright.backends.simulator.order import find_races
from tilewright.backends.simulator.schedule import execution_order
from tilewright.backends.simulator.timing import time_kernel
from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.errors import FitError
from tilewright.passes.kernels.int8 import build
from tilewright.passes.kernels.registry import View
from tilewright.passes.tiling.int8_matmul import (
    Int8Problem,
    Int8Tiling,
    candidates,
    choose_tiling,
    estimate_cycles,
    lane_bytes,
)

Array = npt.NDArray[Any]

CHIP = load_chip("bm1684x")
SIZES = (("m", 90), ("n", 150), ("k", 200))


def layer(m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Activations, codes and a table whose results fill the range of a code, and clip here and
    there."""
    numbers = np.random.default_rng([seed, m, n, k])
    x = numbers.integers(-128, 128, (m, k)).astype(np.int8)
    codes = numbers.integers(-127, 128, (n, k)).astype(np.int8)
    scale = (numbers.random(n) + 0.2).astype(np.float32) * np.float32(1e-3)
    bias = numbers.standard_normal(n)
    return x, codes, requant_table(scale, bias, 0.02, 0.02 * 1e-3 * 70 * np.sqrt(k) + 1e-3)


def expected(x: Array, codes: Array, table: Array) -> Array:
    sums = x.astype(np.int64) @ codes.T.astype(np.int64)
    return requantize_by_table(sums.astype(np.int32), table)


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 1), (1, 64, 64), (1, 130, 200), (5, 70, 600), (70, 65, 60), (130, 300, 1030)],
)
def test_layers(m: int, n: int, k: int):
    check(tpu.Int8MatMulOp, *layer(m, n, k), exact=True)


def test_a_layer_of_a_model():
    x, codes, table = layer(512, 200, 4096)
    lowering = check(tpu.Int8MatMulOp, x, codes, table, exact=True)
    result = lowering.run()
    assert np.array_equal(result, expected(x, codes, table))
    assert 30 < np.abs(result.astype(int)).mean() < 100
    assert (np.abs(result.astype(int)) >= 127).any()


def test_stacks_of_rows_and_columns_of_a_wider_tensor():
    x, codes, table = layer(6, 33, 40)
    check(tpu.Int8MatMulOp, x.reshape(2, 3, 40), codes, table, exact=True)
    check(tpu.Int8MatMulOp, Pitched(x, 8, 3), codes, table, exact=True)


def test_little_local_memory(tmp_path: Path):
    """Depths split, and rows of x too."""
    chip = chip_file(tmp_path, 16384)
    lowering = check(tpu.Int8MatMulOp, *layer(200, 300, 3000), chip=chip, exact=True)
    flags = lowering.kernel.bdc["flags"][lowering.kernel.bdc["opcode"] == 1]
    assert (flags & 2).any(), "no partial sums"
    with pytest.raises(FitError, match="no tile of a 1x64x5000 matrix multiplication in int8"):
        lowered(tpu.Int8MatMulOp, *layer(1, 64, 5000), chip=chip_file(tmp_path, 1024))


def kernel_of_tiling(m: int, n: int, k: int, tiling: Int8Tiling) -> func.FuncOp:
    kinds: list[tuple[tuple[int, int], ElementType]] = [
        *(((m, k), I8), ((n, k), I8), ((n, 3), I32), ((m, n), I8)),
    ]
    x, codes, table, y = (View.of_type(tensor_type(*kind)) for kind in kinds)
    return build(x, codes, table, y, tiling)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_every_tiling(data: st.DataObject):
    """On the machine and in the reference of kernels, for sizes that leave remainders."""
    m, n, k = (data.draw(st.integers(1, high), label=what) for what, high in SIZES)
    tiling = Int8Tiling(
        data.draw(st.integers(-(-m // 3), m), label="tm"),
        data.draw(st.integers(-(-n // 3), n), label="tn"),
        data.draw(st.integers(-(-k // 4), k), label="tk"),
    )
    operands = layer(m, n, k)
    kernel = kernel_of_tiling(m, n, k, tiling)
    balls = run_kernel(kernel, [*operands, np.zeros((m, n), np.int8)], arithmetic=FLOAT64)
    assert np.array_equal(balls[-1].value, expected(*operands))
    assert not np.any(balls[-1].radius)
    machine_kernel = emitted(kernel)
    assert not find_races(machine_kernel, CHIP)
    assert np.array_equal(run_on_machine(machine_kernel, operands, (m, n)), expected(*operands))


def run_on_machine(kernel: Kernel, operands: tuple[Array, ...], shape: tuple[int, int]) -> Array:
    arrays = [*operands, np.full(shape, -1, np.int8)]
    early, late = (run(kernel, arrays, schedule)[-1] for schedule in SCHEDULES)
    assert np.array_equal(early, late)
    return early


# Quantize and dequantize.


@pytest.mark.parametrize("element", [F16, BF16, F32], ids=lambda e: e.name)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4096), (70, 61), (2, 3, 40), (300, 1000)])
def test_codes_of_activations_and_back(shape: tuple[int, ...], element: ElementType):
    x = normal(shape, element, 1, 3.0)
    scale = np.array([[0.0231]], np.float32)
    codes = check(tpu.QuantizeOp, x, scale, exact=True).run()
    assert x.size < 1000 or (codes.min(), codes.max()) == (-128, 127)
    check(lambda q, s: tpu.DequantizeOp(q, s, element=element), codes, scale)


def test_columns_of_a_wider_tensor():
    x, scale = normal((70, 61), F16, 2), np.array([[0.02]], np.float32)
    check(tpu.QuantizeOp, Pitched(x, 3, 8), scale, exact=True)
    codes = np.random.default_rng(0).integers(-128, 128, (70, 61)).astype(np.int8)
    check(tpu.DequantizeOp, Pitched(codes, 3, 8), scale)


# Cycles.


def cycles(build_op: Any, *operands: Array) -> int:
    return time_kernel(lowered(build_op, *operands).kernel, CHIP).cycles


def zeros(shape: tuple[int, int], element: ElementType) -> Array:
    return np.zeros(shape, element.dtype)


@pytest.mark.parametrize(("n", "k"), [(13696, 4096), (4096, 13696)])
def test_cycles_beside_those_of_16_bits(n: int, k: int):
    """Half of f16 where arithmetic counts; what w8a16 takes where reading the weight does."""
    codes, table = zeros((n, k), I8), zeros((n, 3), I32)
    for m, of_f16, of_w8a16 in ((1, 0.51, 1.02), (512, 0.52, 0.52)):
        mine = cycles(tpu.Int8MatMulOp, zeros((m, k), I8), codes, table)
        x, weight = zeros((m, k), F16), zeros((n, k), F16)
        f16 = cycles(lambda a, b: tpu.MatMulOp(a, b, right_transpose=True), x, weight)
        w8a16 = cycles(tpu.W8A16MatMulOp, x, codes, zeros((n, 1), F16))
        assert mine < of_f16 * f16
        assert mine < of_w8a16 * w8a16


@pytest.mark.parametrize("m", [1, 16, 512])
def test_estimates_are_those_of_the_machine(m: int):
    problem = Int8Problem(m, 4608, 4096, 4096)
    tiling = choose_tiling(problem, CHIP)
    estimate = estimate_cycles(problem, tiling, CHIP)
    codes, table = zeros((4608, 4096), I8), zeros((4608, 3), I32)
    actual = cycles(tpu.Int8MatMulOp, zeros((m, 4096), I8), codes, table)
    assert abs(actual - estimate) < 0.05 * actual


def test_what_is_chosen_fits_and_is_the_least():
    problem = Int8Problem(512, 4096, 4096, 4096)
    chosen = choose_tiling(problem, CHIP)
    assert lane_bytes(problem, chosen, CHIP) <= CHIP.lane_bytes
    fitting = [
        t for t in candidates(problem, CHIP) if lane_bytes(problem, t, CHIP) <= CHIP.lane_bytes
    ]
    assert len(fitting) > 20
    least = min(estimate_cycles(problem, tiling, CHIP) for tiling in fitting)
    assert estimate_cycles(problem, chosen, CHIP) == least


@pytest.mark.parametrize("m", [1, 4])
def test_few_rows_read_the_weight_where_it_lies(m: int):
    """The simulator leaves out the tiles of codes, and computes the same."""
    operands = layer(m, 700, 700)
    lowering = lowered(tpu.Int8MatMulOp, *operands)
    kernel = lowering.kernel
    found = fusions(kernel, execution_order(kernel), CHIP.lanes)
    products = np.flatnonzero(kernel.bdc["opcode"] == BdcOpcode.MM)
    assert [each.product for each in found] == products.tolist()
    assert all(each.load is not None and each.dequant is None for each in found)
    for fused in (True, False):
        machine, result = Machine(CHIP, threads=1, fused=fused), np.zeros((m, 700), np.int8)
        addresses = [CHIP.global_base + (i << 24) for i in range(4)]
        for address, array in zip(addresses, (*operands, result), strict=True):
            machine.map(address, array, writable=array is result)
        machine.run(kernel, addresses)
        assert np.array_equal(result, expected(*operands))
    wide = lowered(tpu.Int8MatMulOp, *layer(5, 700, 700)).kernel
    assert not fusions(wide, execution_order(wide), CHIP.lanes)
