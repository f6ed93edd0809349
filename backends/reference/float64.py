"""The truth: every op in float64, without any rounding to storage types.

Inputs may be of any floating-point type (they are widened exactly); floats leave as float64,
integers stay integers. The one rounding that remains is that of dequantized weights, `round(code *
scale)` in the activation's type: those *are* the weights of a quantized op, so quantization is not
counted as an error of the op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference import evaluation
from tilewright.dialects import graph, tpu
from tilewright.dialects.element_types import ElementType

Array = NDArray[Any]


def _keep(values: Array, element: ElementType) -> Array:
    return values.astype(np.float64, copy=False) if element.is_float else values


SEMANTICS = evaluation.Semantics(np.dtype(np.float64), _keep, storage_types=False)


def evaluate(op: Operation, inputs: Sequence[Array]) -> list[Array]:
    """The exact results of `op` (to float64). Raises as `evaluation.evaluate` does."""
    results = evaluation.evaluate(op, widen_inputs(op, inputs), SEMANTICS)
    return [SEMANTICS.widen(result) for result in results]


def widen_inputs(op: Operation, inputs: Sequence[Array]) -> list[Array]:
    """Inputs as float64, but for ops with large weights, which they widen in parts themselves."""
    arrays = [np.asarray(array) for array in inputs]
    return arrays if isinstance(op, _WEIGHTED) else [SEMANTICS.widen(array) for array in arrays]


_WEIGHTED = (graph.MatMul, tpu.A16MatMul, graph.Gather, tpu.W8A16GatherOp)
