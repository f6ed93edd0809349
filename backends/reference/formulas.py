"""The mathematics of the ops, in the precision of their arguments.

That is float64 for the truth and float32 for the machine. Arrays come in one floating-point type
and leave in it; nothing is rounded to a storage type here, except the attention probabilities by
the caller's function. Elementary functions are evaluated in float64 and rounded once to that type,
so that f32 results do not depend on the vector library of the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Function = Callable[[Array], Array]

GELU_TANH_SCALE = math.sqrt(2 / math.pi)
GELU_TANH_CUBIC = 0.044715
"""Constants of the tanh form. Source: Hendrycks and Gimpel, arXiv 1606.08415."""

_erf_f64 = np.frompyfunc(math.erf, 1, 1)


def _in_float64(function: Function) -> Function:
    def rounded(x: Array) -> Array:
        return function(x.astype(np.float64)).astype(x.dtype)

    return rounded


def _sigmoid_f64(x: Array) -> Array:
    # exp of a negative number only: no overflow, and no cancellation for large negative x.
    power = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, power) / (1 + power)


def _erf(x: Array) -> Array:
    return np.asarray(_erf_f64(x), dtype=np.float64)


exp = _in_float64(np.exp)
tanh = _in_float64(np.tanh)
sigmoid = _in_float64(_sigmoid_f64)
erf = _in_float64(_erf)
rsqrt = _in_float64(lambda x: 1 / np.sqrt(x))


def silu(x: Array) -> Array:
    """`x * sigmoid(x)`."""
    return x * sigmoid(x)


def gelu(x: Array, approximate: str) -> Array:
    """`x * Phi(x)` by erf (`approximate="none"`) or its tanh form (`"tanh"`)."""
    half = x.dtype.type(0.5)
    if approximate == "tanh":
        cubic = x.dtype.type(GELU_TANH_CUBIC)
        inner = x.dtype.type(GELU_TANH_SCALE) * (x + cubic * (x * x * x))
        return half * x * (1 + tanh(inner))
    return half * x * (1 + erf(x * x.dtype.type(math.sqrt(0.5))))


UNARY: Mapping[str, Function] = {
    "SiLU": silu,
    "Tanh": tanh,
    "Sigmoid": sigmoid,
    "Exp": exp,
    "Sqrt": np.sqrt,
    "Rsqrt": rsqrt,
    "Reciprocal": np.reciprocal,
    "Neg": np.negative,
    "Abs": np.abs,
    "Erf": erf,
    "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
}

BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
}

CONSTANT: Mapping[str, Callable[[Array, Array], Array]] = {
    "AddConst": np.add,
    "MulConst": np.multiply,
}

REDUCE: Mapping[str, Callable[..., Array]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
}


def reduce(x: Array, mode: str) -> Array:
    """Reduce the last axis to one element."""
    return REDUCE[mode](x, axis=-1, keepdims=True)


def matmul(x: Array, right: Array, bias: Array | None, *, right_transpose: bool) -> Array:
    """`x @ right + bias`; with `right_transpose` the last two axes of `right` are swapped."""
    product = np.matmul(x, np.swapaxes(right, -1, -2) if right_transpose else right)
    return product if bias is None else product + bias


def softmax(x: Array) -> Array:
    """Softmax over the last axis, shifted by the maximum."""
    powers = exp(x - np.max(x, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


def rms_norm(x: Array, weight: Array | None, eps: float) -> Array:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis."""
    mean = np.mean(x * x, axis=-1, keepdims=True)
    normed = x * rsqrt(mean + x.dtype.type(eps))
    return normed if weight is None else normed * weight


def layer_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> Array:
    """`(x - mean) / sqrt(variance + eps) * weight + bias` over the last axis, in two passes."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    normed = centred * rsqrt(variance + x.dtype.type(eps))
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias


def rotate(x: Array, *, rotary_dim: int, interleaved: bool) -> Array:
    """Turn pairs `(a, b)` of the last axis to `(-b, a)`; columns past `rotary_dim` become 0.

    Pairs are neighbours if `interleaved` (GPT-J, ChatGLM), else half of `rotary_dim` apart
    (GPT-NeoX, Llama)."""
    turned = np.zeros_like(x)
    half = rotary_dim // 2
    first = slice(0, rotary_dim, 2) if interleaved else slice(0, half)
    second = slice(1, rotary_dim, 2) if interleaved else slice(half, rotary_dim)
    turned[..., first] = -x[..., second]
    turned[..., second] = x[..., first]
    return turned


def rope_terms(
    x: Array, cos: Array, sin: Array, *, num_heads: int, rotary_dim: int, interleaved: bool
) -> tuple[Array, Array]:
    """`x * cos` and `rotate(x) * sin` of `x[S, H*D]`, `cos[S, D]`, `sin[S, D]`: to be added.

    Source: Su et al., RoFormer, arXiv 2104.09864.
    """
    heads = x.reshape(x.shape[0], num_heads, -1)
    turned = rotate(heads, rotary_dim=rotary_dim, interleaved=interleaved)
    products = heads * cos[:, None, :], turned * sin[:, None, :]
    return products[0].reshape(x.shape), products[1].reshape(x.shape)


def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    *,
    num_heads: int,
    num_kv_heads: int,
    scale: float,
    round_probabilities: Function,
) -> Array:
    """`softmax(scale * q k^T + mask) v`, one head after the other.

    `q[S, H*D]`, `k[L, G*D]`, `v[L, G*D]`, `mask[S, L]`; query head `h` reads group `h // (H / G)`.
    """
    result = np.empty_like(q)
    width = q.shape[1] // num_heads
    heads_per_group = num_heads // num_kv_heads
    for head in range(num_heads):
        columns = slice(head * width, (head + 1) * width)
        first = head // heads_per_group * width
        group = slice(first, first + width)
        scores = np.matmul(q[:, columns], k[:, group].T) * q.dtype.type(scale)
        scores = scores if mask is None else scores + mask
        result[:, columns] = np.matmul(round_probabilities(softmax(scores)), v[:, group])
    return result
