"""What goes with the codes of a weight: scales as they are stored, tables of int8 layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tilewright.backends.reference.requant import requant_table
from tilewright.compiler.weights.layout import QuantizedRequest
from tilewright.compiler.weights.quantize import CODE_RANGES, FLOAT8_MOST
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme

Array = npt.NDArray[Any]

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""What calibration found, by the key of a layer's weight: the magnitudes of the input and of the
output that the largest code stands for."""

_LARGEST_CODE = 127
_LISTED = 5
"""Layers that an error names before it says how many more there are."""


def check_ranges(keys: Iterable[str], ranges: Ranges) -> None:
    """Raises `OptionError` where layers that are to be int8 have no range."""
    missing = sorted({key for key in keys if key not in ranges})
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise OptionError(
            f"the calibration has no range for {', '.join(missing[:_LISTED])}{more}",
            why="int8 layers take the scales of their inputs and outputs from calibrated ranges",
            hint="run tw calibrate on this model, or give these weights another scheme",
        )


def empty_channels(codes: Array) -> Array:
    """Whether all codes of a channel are 0, `[N]` of codes `[N, K]`."""
    return np.asarray(~codes.any(axis=1))


def small_parts(
    group: QuantizedRequest,
    scale: Array,
    zero: Array | None,
    empty: Array,
    bias: Array | None,
    ranges: Ranges,
) -> dict[str, Array]:
    """What is stored beside codes and scales, by form; arguments as those of `int8_parts`."""
    parts: dict[str, Array] = {} if zero is None else {"zero": zero}
    if group.scheme.int8_activations:
        key = str(group.codes.source_key)
        parts |= int8_parts(key, scale.astype(np.float32), empty, bias, ranges)
    return parts


def int8_parts(
    key: str, scale: Array, empty: Array, bias: Array | None, ranges: Ranges
) -> dict[str, Array]:
    """`input_scale` and `output_scale` f32 `[1, 1]` and `requant` i32 `[N, 3]` of the layer that
    has the weight `key`.

    `scale` f32 `[N, 1]` is the weight's, `empty` bool `[N]` marks channels of zero codes, `bias`
    `[N]` is the layer's. An activation's scale is its range over 127, in f32.
    """
    ends = ranges[key]
    scales = [np.full((1, 1), end / _LARGEST_CODE, np.float32) for end in ends]
    table = requant_table(
        scale.reshape(-1),
        bias,
        float(scales[0][0, 0]),
        float(scales[1][0, 0]),
        zero_channels=empty,
        name=key,
    )
    return {"input_scale": scales[0], "output_scale": scales[1], "requant": table}


def largest_magnitude(scheme: Scheme, scales: Array, zeros: Array | None) -> tuple[float, int]:
    """The largest magnitude that codes can stand for, and the output channel that has it.

    `scales` are `[N, G]`, `zeros` i8 `[N, G]` or none.
    """
    if not scales.size:
        return 0.0, 0
    if scheme.format.is_float:
        reach = np.full((1, 1), FLOAT8_MOST[scheme.format])
    else:
        least, most = CODE_RANGES[scheme.format]
        zero = np.zeros((1, 1)) if zeros is None else zeros.astype(np.float64)
        reach = most - zero if zeros is None else np.maximum(most - zero, zero - least)
    sizes = (reach * scales.astype(np.float64)).max(axis=1)
    channel = int(np.argmax(sizes))
    return float(sizes[channel]), channel


def fitting_scale(
    scale: Array, stored: ElementType, wanted: ElementType
) -> tuple[Array, ElementType]:
    """Finished scales of type `stored` in the type `wanted` if it holds them exactly, else f32."""
    if stored == wanted:
        return scale, wanted
    wide = scale.astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype(wanted.dtype)
    if np.array_equal(narrow.astype(np.float32), wide):
        return narrow, wanted
    return wide, F32
