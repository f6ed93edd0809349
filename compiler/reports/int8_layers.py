"""Layers with int8 activations: what rounding their inputs and outputs adds, seen on real rows.

`x` becomes `clamp(round(x / s_x))`, the sum of products `clamp(round(y / s_y))`, with the scales of
the calibration's ranges over 127 (docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation

from tilewright.backends.reference.requant import INT8_HIGHEST, INT8_LOWEST
from tilewright.compiler.calibration.calibration import LayerRange
from tilewright.compiler.calibration.observe import layer_of
from tilewright.compiler.calibration.samples import Sample
from tilewright.compiler.reports.figures import ChannelSums
from tilewright.compiler.reports.sensitivity import QuantizedMatrix

Array = npt.NDArray[Any]


@dataclass
class Int8Observer:
    """Watches runs of the float model (`on_op`) and computes each int8 layer beside it."""

    matrices: Mapping[str, QuantizedMatrix]
    ranges: Mapping[str, LayerRange]
    sums: dict[str, ChannelSums] = field(default_factory=dict[str, ChannelSums])
    _sample: Sample | None = None

    def begin(self, sample: Sample) -> None:
        """The next run is of this sample."""
        self._sample = sample

    def __call__(
        self, op: Operation, scope: str, inputs: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        linear = layer_of(op)
        key = "" if linear is None else scope + linear[1].key.data
        if key not in self.matrices:
            return
        x, y = self._rows(inputs[0]), self._rows(outputs[0])
        bias = inputs[2].astype(np.float64) if len(inputs) > 2 else 0.0
        matrix, reach = self.matrices[key], self.ranges[key]
        rounded = round_to_codes(x, reach.input_absmax)
        made = round_to_codes(
            rounded @ matrix.made.T.astype(np.float64) + bias, reach.output_absmax
        )
        sums = ChannelSums.of(y - bias, made - bias)
        self.sums[key] = self.sums[key] + sums if key in self.sums else sums

    def _rows(self, array: Array) -> Array:
        sample = self._sample
        if sample is not None and 0 < sample.tokens < sample.positions == len(array):
            array = array[: sample.tokens]
        return array.reshape(-1, array.shape[-1]).astype(np.float64)


def round_to_codes(values: Array, reach: float) -> Array:
    """What int8 codes with the scale `reach / 127` leave of values, as f64."""
    scale = reach / INT8_HIGHEST
    return np.clip(np.rint(values / scale), INT8_LOWEST, INT8_HIGHEST) * scale


def activation_noise(matrix: QuantizedMatrix, reach: LayerRange, signal: float) -> float:
    """What both roundings are predicted to add to a row of outputs, over its energy `signal`:
    `s_x^2 / 12` times the weights' squares, and `s_y^2 / 12` for each channel."""
    if signal == 0:
        return 0.0
    step_in, step_out = reach.input_absmax / INT8_HIGHEST, reach.output_absmax / INT8_HIGHEST
    squares = float(np.sum(matrix.exact.astype(np.float64) ** 2))
    return (step_in**2 * squares + step_out**2 * len(matrix.exact)) / 12 / signal
