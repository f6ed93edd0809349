"""Values with what is known of their error: balls, and the two arithmetics that they go through.

A ball is a computed value and a radius: the value that exact real arithmetic would have given, on
the exact inputs, is no farther away than the radius. `primitives` computes with balls, one
operation of the machine at a time; `composition` whole ops of the graph; `kernels` whole kernels.

Radii are computed in float64 themselves. `SAFE` covers the roundings of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.backends.reference.numerics import F32_TINY, UNIT_ROUNDOFF
from tilewright.dialects.errors import UnsupportedError

Array = NDArray[Any]

SAFE = 1 + 2.0**-24
"""Radii are made larger by this factor: the float64 operations that compute one have relative
errors of a few 2^-53 each, the sums in it of up to 2^20 times that."""

EXACT = np.zeros(())
"""The radius of what is known exactly."""


@dataclass(frozen=True)
class Ball:
    """Values, and how far each may be from the exact one."""

    value: Array
    """Float64, or integers (which are exact)."""
    radius: Array
    """Float64, not negative, broadcasts to `value`. Infinite: nothing is known. NaN where the value
    is undefined (NaN)."""

    @staticmethod
    def exact(array: Array) -> Ball:
        """The ball of numbers that are known exactly: floats widened to float64, integers kept."""
        array = np.asarray(array)
        return Ball(array if array.dtype.kind in "iub" else array.astype(np.float64), EXACT)

    def settled(self) -> Ball:
        """The same ball; a radius that was lost on the way (infinity times zero) is infinite."""
        if self.is_exact or np.isfinite(np.sum(self.radius)):
            return self
        lost = np.isnan(self.radius) & ~np.isnan(self.value)
        return Ball(self.value, np.where(lost, np.inf, self.radius))

    @property
    def is_exact(self) -> bool:
        """Whether the radius is 0, known without looking at elements."""
        return self.radius.ndim == 0 and float(self.radius) == 0

    @property
    def radii(self) -> Array:
        """The radius of each element; not to be written to."""
        return np.broadcast_to(self.radius, self.value.shape)


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are computed: in which type, with which errors."""

    name: str
    wide: np.dtype[Any]
    """The type that operations are done in."""
    unit: float
    """The largest relative error of one correctly rounded operation."""
    function: float
    """The largest relative error of an elementary function."""
    tiny: float
    """Results below it may be lost, or have a larger relative error."""
    rounds: bool
    """Whether each result is rounded to the element type that it is stored in."""

    def widen(self, array: Array) -> Array:
        """`array` in the type of the operations."""
        return array.astype(self.wide, copy=False)

    def gamma(self, count: int) -> float:
        """The relative error of `count` roundings in a row (Higham, lemma 3.1)."""
        product = count * self.unit
        if product >= 1:
            raise UnsupportedError(f"no error bound exists for a sum of {count} terms")
        return product / (1 - product)


FLOAT64 = Arithmetic("float64", np.dtype(np.float64), 2.0**-53, 8 * 2.0**-53, 2.0**-900, False)
"""Float64 without any rounding to storage types. NumPy's vectorised functions are within 4 ulp.
`tiny` lies far above the subnormals, with which matrix products would be slow."""

MACHINE = Arithmetic(
    "machine", np.dtype(np.float32), UNIT_ROUNDOFF, 4 * UNIT_ROUNDOFF, F32_TINY, True
)
"""The machine's: f32, functions within 2 ulp, every result rounded once to its element type."""

VALUES = Arithmetic("float64 without radii", np.dtype(np.float64), 0.0, 0.0, 0.0, False)
"""The values of `FLOAT64` and no radii, at a third of the cost: for whether two runs give the same
bits. Where they do not, `FLOAT64` says whether that matters."""
