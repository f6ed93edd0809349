"""Outlier channels, planted without changing what the model computes.

Large language models grow them by themselves: a few hidden channels that a normalization scales
down and the weights behind it scale up. Here the weight of the normalization is divided by a power
of two and the columns that meet it multiplied by it: in binary floating point both are exact, and
so is every product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

CHANNELS = 4
"""Outlier channels of each normalization."""
FACTOR = 32

Array = npt.NDArray[Any]

_READERS = {
    "input_layernorm.weight": "self_attention.query_key_value.weight",
    "post_attention_layernorm.weight": "mlp.dense_h_to_4h.weight",
}
"""Which matrix reads which normalization, in each layer."""


def plant_outliers(weights: Mapping[str, Array], *, seed: int = 0) -> dict[str, Array]:
    """The weights with `CHANNELS` columns `FACTOR` times as large in two matrices a layer.

    Raises `ArithmeticError` where f16 could not hold a scaled value exactly.
    """
    generator = np.random.default_rng(seed)
    planted = {name: weight.copy() for name, weight in weights.items()}
    for name, norm in planted.items():
        for suffix, reader in _READERS.items():
            if name.endswith(suffix):
                channels = generator.choice(len(norm), CHANNELS, replace=False)
                matrix = planted[name.removesuffix(suffix) + reader]
                _scale(norm, channels, 1 / FACTOR)
                _scale(matrix.T, channels, FACTOR)
    return planted


def _scale(rows: Array, channels: Array, factor: float) -> None:
    scaled = rows[channels].astype(np.float64) * factor
    stored = scaled.astype(rows.dtype)
    if not np.array_equal(stored, scaled):
        raise ArithmeticError(f"{rows.dtype} does not hold all values times {factor}")
    rows[channels] = stored
