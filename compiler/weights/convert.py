"""Dense weights in the compute type: rounded to nearest even, and never to infinity."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.weights.quantize import not_finite
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import ModelReadError

Array = npt.NDArray[Any]

_MAGNITUDES = {
    F32: (np.uint32, 0x7FFFFFFF, 0x7F800000),
    F16: (np.uint16, 0x7FFF, 0x7C00),
    BF16: (np.uint16, 0x7FFF, 0x7F80),
}
"""The integers that floats of a type are compared as: their dtype, the bits without the sign, and
infinity."""


def convert(values: Array, source: ElementType, target: ElementType) -> Array:
    """`values` of type `source` as `target`. Raises `NotConvertible` for NaN, Inf and what
    overflows."""
    if not all_finite(values, source):
        raise NotConvertibleError(
            int(np.argmax(~np.isfinite(values.reshape(-1).astype(np.float32))))
        )
    if source == target:
        return values
    with np.errstate(over="ignore", under="ignore"):
        # Every 16-bit float is an f32: only the second conversion rounds.
        result = values.astype(np.float32).astype(target.dtype)
    if not all_finite(result, target):
        flat = result.reshape(-1).astype(np.float32)
        raise NotConvertibleError(int(np.argmax(~np.isfinite(flat))))
    return result


class NotConvertibleError(Exception):
    """The value at a flat index is not finite, or too large for the target."""

    def __init__(self, flat_index: int) -> None:
        self.flat_index = flat_index
        super().__init__(flat_index)


def all_finite(values: Array, element: ElementType) -> bool:
    """Whether there is neither NaN nor Inf; compares integers, so nothing is converted."""
    unsigned, without_sign, infinity = _MAGNITUDES[element]
    bits = values.reshape(-1).view(unsigned) & unsigned(without_sign)
    return bits.size == 0 or int(bits.max()) < infinity


def rejection(
    name: str, value: float, index: tuple[int, ...], target: ElementType
) -> ModelReadError:
    """The error for the weight at `index`: not finite, or too large for `target`."""
    if not np.isfinite(value):
        return not_finite(name, value, index)
    return too_large(name, f"holds {value:g} at index {list(index)}", target)


def too_large(name: str, holds: str, target: ElementType) -> ModelReadError:
    """The error for finite weights that would become infinite in `target`."""
    return ModelReadError(
        f"weight {name!r} {holds}: too large for {target.name}",
        why=f"the largest {target.name} value is {float(np.finfo(np.float16).max):g}"
        if target == F16
        else None,
        hint="compile with the activation type bf16" if target == F16 else None,
    )
