"""Where the weights of a compilation come from: a checkpoint, or one with some weights replaced."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy.typing as npt

from tilewright.compiler.weights.container import TensorInfo
from tilewright.compiler.weights.quantized import QuantizedWeight

Array = npt.NDArray[Any]


class WeightSource(Protocol):
    """What the weight store reads. `WeightContainer` is one, whose weights are all dense."""

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        ...

    def info(self, key: str) -> TensorInfo:
        """Shape and type of a tensor (of a quantized one: `(N, K)`, and what it was made of);
        raises `ModelReadError` where there is none of that name."""
        ...

    def quantized(self, key: str) -> QuantizedWeight | None:
        """The tensor as it was quantized before, to be used as it is; none if it is dense."""
        ...

    def read_rows(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows of a dense tensor, as `WeightContainer.read_rows`."""
        ...

    def read_columns(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Columns of a dense matrix, as `WeightContainer.read_columns`."""
        ...

    def fingerprints(self) -> Mapping[str, str]:
        """What identifies the source, for the manifest."""
        ...


class OpenCheckpoint(WeightSource, Protocol):
    """A source whose files are open, as a context manager that closes them."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def close(self) -> None:
        """Closes the files; reading is over."""
        ...

    def read(self, key: str) -> Array:
        """The whole of a dense tensor, in its stored type."""
        ...
