"""A quantized matrix as it is stored: codes, scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.element_types import ElementType
from tilewright.dialects.quantization import Scheme

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class QuantizedWeight:
    """The matrix `[N, K]` with `w[n, k] = (codes[n, k] - zero[n, g]) * scale[n, g]`,
    `g = k // (K / G)`.
    """

    scheme: Scheme
    shape: tuple[int, int]
    """`(N, K)`: output channels and inputs."""
    codes: npt.NDArray[np.int8]
    """`[N, scheme.format.row_bytes(K)]`: the bytes of the codes."""
    scale: Array
    """`[N, G]` of `scale_element`."""
    scale_element: ElementType
    zero: npt.NDArray[np.int8] | None = None
    """`[N, G]`, where the scheme has zero points."""
