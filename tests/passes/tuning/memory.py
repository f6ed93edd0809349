"""Weights and statistics in memory, for tests of passes that tune weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.quantization import Scheme
from tilewright.passes.tuning.data import ScaledStatistics, TuningData
from tilewright.passes.tuning.rounding import Rounded

Array = npt.NDArray[Any]


@dataclass
class MemoryWeights:
    """`TunableWeights` that keeps the types of its arrays."""

    arrays: dict[str, Array]
    stored: dict[str, Rounded] = field(default_factory=dict[str, Rounded])

    def read(self, key: str) -> Array:
        return self.arrays[key]

    def replace(self, key: str, array: Array) -> None:
        assert array.shape == self.arrays[key].shape
        self.arrays[key] = array

    def store(
        self, key: str, codes: Array, scale: Array, zero: Array | None, scheme: Scheme
    ) -> None:
        self.stored[key] = Rounded(codes, scale, zero, scheme.format)

    def is_stored(self, key: str) -> bool:
        return key in self.stored


def statistics_of(inputs: Array, *, hessian: bool = True) -> ScaledStatistics:
    """The statistics of rows `[rows, K]`."""
    wide = inputs.astype(np.float64)
    return ScaledStatistics(
        np.abs(wide).max(axis=0),
        np.abs(wide).mean(axis=0),
        wide.T @ wide / len(wide) if hessian else None,
    )


def data_of(
    arrays: dict[str, Array], inputs: dict[str, Array], quant: str, *, hessian: bool = True
) -> TuningData:
    """Every linear layer in `quant`; `inputs` are those of layers, by key."""
    known = {key: statistics_of(rows, hessian=hessian) for key, rows in inputs.items()}
    return TuningData(MemoryWeights(dict(arrays)), known.get, lambda key: quant)


def correlated(rng: np.random.Generator, rows: int, depth: int) -> Array:
    """Inputs of which some are large and all depend on each other."""
    mixing = np.eye(depth) + 0.5 * rng.standard_normal((depth, depth)) / depth**0.5
    sizes = np.exp(0.7 * rng.standard_normal(depth))
    return (rng.standard_normal((rows, depth)) @ mixing * sizes).astype(np.float32)
