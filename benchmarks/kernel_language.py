"""Kernels written in the kernel language beside others: the compiler's own attention, the separate
kernels of the ops that a fused one replaces, and the same kernel written on KernelBuilder.

Cycles are the time model's. A kernel of the language should reach 95 % of the speed of one by hand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from timing import report
from xdsl.dialects import func
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation
from xdsl.irdl import irdl_op_definition, operand_def, result_def

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.dialects.bdc import BinaryFunction, ReduceFunction, UnaryFunction
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import composite
from tilewright.dialects.memory_types import LocalType
from tilewright.dialects.tpu.base import TpuOp
from tilewright.passes import kernel_language as tk
from tilewright.passes.kernels.builder import KernelBuilder
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.kernels.tiles import over

EXAMPLES = Path(__file__).parents[1] / "examples"
SLOWDOWN_LIMIT = 1 / 0.95
COLS, EPS = 4096, 1e-5


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@irdl_op_definition
class ByHandOp(TpuOp):
    """The gated RMSNorm whose kernel is written on KernelBuilder."""

    name = "benchmark.GatedRMSNorm"

    x = operand_def(TensorType)
    gate = operand_def(TensorType)
    weight = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, x: Value, gate: Value, weight: Value) -> None:
        super().__init__(operands=[x, gate, weight], result_types=[x.type])


@register(ByHandOp)
def build_by_hand(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """The loop nest of examples/05_gated_rms_norm.py, command by command."""
    x, gate, weight, y = *operands, results[0]
    single = x.rows == 1
    shape = (chip.lanes, COLS // chip.lanes) if single else (x.rows, COLS)
    row = shape if single else (1, COLS)
    views = [x.reshaped(*shape), gate.reshaped(*shape), weight.reshaped(*row)]
    b = KernelBuilder([*((view, "read") for view in views), (y.reshaped(*shape), "write")])
    x_arg, gate_arg, weight_arg, y_arg = b.arguments
    tile, wide = (LocalType.of(chip.lanes, shape[1], each) for each in (F16, F32))
    column, mul = LocalType.of(chip.lanes, 1, F32), BinaryFunction.MUL
    w = b.load(weight_arg, 0, 0, tile if single else LocalType.of(1, COLS, F16, replicated=True))
    with over(b, shape[0], chip.lanes) as first:
        t, g = b.load(x_arg, first, 0, tile), b.load(gate_arg, first, 0, tile)
        total = b.reduce(ReduceFunction.SUM, b.binary(mul, t, t, wide), column)
        if single:
            ones = b.fill(1.0, LocalType.of(chip.lanes, chip.lanes, F32))
            total = b.mm(ones, total, column, transpose_right=False)
        mean = b.scalar(mul, total, 1 / COLS, column)
        shifted = b.scalar(BinaryFunction.ADD, mean, EPS, column)
        factor = b.unary(UnaryFunction.RSQRT, shifted, column)
        normed = b.binary(mul, b.binary(mul, t, factor, wide), w, wide)
        gated = b.binary(mul, b.unary(UnaryFunction.SIGMOID, g, wide), g, wide)
        b.store(b.binary(mul, normed, gated, tile), y_arg, first, 0)
    return b.finish(op.name)


@composite("benchmark.W8A16MatMulGELU", TpuOp)
def matmul_gelu(x: Value, codes: Value, scale: Value, bias: Value) -> Value:
    """A linear layer on int8 codes with GELU behind it."""
    return tpu.GELUOp(tpu.W8A16MatMulOp(x, codes, scale, bias, element=F32).result, "tanh").result


@tk.kernel(matmul_gelu)
def matmul_gelu_kernel(
    op: Operation,
    x: tk.Tensor,
    codes: tk.Tensor,
    scale: tk.Tensor,
    bias: tk.Tensor,
    y: tk.Tensor,
    chip: Chip,
) -> None:
    tk.matmul(x, codes, scale, bias, y, epilogue=lambda tile: tk.gelu(tile, "tanh"))


def attention() -> None:
    """Flash attention beside `tpu.Attention`."""
    module = example("04_flash_attention")
    for name, tokens in (("prefill, 512 tokens", 512), ("decode, 512 keys", 1)):
        kinds = [(array.shape, F16) for array in module.operands(tokens)]
        mine = tk.build(module.flash_attention, *kinds).cycles
        theirs = tk.build(module.own, *kinds).cycles
        print(f"flash attention, {name}: {mine:,} cycles, the compiler's {theirs:,}")
        report(f"  {name}: cycles a cycle of the compiler's", mine / theirs, SLOWDOWN_LIMIT)


def gated_rms_norm() -> None:
    """Gated RMSNorm beside the kernels of its parts, and beside the same by hand."""
    fused = example("05_gated_rms_norm").gated_rms_norm.tpu
    for rows in (512, 1):
        matrix, vector = ((rows, COLS), F16), ((COLS,), F16)
        mine = tk.build(fused, matrix, matrix, vector).cycles
        by_hand = tk.build(ByHandOp, matrix, matrix, vector).cycles
        parts = [
            tk.build(lambda x, w: tpu.RMSNormOp(x, w, eps=EPS), matrix, vector).cycles,
            tk.build(tpu.SiLUOp, matrix).cycles,
            tk.build(tpu.MulOp, matrix, matrix).cycles,
        ]
        print(
            f"gated RMSNorm, [{rows}, {COLS}]: {mine:,} cycles, by hand {by_hand:,}, "
            f"separate kernels {sum(parts):,} = {' + '.join(f'{part:,}' for part in parts)}"
        )
        report(f"  [{rows}, {COLS}]: cycles a cycle by hand", mine / by_hand, SLOWDOWN_LIMIT)
        report(f"  [{rows}, {COLS}]: cycles a cycle of the parts", mine / sum(parts), 1)


def fused_matmul() -> None:
    """A matrix product with GELU as its epilogue beside the two kernels."""
    n, depth = 13696, 4096
    for rows in (1, 512):
        given = [((rows, depth), F16), ((n, depth), tk.i8), ((n, 1), F16), ((n,), F16)]
        mine = tk.build(matmul_gelu, *given).cycles
        product = tk.build(tpu.W8A16MatMulOp, *given).cycles
        gelu = tk.build(lambda x: tpu.GELUOp(x, "tanh"), ((rows, n), F16)).cycles
        print(f"W8A16 MatMul + GELU, M = {rows}: {mine:,} cycles, separate {product:,} + {gelu:,}")
        report(f"  M = {rows}: cycles a cycle of both", mine / (product + gelu), 1)


def main() -> None:
    """Print the table."""
    attention()
    gated_rms_norm()
    fused_matmul()


if __name__ == "__main__":
    main()
