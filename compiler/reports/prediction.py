"""The predicted error of every op of a compiled model: each layer's closed formula, composed.

To first order, and as if no two errors had to do with each other, energies add up. With shares `r`
(energy of the error over that of the value):

| op | share of the result |
| --- | --- |
| product with a weight | `r_x E_x |W|^2 / (N E_y)` (no direction), and what the layer adds |
| sum | `(r_a E_a + r_b E_b) / E`, with the energies E of the values in the reference |
| attention | that of the values (queries and keys are left out) |
| update of a cache | that of what is written |
| any other | the sum of those of the operands |

A 16-bit result adds that of its rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from tilewright.backends.reference.graph_run import GraphRun
from tilewright.compiler.quantization.expected_noise import expected_noise
from tilewright.compiler.reports.figures import ChannelSums
from tilewright.compiler.reports.model_error import ModelErrors, OpError
from tilewright.compiler.reports.reference_runs import OpKey, kind_of_op
from tilewright.compiler.reports.sensitivity import predicted_noise
from tilewright.dialects import graph
from tilewright.dialects.quantization import is_scheme, parse_scheme
from tilewright.dialects.scopes import functions_of

Array = npt.NDArray[Any]


@dataclass
class Noise:
    """A share, and the mean square of the value; 0 where it is not known. That of a state changes
    with what is written to it."""

    share: float = 0.0
    mean_square: float = 0.0


def set_predictions(errors: ModelErrors, module: ModuleOp, activations: str) -> None:
    """Set `predicted` of each row, with `module` the reference's and `activations` the type of
    16-bit results."""
    states: dict[str, Noise] = {}
    for function, run in errors.last.items():
        composition = _Composition(module, errors, run.order, activations, states)
        arguments = functions_of(module)[function].body.block.args
        composition.call(function, [Noise() for _ in arguments])


def added_noise(row: OpError, weight: Array, signal: ChannelSums) -> float:
    """What a linear layer is predicted to add: the share of `signal` (the outputs of all rows)."""
    energy = float(signal.signal.sum())
    if row.squares is None or not is_scheme(row.scheme) or energy == 0:
        return 0.0
    noise = predicted_noise(weight, parse_scheme(row.scheme), row.squares)
    if row.activations is not None:
        step_in, step_out = row.activations
        squares = float(np.sum(weight.astype(np.float64) ** 2))
        noise += row.rows * (step_in**2 * squares + step_out**2 * len(weight)) / 12
    return noise / energy


class _Composition(GraphRun[Noise]):
    """A run over the reference's module in which a value is its predicted noise."""

    def __init__(
        self,
        module: ModuleOp,
        errors: ModelErrors,
        order: list[OpKey | None],
        activations: str,
        states: dict[str, Noise],
    ) -> None:
        super().__init__(module, None)
        self._errors, self._states = errors, states
        self._order = iter(order)
        self._rounding = expected_noise(activations, 1)

    def fitted(self, value: Noise, target: SSAValue, what: str) -> Noise:
        del target, what
        return value

    def weight(self, op: graph.Weight, key: str) -> Noise:
        del op, key
        return Noise()

    def state(self, op: graph.State, key: str) -> Noise:
        del op
        return self._states.setdefault(key, Noise())

    def evaluate(self, op: Operation, operands: list[Noise]) -> list[Noise]:
        key = next(self._order)
        if key is None:
            return [Noise() for _ in op.results]
        square, count = self._errors.squares.get(key, (0.0, 0))
        mean = square / count if count else 0.0
        row = self._errors.rows.get(key)
        share = _share_of(op, operands, mean)
        if row is not None:
            linear = self._errors.last[key.function].linear.get(key)
            if linear is not None and mean > 0:
                share = _through(operands[0], linear.weight, mean)
                share += added_noise(row, linear.weight, row.sums)
            share += self._rounding
            row.predicted = share
        if isinstance(op, graph.CacheUpdate):
            operands[0].share, operands[0].mean_square = share, mean
            return [operands[0]]
        return [Noise(share, mean) for _ in op.results]


def _through(x: Noise, weight: Array, mean: float) -> float:
    """What a product makes of an error of its input that has no direction."""
    squares = float(np.sum(weight.astype(np.float64) ** 2))
    return x.share * x.mean_square * squares / (len(weight) * mean)


def _share_of(op: Operation, operands: list[Noise], mean: float) -> float:
    if isinstance(op, graph.CacheUpdate):
        return operands[1].share
    if isinstance(op, graph.Attention):
        return operands[2].share
    if kind_of_op(op) in ("Add", "Sub") and mean > 0:
        return sum(each.share * each.mean_square for each in operands) / mean
    return sum(each.share for each in operands)
