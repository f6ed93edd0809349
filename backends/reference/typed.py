"""The machine's results: every op in its storage types, as the numerics contract has it.

Operands are widened to f32 exactly, the op is computed in f32, and the result is rounded once, to
nearest even, to its element type. Attention rounds its probabilities to the storage type before the
second product. bf16 arrays are of `ml_dtypes.bfloat16`. Overflow gives infinity, NaN propagates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference import evaluation
from tilewright.backends.reference.numerics import round_to
from tilewright.dialects.element_types import ElementType

Array = NDArray[Any]


def _round(values: Array, element: ElementType) -> Array:
    return round_to(values, element) if element.is_float else values


SEMANTICS = evaluation.Semantics(np.dtype(np.float32), _round, storage_types=True)


def evaluate(op: Operation, inputs: Sequence[Array]) -> list[Array]:
    """The results of `op` on arrays of its operands' storage types. Raises as `evaluation.evaluate`
    does."""
    return evaluation.evaluate(op, [np.asarray(array) for array in inputs], SEMANTICS)
