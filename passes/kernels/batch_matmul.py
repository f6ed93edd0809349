"""Kernels of `tpu.BatchMatMul`: the loop nests of `matmul` for each matrix of a stack."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.ir import Operation

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.passes.kernels.matmul import MatMulViews, build, problem_of
from tilewright.passes.kernels.registry import View, register
from tilewright.passes.tiling.matmul import choose_tiling


@register(tpu.BatchMatMulOp)
def build_batch_matmul(
    op: Operation, operands: Sequence[View], results: Sequence[View], chip: Chip
) -> func.FuncOp:
    """`tpu.BatchMatMul`: rows of all matrices stacked, tiles cut at the end of each matrix."""
    assert isinstance(op, tpu.BatchMatMulOp)
    left, right = operands
    views = MatMulViews(left, right, results[0])
    problem = problem_of(
        views,
        channels_are_rows=op.right_transpose is not None,
        batches=math.prod(left.shape[:-2]),
    )
    return build(views, problem, choose_tiling(problem, chip))
