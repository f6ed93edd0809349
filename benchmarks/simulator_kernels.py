"""The simulator's kernels of one linear layer [M, 4096] x [4096, 13696] on quantized weights.

M = 1 beside reading codes, scales and zero points once (a NumPy sum over their bytes, as int64) by
as many threads, one and two; before each reading the caches are filled with something else. M = 512
beside NumPy's sgemm of f32 matrices of the same sizes, which has them ready. Rounds alternate.
Seconds of M = 1 are the least of all rounds, as other processes of the host only add to them; of M
= 512 medians, and ratios medians of the rounds' ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import paired, report, seconds
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Region

from tilewright.backends.chip import load_chip
from tilewright.backends.program import Kernel
from tilewright.backends.reference.requant import requant_table
from tilewright.backends.simulator.machine import Machine
from tilewright.dialects import tpu
from tilewright.dialects.bdc.program import ProgramOp
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F16, I8, I32, ElementType, tensor_type
from tilewright.dialects.quantization import CodeFormat, Scheme, parse_scheme
from tilewright.passes.kernels.program import kernel_of
from tilewright.passes.registry import PASSES

Array = NDArray[Any]

K, N = 4096, 13696
SCHEMES = ("w8a16", "w4a16", "w8a16-g64-zp", "w4a16-channel-absmax", "f8e4m3", "int8")
LOWERING = (
    *("tile-for-local-memory", "double-buffer", "allocate-local-memory", "insert-waits"),
    "emit-commands",
)
INT8_WEIGHT = (((N, K), I8), ((N, 3), I32))
LIMIT = 1.5
ROUNDS = 25
OTHER_DATA = np.ones(12 << 20, np.int64)
CHIP = load_chip("bm1684x")


def main() -> None:
    """Print the two ratios of each scheme."""
    for name in SCHEMES:
        scheme = parse_scheme(name)
        weight = weight_parts(scheme)
        measure_row(name, kernel_of_layer(scheme, 1), weight)
        measure_rows(name, 512, runner(kernel_of_layer(scheme, 512), 512, weight))


def measure_row(name: str, kernel: Kernel, weight: list[Array]) -> None:
    """Print a kernel's seconds at M = 1 beside those of reading its weight."""
    size = sum(part.nbytes for part in weight)
    for threads in (1, 2):
        run = runner(kernel, 1, weight, threads)
        run()
        rounds = [
            (cold_seconds(run), cold_seconds(lambda t=threads: read(weight, t)))
            for _ in range(ROUNDS)
        ]
        mine, other = (min(each) for each in zip(*rounds, strict=True))
        print(
            f"{name}, M = 1: {1e3 * mine:.2f} ms, reading {size / 1e6:.1f} MB in {threads} "
            f"threads {1e3 * other:.2f} ms ({size / other / 1e9:.1f} GB/s)"
        )
        report(f"{name}, M = 1: of reading in {threads} threads", mine / other, LIMIT, "x")


def cold_seconds(run: Callable[[], object]) -> float:
    """Seconds of a call that finds nothing in the caches."""
    OTHER_DATA.sum()
    return seconds(run)


def measure_rows(name: str, m: int, run: Callable[[], object]) -> None:
    """Print a kernel's seconds beside those of sgemm."""
    run()
    random = np.random.default_rng(1)
    x = random.standard_normal((m, K), dtype=np.float32)
    w = random.standard_normal((N, K), dtype=np.float32)
    out = np.empty((m, N), np.float32)
    mine, other, ratio = paired(run, lambda: np.matmul(x, w.T, out=out), 3)
    rate = 2e-9 * m * K * N
    print(
        f"{name}, M = {m}: {mine:.3f} s ({rate / mine:.0f} GFLOP/s), "
        f"sgemm {other:.3f} s ({rate / other:.0f} GFLOP/s)"
    )
    report(f"{name}, M = {m}: of sgemm", ratio, LIMIT, "x")


def read(parts: list[Array], threads: int) -> int:
    """Read all bytes once: the sum of their words."""
    words = [part.reshape(-1).view(np.int64) for part in parts]
    if threads == 1:
        return sum(int(each.sum()) for each in words)
    halves = [half for each in words for half in np.array_split(each, threads)]
    with_first = [halves[index::threads] for index in range(threads)]
    return sum(_POOL.map(lambda mine: sum(int(each.sum()) for each in mine), with_first))


_POOL = ThreadPoolExecutor(2)


def weight_parts(scheme: Scheme) -> list[Array]:
    """Random codes, scales and zero points; of int8 codes and a table of requantization."""
    random = np.random.default_rng(0)
    if scheme.int8_activations:
        table = requant_table(np.full(N, 1e-3, np.float32), None, 0.02, 0.2)
        return [random.integers(-127, 128, (N, K), np.int8), table]
    codes = random.integers(-128, 128, (N, scheme.format.row_bytes(K)), np.int8)
    if scheme.format.is_float:
        codes &= np.int8(-65)
    groups = (N, scheme.groups(K))
    scale = (random.random(groups, np.float32) + 0.5).astype(np.float16) * np.float16(1e-3)
    high = 16 if scheme.format == CodeFormat.U4 else 127
    zero = random.integers(0, high, groups, np.int8)
    return [codes, scale, *([zero] if scheme.zero_point else [])]


def kernel_of_layer(scheme: Scheme, m: int) -> Kernel:
    """The kernel that the pipeline makes of the layer."""
    groups = (N, scheme.groups(K))
    kinds: list[tuple[tuple[int, int], ElementType]] = [
        ((m, K), F16),
        ((N, scheme.format.row_bytes(K)), I8),
        (groups, F16),
        *([(groups, I8)] if scheme.zero_point else []),
    ]
    block = Block(arg_types=[tensor_type(shape, element) for shape, element in kinds])
    x, codes, scale, *zero = block.args
    if scheme.int8_activations:
        block = Block(arg_types=[tensor_type(*kind) for kind in (((m, K), I8), *INT8_WEIGHT)])
        return _compiled(block, tpu.Int8MatMulOp(*block.args))
    op_class: type[tpu.A16MatMul] = tpu.F8A16MatMulOp
    if not scheme.format.is_float:
        op_class = tpu.W8A16MatMulOp if scheme.format.bits == 8 else tpu.W4A16MatMulOp
    properties = {"format": tpu.CodeFormatAttr(scheme.format)} if scheme.format.is_float else {}
    op = op_class(x, codes, scale, zero=zero[0] if zero else None, properties=properties)
    return _compiled(block, op)


def _compiled(block: Block, op: tpu.A16MatMul | tpu.Int8MatMulOp) -> Kernel:
    block.add_ops([op, func.ReturnOp(op.result)])
    types = [argument.type for argument in block.args]
    module = ModuleOp([func.FuncOp("layer", (types, [op.result.type]), Region(block))])
    context = make_context()
    for name in LOWERING:
        PASSES[name]()().apply(context, module)
    (program,) = (op for op in module.walk() if isinstance(op, ProgramOp))
    return kernel_of(program)


def runner(
    kernel: Kernel, m: int, weight: list[Array], threads: int | None = None
) -> Callable[[], object]:
    """Executes the kernel on a machine with so many host threads."""
    element = kernel.arguments[0].element.dtype
    x = (np.random.default_rng(2).standard_normal((m, K)) * 20).astype(element)
    y = np.zeros((m, N), element)
    machine = Machine(CHIP, threads=threads)
    addresses = [CHIP.global_base + (index << 30) for index in range(len(weight) + 2)]
    for array, address in zip((x, *weight, y), addresses, strict=True):
        machine.map(address, array, writable=array is y)
    return lambda: machine.run(kernel, addresses)


if __name__ == "__main__":
    main()
