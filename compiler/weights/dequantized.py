"""A quantized checkpoint as the dense one that it stands for, to be quantized anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from tilewright.compiler.weights.container import TensorInfo
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.compiler.weights.source import WeightSource

Array = npt.NDArray[Any]


class DequantizedWeights:
    """A `WeightSource` none of whose tensors is quantized: what reads gives the values of codes,
    as `source` does (`PackedCheckpoint`: in f32, exact for scales of 16 bits)."""

    def __init__(self, source: WeightSource) -> None:
        self.source = source

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return self.source.keys()

    def info(self, key: str) -> TensorInfo:
        """As the source's."""
        return self.source.info(key)

    def quantized(self, key: str) -> QuantizedWeight | None:
        """None: all tensors are dense."""
        del key
        return None

    def read_rows(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """As the source's."""
        return self.source.read_rows(key, start, stop, out)

    def read_columns(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """As the source's."""
        return self.source.read_columns(key, start, stop, out)

    def fingerprints(self) -> Mapping[str, str]:
        """As the source's."""
        return self.source.fingerprints()
