"""How far products with quantized weights may be off: in the machine's arithmetic, and from those
with the weights before.

The model of arithmetic is Higham's (Accuracy and Stability of Numerical Algorithms, 2nd edition,
chapters 2 to 4): one f32 operation has a relative error of at most `u = 2^-24`, a sum of n terms in
any order has one of at most `gamma(n) sum |terms|`, `gamma(n) = n u / (1 - n u)` (lemma 3.1).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.dialects.errors import UnsupportedError
from tilewright.testing.formats import overflow_threshold, spacing

Array = npt.NDArray[Any]

F32_UNIT = 2.0**-24
_F32_TINY = 2.0**-126
_INT8_PRODUCT = 127 * 127
_INT32_MOST = 2**31 - 1
_FLOAT64 = 2.0**-50
"""Relative error that the float64 reference itself may have."""


def gamma(count: int) -> float:
    """`n u / (1 - n u)`: the relative error of `count` f32 roundings in a row."""
    product = count * F32_UNIT
    if product >= 1:
        raise UnsupportedError(f"no f32 error bound exists for a sum of {count} terms")
    return product / (1 - product)


def matmul_error_bound(x: Array, weight: Array, result: npt.DTypeLike) -> Array:
    """The largest `abs(y - x @ weight.T)` of a matrix product of `x[M, K]` and `weight[N, K]`, f64
    [M, N]: products and sums in f32 in any order, one rounding to the type `result`.

    Derivation. Products of 16-bit operands are exact in f32 (f32 operands cost one rounding each:
    covered by K + 1), K terms are added with `gamma(K) |x| |w|^T`. Rounding the sum adds half an
    ulp of the result, taken at the largest value it can have. Never "n ulp of the result": under
    cancellation the sum is small and its error is not. The bound is infinite where the result may
    overflow its type.
    """
    left, right = x.astype(np.float64), weight.astype(np.float64)
    magnitude = np.abs(left) @ np.abs(right).T
    inside = magnitude * (gamma(left.shape[1] + 1) + _FLOAT64) + left.shape[1] * _F32_TINY
    largest = np.abs(left @ right.T) + inside
    bound = inside + spacing(largest, np.dtype(result)) / 2
    return np.where(largest >= overflow_threshold(np.dtype(result)), np.inf, bound)


def dequantized_matmul_error_bound(
    x: Array, steps: Array, scale: Array, result: npt.DTypeLike
) -> Array:
    """The largest `abs(y - x @ w.T)` with `w = steps * scale` exactly, f64[M, N], for kernels that
    round `w` to the type of `x` before the product, and for those that multiply sums of codes by
    the scale.

    `steps` are `codes - zero` `[N, K]`, `scale` is `[N, G]`. Derivation. Rounding each weight has
    an error of at most `v |w|`, v the unit roundoff of the type of x, or half a subnormal step of
    it: `sum_k |x_k| (v |w_k| + tiny)`. Scaling sums instead has errors of `2 u` for each, which is
    less. Then `matmul_error_bound` of the rounded weights.
    """
    wide = np.repeat(np.asarray(scale, np.float64), steps.shape[1] // scale.shape[1], axis=1)
    weight = np.asarray(steps, np.float64) * wide
    roundoff = spacing(weight, x.dtype) / 2
    moved = np.abs(x.astype(np.float64)) @ roundoff.T
    larger = np.abs(weight) + roundoff
    bound = matmul_error_bound(np.abs(x), larger, result)
    return moved + bound + 2 * F32_UNIT * np.abs(x.astype(np.float64)) @ larger.T


def output_error_bound(x: Array, scale: Array, *, rms: bool = False) -> Array:
    """What quantizing a weight per channel does to `y = x @ w.T`, f64[M, N], in exact arithmetic.

    Worst case: `abs(dy[m, n]) <= (s_n / 2) ||x_m||_1`, as each weight is off by half a step at
    most. Typical (`rms`): errors of weights are uniform in `[-s/2, s/2]` and independent, with
    variance `s^2 / 12`, so `dy` has the standard deviation `s_n / sqrt(12) ||x_m||_2`. `scale` is
    `[N, G]`: norms are taken over the inputs of a group.
    """
    groups = np.abs(x.astype(np.float64)).reshape(x.shape[0], scale.shape[1], -1)
    wide = np.asarray(scale, np.float64)
    if rms:
        return np.sqrt((groups**2).sum(axis=-1) @ (wide**2).T) / sqrt(12)
    return groups.sum(axis=-1) @ wide.T / 2


def int32_accumulator_is_exact(depth: int, *, bias: int = 0) -> bool:
    """Whether no sum of `depth` products of int8 codes in -127..127 can overflow int32:
    `depth * 127^2 + |bias| < 2^31`, so up to a depth of 133144 without a bias.
    """
    return depth * _INT8_PRODUCT + abs(bias) <= _INT32_MOST


def f32_accumulator_is_exact(depth: int) -> bool:
    """Whether f32 holds every sum of `depth` products of int8 codes: `depth * 127^2 <= 2^24`, so up
    to 1040.
    """
    return depth * _INT8_PRODUCT <= 2**24


def requantization_error(results: Array, sums: Array, factor: float) -> Array:
    """How far int8 results are from `sums * factor`, saturated, in steps, f64.

    Rounding to nearest has at most 1/2. A multiplier of 31 bits has a relative error of `2^-31`, so
    results of at most 128.5 steps are off by `2^-23` more. 1 and above is a wrong result, whatever
    the rule for ties: the "1 LSB" of gemmlowp's tests.
    """
    real = np.clip(np.asarray(sums, np.float64) * factor, -128, 127)
    return np.abs(np.asarray(results, np.float64) - real)


def zero_point_bias(codes: Array, input_zero: int) -> Array:
    """The bias i64[N] that stands for an input zero point: `-input_zero * sum_k codes[n, k]`.

    `sum_k (x_k - z) q_k = sum_k x_k q_k - z sum_k q_k`, in integers, so exactly.
    """
    return -np.int64(input_zero) * np.asarray(codes, np.int64).sum(axis=1)
