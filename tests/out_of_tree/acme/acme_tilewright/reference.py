"""What the squared ReLU computes, how far the machine's f32 arithmetic may be off, and what becomes
of errors that its operand has already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tilewright.backends.reference import bounds, composition, evaluation, primitives
from tilewright.backends.reference.balls import Arithmetic, Ball
from tilewright.backends.reference.evaluation import Semantics
from tilewright.backends.reference.numerics import F32_TINY, UNIT_ROUNDOFF
from tilewright.dialects.graph import storage_of

from acme_tilewright.dialect import SquaredRelu

Array = NDArray[Any]


@evaluation.register(SquaredRelu)
def evaluate(op: SquaredRelu, inputs: Sequence[Array], semantics: Semantics) -> Array:
    """`max(x, 0)^2` in the wide type, rounded once."""
    positive = np.maximum(semantics.widen(inputs[0]), 0)
    return semantics.finish(positive * positive, storage_of(op.result))


@bounds.register(SquaredRelu)
def bound(op: SquaredRelu, inputs: Sequence[Array], exact: Array) -> Array:
    """One product, rounded to f32: half an ulp of f32, and what an underflow flushes."""
    return UNIT_ROUNDOFF * np.abs(exact) + F32_TINY


@composition.register(SquaredRelu)
@composition.computed
def propagate(op: SquaredRelu, balls: Sequence[Ball], arithmetic: Arithmetic) -> Ball:
    """The same on values with radii: the primitives know how radii go on."""
    positive = primitives.relu(arithmetic, balls[0])
    return primitives.multiply(arithmetic, positive, positive)
