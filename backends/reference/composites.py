"""What composite ops compute and how far they may err: their decomposition, op by op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from xdsl.ir import SSAValue

from tilewright.backends.reference import bounds, composition, evaluation
from tilewright.backends.reference.balls import MACHINE, Arithmetic, Ball
from tilewright.dialects import graph
from tilewright.dialects.graph.composite import CompositeOp, Decomposition

Array = NDArray[Any]


@evaluation.register(CompositeOp)
def evaluate_composite(
    op: CompositeOp, inputs: Sequence[Array], semantics: evaluation.Semantics
) -> Array:
    """Each op of the decomposition in its own types."""
    made = op.decomposition()
    values: dict[SSAValue, Array] = dict(zip(made.block.args, inputs, strict=True))
    for inner in made.block.ops:
        results = evaluation.evaluate(inner, [values[each] for each in inner.operands], semantics)
        values.update(zip(inner.results, results, strict=True))
    return values[made.result]


@composition.register(CompositeOp)
def propagate_composite(op: CompositeOp, balls: Sequence[Ball], arithmetic: Arithmetic) -> Ball:
    """Errors carried from op to op."""
    return _carried(op.decomposition(), balls, arithmetic)


@bounds.register(CompositeOp)
def bound_composite(op: CompositeOp, inputs: Sequence[Array], exact: Array) -> Array:
    """The error of the machine's arithmetic in each op of the decomposition, carried on.

    The last cast, if it is one, is left out: `bounds.bound` adds its rounding.
    """
    del exact
    made = op.decomposition()
    last = made.result.owner
    if isinstance(last, graph.Cast):
        made = Decomposition(made.block, last.x)
    return _carried(made, [Ball.exact(array) for array in inputs], MACHINE).radii


def _carried(made: Decomposition, balls: Sequence[Ball], arithmetic: Arithmetic) -> Ball:
    values: dict[SSAValue, Ball] = dict(zip(made.block.args, balls, strict=True))
    for inner in made.block.ops:
        operands = [values[each] for each in inner.operands]
        results = composition.propagate(inner, operands, arithmetic)
        values.update(zip(inner.results, results, strict=True))
    return values[made.result]
