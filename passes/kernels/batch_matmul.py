"""Kernels of `tpu.BatchMatMul`: the loop nests of `matmul` for each matrix of a stack."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.ir import Operation

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.passes.kernels.matmul import MatMulViews, build
from tilewright.passes.kernels.registry import View, register


@register(tpu.BatchMatMulOp)
def build_batch_matmul(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`tpu.BatchMatMul`: rows of all matrices stacked, tiles cut at the end of each matrix."""
    assert isinstance(op, tpu.BatchMatMulOp)
    left, right = operands
    return build(
        MatMulViews(left, right, results[0]),
        chip,
        channels_are_rows=op.right_transpose is not None,
        batches=math.prod(left.shape[:-2]),
    )
