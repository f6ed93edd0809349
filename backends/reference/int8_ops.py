"""What the ops of int8 layers compute, in both semantics, and what errors of operands lead to.

Integers are computed exactly: `tpu.Quantize` and `tpu.Int8MatMul` must be equal to the bit. Where
an activation has an error already, the codes made of it may differ, and all that follows: both
steps are monotone, so the ends of an interval give those of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference import bounds, composition, evaluation
from tilewright.backends.reference.balls import EXACT, Arithmetic, Ball
from tilewright.backends.reference.requant import (
    INT8_HIGHEST,
    INT8_LOWEST,
    INT32_HIGHEST,
    INT32_LOWEST,
    quantize_activations,
    requantize_by_table,
)
from tilewright.dialects import tpu
from tilewright.dialects.graph import shape_of, storage_of

Array = NDArray[Any]

ANY_CODE = float(INT8_HIGHEST - INT8_LOWEST)
"""How far apart two codes may be."""

# What is computed.


@evaluation.register(tpu.QuantizeOp)
def evaluate_quantize(
    op: tpu.QuantizeOp, inputs: Sequence[Array], semantics: evaluation.Semantics
) -> Array:
    """Codes, in every semantics."""
    del op, semantics
    return quantize_activations(inputs[0], inputs[1])


@evaluation.register(tpu.DequantizeOp)
def evaluate_dequantize(
    op: tpu.DequantizeOp, inputs: Sequence[Array], semantics: evaluation.Semantics
) -> Array:
    """The product, exact in float64."""
    product = inputs[0].astype(np.float64) * inputs[1].astype(np.float64)
    return semantics.finish(product, storage_of(op.result))


@evaluation.register(tpu.Int8MatMulOp)
def evaluate_int8_matmul(
    op: tpu.Int8MatMulOp, inputs: Sequence[Array], semantics: evaluation.Semantics
) -> Array:
    """Sums in int32, requantized."""
    del semantics
    x, codes, table = inputs
    result = np.empty(shape_of(op.result), dtype=np.int8)
    for channels in evaluation.channel_blocks(codes.shape[0]):
        product = np.matmul(x.astype(np.float64), codes[channels].astype(np.float64).T)
        sums = product.astype(np.int32)
        result[..., channels] = requantize_by_table(sums, table[channels])
    return result


def int8_product(x: Array, codes: Array) -> Array:
    """`x[..., K] @ codes[N, K]^T` of integers, exact in float64."""
    return np.matmul(x.astype(np.float64), codes.astype(np.float64).T)


@bounds.register(tpu.QuantizeOp, tpu.Int8MatMulOp)
def bound_of_integers(op: Operation, inputs: Sequence[Array], exact: Array) -> None:
    """Equal to the bit."""
    del op, inputs, exact


@bounds.register(tpu.DequantizeOp)
def bound_dequantize(op: tpu.DequantizeOp, inputs: Sequence[Array], exact: Array) -> Array:
    """One rounding of an exact product, which `bounds.bound` adds."""
    del op, inputs
    return np.zeros_like(exact)


# Errors of operands.


def quantized(x: Ball, scale: Ball) -> Ball:
    """Codes of an activation; NaN where the scale was destroyed."""

    def codes_of(values: Array) -> Array:
        return quantize_activations(values, scale.value)

    result = _monotone(x, codes_of) if _is_certain(scale) else _any(codes_of(x.value))
    lost = bool(np.isnan(scale.value).any())
    return Ball(np.full(x.value.shape, np.nan), result.radius) if lost else result


def summed(x: Ball, codes: Ball, *, transpose_right: bool = True) -> Ball:
    """Sums of products of integers, exact in float64."""
    right = transposed(codes) if transpose_right else codes
    left, weight = x.value.astype(np.float64), right.value.astype(np.float64)
    value = np.matmul(left, weight)
    if x.is_exact and codes.is_exact:
        return Ball(value, EXACT)
    reach = np.abs(left) + x.radii
    return Ball(value, np.matmul(x.radii, np.abs(weight)) + np.matmul(reach, right.radii))


def added(one: Ball, other: Ball) -> Ball:
    """A sum of integers."""
    radius = EXACT if one.is_exact and other.is_exact else one.radii + other.radii
    return Ball(one.value.astype(np.float64) + other.value, radius)


def transposed(x: Ball) -> Ball:
    """The transpose of a matrix."""
    return Ball(x.value.T, x.radius if x.is_exact else x.radii.T)


def requantized(sums: Ball, table: Ball) -> Ball:
    """Codes of sums `[..., N]` by a table `[N, 3]`; NaN where one of them was destroyed."""
    no_row: Array = np.any(np.isnan(table.value.astype(np.float64)), axis=1, keepdims=True)
    numbers = np.where(no_row, (0, 0, 1), table.value).astype(np.int32)
    lost: Array = no_row[:, 0] | np.isnan(sums.value.astype(np.float64))

    def codes_of(values: Array) -> Array:
        clean = np.clip(np.nan_to_num(values, nan=0.0), INT32_LOWEST, INT32_HIGHEST)
        return requantize_by_table(clean.astype(np.int32), numbers)

    result = _monotone(sums, codes_of) if _is_certain(table) else _any(codes_of(sums.value))
    return Ball(np.where(lost, np.nan, result.value), result.radius) if lost.any() else result


def dequantized_by_one(x: Ball, scale: Ball) -> Ball:
    """Codes times one scale: exact, but for the errors of both."""
    value = x.value.astype(np.float64) * scale.value
    if x.is_exact and scale.is_exact:
        return Ball(value, EXACT)
    reach = np.abs(x.value.astype(np.float64)) + x.radii
    return Ball(value, x.radii * np.abs(scale.value) + reach * scale.radius)


def _monotone(x: Ball, function: Callable[[Array], Array]) -> Ball:
    """A monotone function to codes: its ends are those of the argument's interval."""
    codes = function(x.value)
    if _is_certain(x):
        return Ball(codes, EXACT)
    values, moves = x.value.astype(np.float64), x.radii > 0
    low = function(np.where(moves, np.nextafter(values - x.radii, -np.inf), values))
    high = function(np.where(moves, np.nextafter(values + x.radii, np.inf), values))
    low, high = low.astype(np.float64), high.astype(np.float64)
    radius = np.maximum(np.abs(high - codes), np.abs(codes - low))
    return Ball(codes, np.where(np.isfinite(x.radii), radius, ANY_CODE))


def _is_certain(x: Ball) -> bool:
    return x.is_exact or not bool(np.any(x.radii))


def _any(codes: Array) -> Ball:
    return Ball(codes, np.full(codes.shape, ANY_CODE))


@composition.register(tpu.QuantizeOp)
def propagate_quantize(op: tpu.QuantizeOp, balls: Sequence[Ball], arithmetic: Arithmetic) -> Ball:
    """The codes, and how far they may be from those of the exact activations."""
    del op, arithmetic
    return quantized(*balls)


@composition.register(tpu.Int8MatMulOp)
def propagate_int8_matmul(
    op: tpu.Int8MatMulOp, balls: Sequence[Ball], arithmetic: Arithmetic
) -> Ball:
    """Sums, requantized."""
    del op, arithmetic
    x, codes, table = balls
    return requantized(summed(x, codes), table)


def _dequantize(op: tpu.DequantizeOp, balls: Sequence[Ball], arithmetic: Arithmetic) -> Ball:
    del op, arithmetic
    return dequantized_by_one(*balls)


composition.register(tpu.DequantizeOp)(composition.computed(_dequantize))
