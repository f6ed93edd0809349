"""How far a quantized weight may be from the weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.quantization import Scheme
from tilewright.testing.formats import code_limit, code_spacing

Array = npt.NDArray[Any]

_F32_UNIT = 2.0**-24


def quantization_error_bound(
    scale: Array,
    codes: Array,
    scheme: Scheme,
    *,
    scale_rounded_after: float = 0.0,
) -> Array:
    """The largest `abs(w - (code - zero) * scale)` that rounding to nearest allows, f64[N, K].

    `scale` is f[N, G], `codes` the values of the codes `[N, K]` (floats of 8 bits as floats; with
    zero points: steps from the zero point). `scale_rounded_after` is the largest relative error of
    the stored scale against that which the codes were made with: 0 if that was the stored one,
    2^-11 where it was rounded to f16 afterwards, 2^-8 for bf16.

    Derivation. `q = round(w / s)` with steps of `d` between codes (1 for integers; the distance of
    neighbouring floats at q for 8-bit floats) gives `abs(w / s - q) <= d / 2`, so the error is at
    most `s d / 2`, if nothing is clipped. The division is done in f32: `w / s` of at most `limit`
    has an error of `limit * 2^-24`, so a value that near to a tie may go to the wrong side, and the
    bound grows by `2 limit 2^-24`. With a scale `s' = s (1 + e)` stored afterwards, `abs(w - q s')
    <= s d / 2 + abs(q) s abs(e)`, where `s <= s' / (1 - abs(e))`.
    """
    codes = np.asarray(codes, np.float64)
    steps = np.abs(np.asarray(scale, np.float64))  # of either sign in some formats
    wide = np.repeat(steps, codes.shape[1] // scale.shape[1], axis=1)
    divided = 1 + 2 * (code_limit(scheme) + 1) * _F32_UNIT
    half = wide * code_spacing(codes, scheme) / 2 * divided
    if not scale_rounded_after:
        return half
    made_with = 1 / (1 - scale_rounded_after)
    return (half + np.abs(codes) * wide * scale_rounded_after) * made_with
