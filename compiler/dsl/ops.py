"""The ops of `top` beyond arithmetic, as free functions: products, normalization, attention, RoPE,
activations, lookups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tilewright.compiler.dsl.tensor import Operand, Tensor, apply, describe
from tilewright.compiler.dsl.tracer import shape_error
from tilewright.dialects import top
from tilewright.dialects.element_types import F32, ElementType


def linear(
    x: Operand, weight: Operand, bias: Operand | None = None, *, role: str | None = None
) -> Tensor:
    """`x @ weight^T + bias`: `x` is `[..., K]`, `weight` is `[N, K]` as in PyTorch, `bias` is
    `[N]`.

    `role = "head"` marks the layer that makes the logits, which stays in 16 bits unless asked
    otherwise.
    """
    return apply(top.MatMulOp, x, weight, bias, right_transpose=True, role=role)


def batch_matmul(a: Operand, b: Operand, *, right_transpose: bool = False) -> Tensor:
    """`a[B..., M, K] @ b[B..., K, N]`, for each leading index; with `right_transpose`, `b` is
    `[B..., N, K]`.
    """
    return apply(top.BatchMatMulOp, a, b, right_transpose=right_transpose)


def rms_norm(x: Operand, weight: Operand | None = None, *, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight`, over the last axis."""
    return apply(top.RMSNormOp, x, weight, eps=eps)


def layer_norm(
    x: Operand, weight: Operand | None = None, bias: Operand | None = None, *, eps: float
) -> Tensor:
    """`(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, over the last axis."""
    return apply(top.LayerNormOp, x, weight, bias, eps=eps)


def rope(
    x: Operand,
    cos: Operand,
    sin: Operand,
    *,
    num_heads: int,
    rotary_dim: int | None = None,
    interleaved: bool = False,
) -> Tensor:
    """Rotary position embedding of `x[S, num_heads * D]`: `x * cos + rotate(x) * sin` in each head.

    `cos` and `sin` are `[S, D]`. `rotate` turns the pairs of the first `rotary_dim` columns of a
    head (default: all): neighbours if `interleaved` (GLM), halves if not (Llama). The other
    columns, where the tables must hold 1 and 0, pass through.
    """
    return apply(
        top.RopeOp,
        x,
        cos,
        sin,
        num_heads=num_heads,
        rotary_dim=cos.shape[-1] if rotary_dim is None else rotary_dim,
        interleaved=interleaved,
    )


def attention(
    q: Operand,
    k: Operand,
    v: Operand,
    mask: Operand | None = None,
    *,
    num_heads: int,
    num_kv_heads: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """`softmax(scale * q k^T + mask) v` in each head; query head `h` reads group `h // (num_heads /
    num_kv_heads)`.

    `q` is `[S, num_heads * D]`, `k` and `v` are `[L, num_kv_heads * D]`, `mask` is `[S, L]` and is
    added. `scale` is `1 / sqrt(D)` unless given.
    """
    head_dim = q.shape[-1] / num_heads if num_heads > 0 else 1.0
    return apply(
        top.AttentionOp,
        q,
        k,
        v,
        mask,
        num_heads=num_heads,
        num_kv_heads=num_heads if num_kv_heads is None else num_kv_heads,
        scale=head_dim**-0.5 if scale is None else scale,
    )


def softmax(x: Operand) -> Tensor:
    """`exp(x - max) / sum(exp(x - max))` over the last axis."""
    return apply(top.SoftmaxOp, x)


def silu(x: Operand) -> Tensor:
    """`x * sigmoid(x)`."""
    return apply(top.SiLUOp, x)


def gelu(x: Operand, *, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """`x * Phi(x)`; with `approximate = "tanh"`, the formula of GPT-2."""
    return apply(top.GELUOp, x, approximate=approximate)


def tanh(x: Operand) -> Tensor:
    """Hyperbolic tangent."""
    return apply(top.TanhOp, x)


def sigmoid(x: Operand) -> Tensor:
    """`1 / (1 + exp(-x))`."""
    return apply(top.SigmoidOp, x)


def exp(x: Operand) -> Tensor:
    """Exponential."""
    return apply(top.ExpOp, x)


def sqrt(x: Operand) -> Tensor:
    """Square root."""
    return apply(top.SqrtOp, x)


def rsqrt(x: Operand) -> Tensor:
    """`1 / sqrt(x)`."""
    return apply(top.RsqrtOp, x)


def reciprocal(x: Operand) -> Tensor:
    """`1 / x`."""
    return apply(top.ReciprocalOp, x)


def absolute(x: Operand) -> Tensor:
    """`|x|`."""
    return apply(top.AbsOp, x)


def erf(x: Operand) -> Tensor:
    """The error function."""
    return apply(top.ErfOp, x)


def relu(x: Operand) -> Tensor:
    """`max(x, 0)`."""
    return apply(top.ReluOp, x)


def reduce(x: Operand, mode: Literal["sum", "mean", "max", "min"]) -> Tensor:
    """Over the last axis, which stays with size 1."""
    return apply(top.ReduceOp, x, mode=mode)


def gather(table: Operand, indices: Operand, *, role: str | None = None) -> Tensor:
    """Rows `indices` (i32[N]) of `table[V, C]`. `role = "embedding"` marks the lookup of the
    tokens.
    """
    return apply(top.GatherOp, table, indices, role=role)


def cache_update(cache: Operand, rows: Operand, positions: Operand) -> Tensor:
    """The cache `[L, C]` with `rows[R, C]` written at `positions` (i32[R]). The state is changed
    for later calls.
    """
    return apply(top.CacheUpdateOp, cache, rows, positions)


def concat(tensors: Sequence[Operand], *, axis: int = 0) -> Tensor:
    """`tensors` one after the other along `axis`, which may count from the end."""
    if not tensors:
        raise shape_error("concat of nothing")
    rank = tensors[0].rank
    if not -rank <= axis < rank:
        raise shape_error(f"concat of {describe(tensors[0])} along axis {axis}")
    at = axis % rank
    return apply(lambda *xs: top.ConcatOp(xs, at), *tensors)


def cast(x: Operand, element: ElementType = F32) -> Tensor:
    """`x` in another element type."""
    return apply(top.CastOp, x, element=element)
