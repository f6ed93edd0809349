"""The predicted error of a layer's output if its weight is stored in a scheme.

It is the energy of the error over the energy of the output, `tr(dW H dW^T) / tr(W H W^T)` with
`H = X^T X / rows` of the layer's inputs: relative, because what follows normalizes. H is that of a
calibration, or as much of it as there is: its diagonal, the squares of mean magnitudes, or, with no
calibration at all, the same for all inputs. Where there are no weights either, they are taken to be
Gaussian (`expected_noise`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewright.backends.reference.numerics import dequantize, quantize
from tilewright.compiler.quantization.expected_noise import expected_noise
from tilewright.compiler.quantization.linear_weights import LinearWeight
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.quantization import DENSE, parse_scheme

Array = npt.NDArray[Any]

SAMPLE_BLOCKS, SAMPLE_ROWS = 8, 16
"""Rows that the error is measured on: so many blocks of so many, evenly over the channels. Channels
are quantized each by itself, so that a sample of them says what all of them do."""
_ELEMENTS = {"f32": F32, "f16": F16, "bf16": BF16}


class DenseMatrices(Protocol):
    """What weights are read from: the part of a `WeightSource` that is needed."""

    def read_rows(self, key: str, start: int, stop: int) -> Array:
        """Rows of a dense matrix."""
        ...

    def read_columns(self, key: str, start: int, stop: int) -> Array:
        """Columns of a dense matrix."""
        ...


class Statistics(Protocol):
    """What is known of the inputs of a layer (`compiler.calibration`)."""

    @property
    def mean_abs(self) -> Array: ...

    @property
    def hessian(self) -> Array | None: ...


@dataclass(frozen=True)
class LayerErrors:
    """Predicts errors from the weights in `source`, if there is one."""

    source: DenseMatrices | None
    compute: str
    """The type of activations, and of scales."""

    def of(
        self, weight: LinearWeight, quants: list[str], statistics: Statistics | None = None
    ) -> list[float]:
        """The error of each of `quants`, whose groups divide the weight's inputs."""
        if self.source is None:
            return [expected_noise(quant, weight.depth) for quant in quants]
        rows = sample_rows(self.source, weight)
        energy = _output_energy(rows, statistics)
        if energy == 0:
            return [0.0 for _ in quants]
        element = _ELEMENTS[self.compute]
        return [
            _output_energy(rounded(rows, quant, element, weight.key) - rows, statistics) / energy
            for quant in quants
        ]


def rounded(rows: Array, quant: str, compute: ElementType, name: str) -> Array:
    """What is left of f32 `rows` in a scheme or dense type, as f32."""
    if quant in DENSE:
        return rows.astype(_ELEMENTS[quant].dtype).astype(np.float32)
    scheme = parse_scheme(quant)
    codes, scale, zero = quantize(rows, scheme, compute, name=name)
    return dequantize(codes, scale, compute, zero, scheme.format).astype(np.float32)


def sample_rows(source: DenseMatrices, weight: LinearWeight) -> Array:
    """Some rows `[R, K]` of a weight, one for each output channel, as f32."""
    count = min(SAMPLE_ROWS, weight.channels)
    blocks = min(SAMPLE_BLOCKS, weight.channels // count)
    starts = np.linspace(0, weight.channels - count, blocks).astype(int)
    read = source.read_columns if weight.transposed else source.read_rows
    parts = [np.asarray(read(weight.key, int(start), int(start) + count)) for start in starts]
    rows = [part.T if weight.transposed else part for part in parts]
    return np.concatenate(rows).astype(np.float32)


def _output_energy(rows: Array, statistics: Statistics | None) -> float:
    """`tr(R H R^T)`, up to a factor that is the same for all R of a layer."""
    wide = rows.astype(np.float64)
    if statistics is None:
        return float(np.vdot(wide, wide))
    if statistics.hessian is not None:
        return float(np.vdot(wide @ statistics.hessian, wide))
    return float(np.sum(wide**2 @ statistics.mean_abs.astype(np.float64) ** 2))
