"""What flows into and out of the linear layers of a model while it runs in floating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation, SSAValue

from tilewright.compiler.calibration.calibration import LayerRange
from tilewright.compiler.calibration.histogram import MagnitudeHistogram
from tilewright.compiler.calibration.methods import Method
from tilewright.compiler.calibration.statistics import InputStatistics, InputSums
from tilewright.dialects import top
from tilewright.dialects.errors import ModelReadError, UnsupportedError
from tilewright.dialects.scopes import where_of
from tilewright.passes.lowerings.int8 import folded_bias

Array = npt.NDArray[Any]
_Tensor: TypeAlias = tuple[str, SSAValue]
"""A value of a function, under a scope."""
DEAD_RANGE = 1.0
"""The range of a tensor that was 0 throughout (docs/numerics.md: a channel of zeros has scale 1,
too)."""


@dataclass
class _Layer:
    """What has been seen of the layer of one weight."""

    inputs: list[_Tensor] = field(default_factory=list[_Tensor])
    """The tensors that it has read: one, unless several layers share the weight."""
    outputs: MagnitudeHistogram = field(default_factory=MagnitudeHistogram)
    rows: int = 0


@dataclass(frozen=True)
class Observed:
    """Ranges and statistics of all layers that were reached, by resolved key."""

    ranges: dict[str, LayerRange]
    statistics: dict[str, InputStatistics]


def layer_of(op: Operation) -> tuple[top.MatMulOp, top.WeightOp] | None:
    """A linear layer and its weight, if `op` is one."""
    if isinstance(op, top.MatMulOp) and isinstance(op.right.owner, top.WeightOp):
        return op, op.right.owner
    return None


def _quantized_output(op: top.MatMulOp, inputs: Sequence[Array], output: Array) -> Array:
    """What an int8 layer would make int8: its output, before a bias that is added afterwards."""
    if op.bias is None or folded_bias(op) is not None:
        return output
    return output - inputs[2]


class LayerObserver:
    """Watches `run_function` (it is its `on_op`), one sample after the other."""

    def __init__(self, *, hessian: bool = False) -> None:
        self._hessian = hessian
        self._layers: dict[str, _Layer] = {}
        self._sums: dict[_Tensor, InputSums] = {}
        self._owners: dict[_Tensor, Operation] = {}
        self._where = ""
        self._positions = self._real = 0

    def begin(self, where: str, *, positions: int = 0, real: int = 0) -> None:
        """The next run is of the sample at `where`. With `positions`, tensors have so many rows, of
        which only the first `real` stand for tokens and count; the others are padding."""
        self._where, self._positions, self._real = where, positions, real

    def __call__(
        self, op: Operation, scope: str, inputs: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        """See one op; linear layers only are counted."""
        linear = layer_of(op)
        if linear is None:
            return
        op, weight = linear
        key = scope + weight.key.data
        layer = self._layers.setdefault(key, _Layer())
        tensor = (scope, op.x)
        if tensor not in layer.inputs:
            layer.inputs.append(tensor)
        # Layers that read one tensor (queries, keys, values) share its sums: the first adds to it.
        if self._owners.setdefault(tensor, op) is op:
            x = self._rows(op, inputs[0], f"the input of {key!r}")
            if tensor not in self._sums:
                self._sums[tensor] = InputSums(x.shape[1], hessian=self._hessian)
            self._sums[tensor].add(x)
        y = self._rows(op, _quantized_output(op, inputs, outputs[0]), f"the output of {key!r}")
        layer.outputs.add(np.abs(y))
        layer.rows += len(y)

    def _rows(self, op: Operation, array: Array, what: str) -> Array:
        """The rows of `array` that stand for tokens, `[rows, channels]`, checked."""
        if self._real < self._positions and array.shape[0] != 1:
            if array.shape[0] != self._positions:
                raise UnsupportedError(
                    f"which rows of {what} are padding cannot be told",
                    where=where_of(op),
                    why=f"its shape is {list(array.shape)}, of a model with {self._positions} "
                    f"positions; the sample has {self._real} tokens",
                    hint="calibrate with samples as long as --seq",
                )
            array = array[: self._real]
        rows = array.reshape(-1, array.shape[-1])
        if not np.isfinite(rows).all():
            row, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
            raise ModelReadError(
                f"{what} is not finite: {rows[row, column]}",
                where=f"{self._where}, row {row}, channel {column}",
                why="a range cannot be taken of it",
                hint="look for NaN or infinity in the weights (tw compile names the tensor), or "
                "leave this sample out",
            )
        return rows

    def finish(self, method: Method) -> Observed:
        """The ranges by `method`, and the statistics. What was observed is used up."""
        finished: dict[tuple[_Tensor, ...], tuple[MagnitudeHistogram, InputStatistics]] = {}
        # Those of several tensors first: `InputSums.finish` uses the sums up.
        for layer in sorted(self._layers.values(), key=lambda layer: -len(layer.inputs)):
            tensors = tuple(layer.inputs)
            if tensors not in finished:
                sums = self._merged(tensors)
                finished[tensors] = (sums.histogram, sums.finish())
        observed = Observed({}, {})
        for key, layer in self._layers.items():
            inputs, observed.statistics[key] = finished[tuple(layer.inputs)]
            observed.ranges[key] = LayerRange(
                method.clip(inputs) or DEAD_RANGE,
                method.clip(layer.outputs) or DEAD_RANGE,
                layer.rows,
                inputs.absmax,
                layer.outputs.absmax,
            )
        return observed

    def _merged(self, tensors: tuple[_Tensor, ...]) -> InputSums:
        """The sums of one tensor or, new ones, of several together."""
        parts = [self._sums[tensor] for tensor in tensors]
        if len(parts) == 1:
            return parts[0]
        merged = InputSums(parts[0].channels, hessian=self._hessian)
        for part in parts:
            merged.merge(part)
        return merged
