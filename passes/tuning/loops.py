"""The inner loop of `compensated`, compiled by numba."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_ALMOST_HALF = np.float32(0.5) - np.float32(2.0**-25)
"""The largest float32 below one half: `trunc(x + copysign(this, x))` rounds half away from zero,
exactly (see `tilewright.compiler.weights.loops`)."""
_ZERO = np.float32(0)
_FAR = np.float32(1024)
"""Beyond any code: quotients are clamped to it before they become integers."""


@numba.njit(nogil=True, cache=True)
def round_columns(
    weight: Any,
    columns: Any,
    group_of: Any,
    scale: Any,
    zero: Any,
    upper: Any,
    limits: Any,
    codes: Any,
    errors: Any,
) -> None:
    """Round columns `columns[0] .. columns[1]` of a block, handing each error on to later columns.

    `weight` f32 `[N, B]` is the block, changed in place; column `i` has scales and zero points
    `[:, group_of[i]]` of `scale` f32 and `zero` f32 `[N, G]`; `upper` f32 `[B, B]` is the Cholesky
    factor's part; codes lie in `limits`. Writes `codes` i8 and `errors` f32, both `[N, B]`.
    """
    count, width = weight.shape
    low, high = np.float32(limits[0]), np.float32(limits[1])
    for n in range(count):
        for i in range(columns[0], columns[1]):
            step, shift = scale[n, group_of[i]], zero[n, group_of[i]]
            value = weight[n, i]
            quotient = min(max(value / step, -_FAR), _FAR)
            half = _ALMOST_HALF if quotient >= _ZERO else -_ALMOST_HALF
            code = np.float32(np.int32(quotient + half)) + shift
            code = min(max(code, low), high)
            codes[n, i] = np.int8(code)
            error = (value - (code - shift) * step) / upper[i, i]
            errors[n, i] = error
            for j in range(i + 1, width):
                weight[n, j] -= error * upper[i, j]
