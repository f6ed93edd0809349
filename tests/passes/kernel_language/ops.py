"""Ops to attach kernels to, each defined by `tpu` ops on operands in f32."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects import func
from xdsl.ir import Block, Operation

from tilewright.backends.chip import load_chip
from tilewright.dialects import tpu
from tilewright.dialects.element_types import F32, ElementType, tensor_type
from tilewright.dialects.graph import storage_of
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import composite
from tilewright.passes.kernel_language import Kernel
from tilewright.passes.kernels.registry import View


def traced(kernel: Kernel, *operands: tuple[tuple[int, ...], ElementType]) -> func.FuncOp:
    """The kernel function of an op on contiguous operands, before any pass."""
    block = Block(arg_types=[tensor_type(shape, element) for shape, element in operands])
    make: Callable[..., Operation] = kernel.op_class
    op = make(*block.args)
    operand_views, result_views = (
        [View.of_type(each.type) for each in values] for values in (op.operands, op.results)
    )
    return kernel.build(op, operand_views, result_views, load_chip("bm1684x"))


def wide(x: Value) -> Value:
    """`x` in f32, exactly."""
    return x if storage_of(x) == F32 else tpu.CastOp(x, F32).result


@composite("test.Copy", tpu.TpuOp)
def copy_op(x: Value) -> Value:
    return x


@composite("test.Gate", tpu.TpuOp)
def gate_op(x: Value, y: Value) -> Value:
    return tpu.MulOp(wide(x), tpu.SiLUOp(wide(y)).result).result


@composite("test.Softmax", tpu.TpuOp)
def softmax_op(x: Value) -> Value:
    return tpu.SoftmaxOp(wide(x)).result


@composite("test.RowSum", tpu.TpuOp)
def row_sum_op(x: Value) -> Value:
    return tpu.ReduceOp(wide(x), "sum").result


@composite("test.Product", tpu.TpuOp)
def product_op(x: Value, weight: Value) -> Value:
    return tpu.MatMulOp(x, weight, right_transpose=True, element=F32).result


@composite("test.Linear", tpu.TpuOp)
def linear_op(
    x: Value, weight: Value, bias: Value | None = None, *, function: str = "gelu"
) -> Value:
    product = tpu.MatMulOp(x, weight, bias, right_transpose=True, element=F32).result
    if function == "silu":
        return tpu.SiLUOp(product).result
    return product if function == "none" else tpu.GELUOp(product, function[5:] or "none").result


@composite("test.QuantizedLinear", tpu.TpuOp)
def quantized_op(x: Value, codes: Value, scale: Value, bias: Value | None = None) -> Value:
    product = tpu.W8A16MatMulOp(x, codes, scale, bias, element=F32).result
    return tpu.SiLUOp(product).result


@composite("test.Pick", tpu.TpuOp)
def pick_op(table: Value, rows: Value) -> Value:
    return tpu.GatherOp(table, rows).result
