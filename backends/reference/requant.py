"""Requantization: how int32 sums of int8 products become int8 again, in integers alone.

The real factor from sums to outputs, `M = input_scale * weight_scale / output_scale`, is held as a
31-bit multiplier and a shift, `M ~ multiplier / 2^shift`, as in gemmlowp (docs/quantization.md,
"Implementation of quantized matrix multiplication") and TensorFlow Lite (`QuantizeMultiplier`,
and `MultiplyByQuantizedMultiplier` with `TFLITE_SINGLE_ROUNDING`, of lite/kernels/internal).

This is the slow, readable form that the machine is tested against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.backends.reference.numerics import round_half_away
from tilewright.dialects.errors import OptionError, UnsupportedError

Array = NDArray[Any]

INT8_LOWEST, INT8_HIGHEST = -128, 127
INT32_LOWEST, INT32_HIGHEST = -(2**31), 2**31 - 1

MULTIPLIER_BITS = 31
"""A multiplier is in `[2^30, 2^31)`: an int32 with its highest bit set, as far as it may be."""
MIN_SHIFT, MAX_SHIFT = 1, 62
"""Shifts for which `sum * multiplier + 2^(shift - 1)` fits an int64."""

BIAS, MULTIPLIER, SHIFT = 0, 1, 2
"""Columns of a table of requantization, `i32[N, 3]`."""

FREE_SHIFT = 24
"""Bits behind the point of the bias of a channel whose weights are all zero."""


def requant_parameters(real_multiplier: float) -> tuple[int, int]:
    """`(multiplier, shift)` with `real_multiplier ~ multiplier / 2^shift`, within `2^-31` of it.

    `real_multiplier = f * 2^e` with `f` in `[1/2, 1)` becomes `(round(f * 2^31), 31 - e)`, halves
    away from zero. Below `2^-32`, and for 0, it is `(0, 1)`: every int32 sum then gives 0, as the
    real number does. From `2^30` on it is `(2^31 - 1, 1)`: every sum but 0 saturates, as with the
    real number. Raises `OptionError` for a negative number, an infinity or NaN.
    """
    multiplier, shift = _parameters(np.array([real_multiplier], dtype=np.float64))
    return int(multiplier[0]), int(shift[0])


def _parameters(real: Array) -> tuple[Array, Array]:
    """`requant_parameters` of an array."""
    bad = ~(np.isfinite(real) & (real >= 0))
    if bool(bad.any()):
        index = int(np.argmax(bad))
        raise OptionError(
            f"requantization by {real[index]} is not possible",
            where=f"channel {index}",
            why="the factor input_scale * weight_scale / output_scale is positive and finite",
            hint="calibrate again: a range was zero, infinite or NaN",
        )
    fraction, exponent = np.frexp(real)
    multiplier = round_half_away(np.ldexp(fraction, MULTIPLIER_BITS)).astype(np.int64)
    shift = MULTIPLIER_BITS - exponent.astype(np.int64)
    carried = multiplier == 1 << MULTIPLIER_BITS
    multiplier, shift = np.where(carried, multiplier >> 1, multiplier), shift - carried
    nothing, everything = (real == 0) | (shift > MAX_SHIFT), shift < MIN_SHIFT
    multiplier = np.where(nothing, 0, np.where(everything, INT32_HIGHEST, multiplier))
    shift = np.where(nothing | everything, MIN_SHIFT, shift)
    return multiplier.astype(np.int32), shift.astype(np.int32)


def requantize(sums: Array, multiplier: Array | int, shift: Array | int) -> Array:
    """`clamp((sums * multiplier + 2^(shift - 1)) >> shift, -128, 127)` as int8.

    `sums` are int32, products int64; the shift is arithmetic, so halves go up. Shifts are 1 to 62
    (of another one the lowest six bits count; 0 shifts nothing). `multiplier` and `shift`
    broadcast.
    """
    factor, bits = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64) & 63
    rounding = np.where(bits > 0, np.left_shift(np.int64(1), np.maximum(bits, 1) - 1), 0)
    scaled = np.right_shift(np.asarray(sums, np.int64) * factor + rounding, bits)
    return np.clip(scaled, INT8_LOWEST, INT8_HIGHEST).astype(np.int8)


def add_bias(sums: Array, bias: Array) -> Array:
    """`sums + bias` as int32; what does not fit saturates."""
    total = np.asarray(sums, np.int64) + np.asarray(bias, np.int64)
    return np.clip(total, INT32_LOWEST, INT32_HIGHEST).astype(np.int32)


def requantize_by_table(sums: Array, table: Array) -> Array:
    """int32 sums `[..., N]` to int8 by a table `i32[N, 3]` of biases, multipliers and shifts."""
    total = add_bias(sums, table[:, BIAS])
    return requantize(total, table[:, MULTIPLIER], table[:, SHIFT])


def quantize_activations(x: Array, scale: Array | float) -> Array:
    """`clamp(round(f32(x) / f32(scale)), -128, 127)` as int8, halves to even, NaN to 0.

    An f32 division, rounded, and then rounded to integers: the QuantizeLinear of ONNX with zero
    point 0. `x` has any floating-point type.
    """
    with np.errstate(all="ignore"):
        quotient = np.asarray(x).astype(np.float32) / np.asarray(scale, np.float32)
        rounded = np.nan_to_num(np.rint(quotient), nan=0.0)
    return np.clip(rounded, INT8_LOWEST, INT8_HIGHEST).astype(np.int8)


def requant_table(
    weight_scale: Array,
    bias: Array | None,
    input_scale: float,
    output_scale: float,
    *,
    zero_channels: Array | None = None,
    name: str = "weight",
) -> Array:
    """The table `i32[N, 3]` of a layer: biases, multipliers and shifts of its channels.

    `M = input_scale * weight_scale[n] / output_scale` in float64 (the product of two f32 is exact),
    `bias = round(bias[n] / (input_scale * weight_scale[n]))`, halves away from zero: it is off by
    at most half a unit of the sums. Where `zero_channels[n]`, all codes are 0, and the scale of the
    sums is free: there it is `output_scale / 2^24`, so that a small bias beside a large input is
    kept, or what the bias needs to fit.

    Raises `OptionError` for a scale that is not positive and finite, `UnsupportedError` for a bias
    that is not finite or does not fit 32 bits; errors name `name` and the channel.
    """
    scale = np.asarray(weight_scale, np.float64).reshape(-1)
    biases = np.zeros_like(scale) if bias is None else np.asarray(bias, np.float64).reshape(-1)
    for what, values in (("weight", scale), ("input", input_scale), ("output", output_scale)):
        _check_scale(what, np.asarray(values, np.float64).reshape(-1), name)
    unit = float(input_scale) * scale
    if zero_channels is not None:
        unit = np.where(zero_channels, _free_unit(biases, float(output_scale)), unit)
    multiplier, shift = _parameters(unit / float(output_scale))
    with np.errstate(over="ignore"):
        sums = round_half_away(biases / unit)
    _check_bias(sums, biases, unit, name)
    return np.stack([sums.astype(np.int32), multiplier, shift], axis=1)


def _free_unit(bias: Array, output_scale: float) -> Array:
    """A scale of sums in which a bias that is any finite number fits 31 bits."""
    _, exponent = np.frexp(np.abs(bias) / output_scale)
    bits = np.clip(30 - exponent.astype(np.int64), -30, FREE_SHIFT)
    return np.ldexp(output_scale, -bits)


def _check_scale(what: str, values: Array, name: str) -> None:
    bad = ~(np.isfinite(values) & (values > 0))
    if bool(bad.any()):
        index = int(np.argmax(bad))
        raise OptionError(
            f"the {what} scale of {name!r} is {values[index]}",
            where=f"channel {index}" if len(values) > 1 else name,
            why="a scale is positive and finite",
        )


def _check_bias(sums: Array, bias: Array, unit: Array, name: str) -> None:
    bad = ~((sums >= INT32_LOWEST) & (sums <= INT32_HIGHEST))
    if bool(bad.any()):
        index = int(np.argmax(bad))
        raise UnsupportedError(
            f"the bias {bias[index]} of channel {index} of {name!r} does not fit 32 bits",
            where=name,
            why=f"it is counted in units of input_scale * weight_scale = {unit[index]:g}",
            hint="leave this layer in 16 bits: --quant-rule KEY=w8a16",
        )
