"""Cycles of pipelined matrix multiplications, against TPU-MLIR's schedules on the same rates.

TPU-MLIR 1.30.2's static cost model, K = 4096 and N = 13696: M = 1 takes 1 937 024 (f16) and
1 042 335 (int8 codes); M = 512 takes 5 365 061 and 3 685 515.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Region

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Kernel
from tilewright.backends.simulator.timing import time_kernel
from tilewright.dialects import tpu
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F16, I8, tensor_type
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.registry import PASSES
from tilewright.passes.tiling.matmul import choose_tiling
from tilewright.passes.tiling.matmul_cost import estimate_cycles
from tilewright.passes.tiling.matmul_tiles import Problem

CHIP = load_chip("bm1684x")
PIPELINE = (
    "tile-for-local-memory",
    "double-buffer",
    "allocate-local-memory",
    "insert-waits",
    "emit-commands",
)


def compiled(m: int, n: int, k: int, *, codes: bool) -> Kernel:
    shapes = [((m, k), F16), ((n, k), I8 if codes else F16), ((n, 1), F16)]
    types = [tensor_type(shape, element) for shape, element in shapes[: 2 + codes]]
    block = Block(arg_types=types)
    if codes:
        op = tpu.W8A16MatMulOp(*block.args)
    else:
        op = tpu.MatMulOp(*block.args, right_transpose=True)
    block.add_ops([op, func.ReturnOp(op.result)])
    module = ModuleOp([func.FuncOp("f", (types, [op.result.type]), Region(block))])
    context = make_context()
    for name in PIPELINE:
        PASSES[name]()().apply(context, module)
    (program,) = (op for op in module.walk() if isinstance(op, ProgramOp))
    return kernel_of(program)


def estimated(m: int, n: int, k: int, *, codes: bool) -> int:
    problem = Problem(m, n, k, F16, F16, k * F16.size_bytes, scale=F16 if codes else None)
    return estimate_cycles(problem, choose_tiling(problem, CHIP), CHIP)


@pytest.mark.parametrize(
    ("m", "n", "k", "codes", "limit"),
    [
        (1, 13696, 4096, True, 1_042_335),
        (1, 13696, 4096, False, 1_937_024),
        (512, 13696, 4096, True, 3_685_515),
        (512, 13696, 4096, False, 3_700_000),
        (512, 4096, 13696, True, 3_700_000),
        (512, 4096, 13696, False, 3_700_000),
    ],
)
def test_cycles(m: int, n: int, k: int, codes: bool, limit: int):
    assert time_kernel(compiled(m, n, k, codes=codes), CHIP).cycles <= limit


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 13696, 4096), (1, 4096, 13696), (1, 65024, 4096), (7, 27392, 4096), (16, 4608, 4096)],
)
def test_few_rows_stream_weights(m: int, n: int, k: int, codes: bool):
    """Each byte moves once, at full rate, and nothing else takes long."""
    moved = n * k * (1 if codes else 2) + (m * k + m * n) * F16.size_bytes
    cycles = time_kernel(compiled(m, n, k, codes=codes), CHIP).cycles
    assert cycles < 1.02 * moved / CHIP.dma_bytes_per_cycle


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 13696, 4096),
        (64, 4096, 4096),
        (512, 4096, 4096),
        (512, 13696, 4096),
        (512, 4096, 13696),
        (300, 1000, 3000),
    ],
)
def test_the_estimate_is_close(m: int, n: int, k: int, codes: bool):
    cycles = time_kernel(compiled(m, n, k, codes=codes), CHIP).cycles
    assert estimated(m, n, k, codes=codes) == pytest.approx(cycles, rel=0.03)


@given(
    m=st.one_of(st.just(1), st.integers(1, 600)),
    n=st.integers(1, 9000),
    k=st.integers(1, 20000),
    codes=st.booleans(),
)
@settings(deadline=None, max_examples=15)
def test_what_the_tiling_takes_for_fitting_can_be_placed(m: int, n: int, k: int, codes: bool):
    kernel = compiled(m, n, k, codes=codes)
    assert kernel.local_bytes <= CHIP.lane_bytes
