"""What is said of a peer: whose it is, which scheme it claims, what it does otherwise on purpose.

A convention is what a peer's documentation, format or code says that it does on purpose, and that a
property of the suite does not allow: where that property fails, it is reported as a convention,
with the reason. All else that fails is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.testing import Quantizer

Array = npt.NDArray[Any]
Quantize = Callable[[Array], tuple[Array, ...]]

PER_CHANNEL = Scheme(CodeFormat.I8)


def int8(group: int = 0, zero_point: bool = False) -> Scheme:
    """Codes of 8 bits; zero points are -128..127."""
    return Scheme(CodeFormat.I8, group, zero_point)


def int4(group: int) -> Scheme:
    """Signed codes of 4 bits without zero points."""
    return Scheme(CodeFormat.I4, group)


def uint4(group: int) -> Scheme:
    """Codes and zero points 0..15."""
    return Scheme(CodeFormat.U4, group, True)


@dataclass(frozen=True)
class Peer:
    """A quantizer of a library."""

    name: str
    distribution: str
    """The name by which the library is installed; its version is printed."""
    claims: str
    """Divisor, rounding, type of scales, group: by which it is judged."""
    scheme: Scheme
    quantizer: Quantizer
    dtype: npt.DTypeLike = np.float32
    """The type of weights that it is given."""
    conventions: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it does otherwise on purpose, by the property that does not hold then."""


def conventions_of(properties: Iterable[str], reason: str) -> dict[str, str]:
    """One reason for several properties."""
    return dict.fromkeys(properties, reason)


ROUNDED_SCALE = {"error-bound": "scales are rounded to f16 after the codes, by the format"}
"""`error-bound-of-rounded-scales` is for these."""

ZERO_SCALE = conventions_of(
    ("scales-are-positive", "zero-channels"),
    "a block of zeros has scale 0, and codes that mean 0, by an explicit case",
)

ENDS_AT_HALF = conventions_of(
    ("symmetric-codes", "exact-on-the-grid", "idempotence", "sign-symmetry"),
    "the step is the range by all codes (/ 127.5, / 7.5): the range ends between two codes",
)

SIGNED_SCALE = conventions_of(
    (
        "symmetric-codes",
        "scales-are-positive",
        "zero-channels",
        "sign-symmetry",
        "monotone-codes",
        "column-permutation",
        "exact-on-the-grid",
    ),
    "the scale is the largest weight, with its sign, by -8: codes -8..7, any sign of scale",
) | conventions_of(
    ("error-bound", "error-bound-of-rounded-scales", "outliers", "largest-f16"),
    "the opposite of the largest weight is +8 steps, of which there are 7: up to one is lost",
)
"""Of quantizers that give the largest weight the code -8."""
