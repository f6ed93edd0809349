"""How many threads matrix products use while the model is run for a check.

NumPy's BLAS wakes all cores for a product of a few thousand elements, and they spin between
products: on a machine that has other work the checks of a small model take two to five times as
long as with one thread (benchmarks/check_each_pass.py). Large products keep their threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from math import prod

from xdsl.dialects.builtin import ModuleOp

from threadpoolctl import ThreadpoolController
from tilewright.dialects import graph, tpu

LEAST_PRODUCT = 1 << 27
"""Multiplications of a product that is worth threads: some 20 ms on one core, in float64."""


@cache
def _controller() -> ThreadpoolController:
    """Looks through all libraries of the process: a hundredth of a second."""
    return ThreadpoolController()


def threads_for(
    module: ModuleOp, least_product: int = LEAST_PRODUCT
) -> AbstractContextManager[object]:
    """One thread for products while the block runs, unless `module` has a large one."""
    if max(_products(module), default=0) >= least_product:
        return nullcontext()
    return _controller().limit(limits=1, user_api="blas")


def _products(module: ModuleOp) -> Iterator[int]:
    """The multiplications of each matrix product of the graph. Those of kernels are small."""
    for op in module.walk():
        if isinstance(op, graph.MatMul | graph.BatchMatMul | tpu.A16MatMul):
            depth = graph.shape_of(op.operands[0])[-1]
            yield prod(graph.shape_of(op.results[0])) * depth
        elif isinstance(op, graph.Attention):
            queries, keys = graph.shape_of(op.q), graph.shape_of(op.k)
            yield prod(queries) * keys[0]
