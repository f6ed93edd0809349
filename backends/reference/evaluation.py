"""Evaluation of one op, for either semantics.

A `Semantics` says in which type the mathematics is done and how a result is rounded to its storage type. Ops that only
move data never change type; all others go `widen -> formula -> finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference import formulas
from tilewright.backends.reference.numerics import dequantize
from tilewright.backends.reference.operation import OperationView
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import OptionError, UnsupportedError

Array = NDArray[Any]

BLOCK_CHANNELS = 1024
"""Output channels that are widened at a time: a weight is never held in float64 as a whole."""


@dataclass(frozen=True)
class Semantics:
    """`wide`: the type of the mathematics. `finish`: rounds a wide array to an element type."""

    wide: np.dtype[Any]
    finish: Callable[[Array, ElementType], Array]
    storage_types: bool

    def widen(self, array: Array) -> Array:
        """Floats to the wide type (exactly); integers as they are."""
        if array.dtype.kind in "iu":
            return array
        return array.astype(self.wide, copy=False)


def evaluate(operation: Operation, inputs: Sequence[Array], semantics: Semantics) -> list[Array]:
    """The results of an op of `top` or `tpu`.

    Raises `OptionError` for inputs that do not fit the op (number, shape, type, index range) and `UnsupportedError` for ops that
    need more than their operands (weights, states, calls).
    """
    op = OperationView(operation)
    handler = _HANDLERS.get(op.kind)
    if handler is None:
        raise UnsupportedError(f"{operation.name} cannot be evaluated by itself")
    op.check_inputs(inputs, storage_types=semantics.storage_types)
    with np.errstate(all="ignore"):
        return [handler(op, inputs, semantics)]


# Ops that move data: no arithmetic, no rounding.


def _gather(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    table, indices = inputs
    return table[_checked_rows(op, indices, table.shape[0])]


def _w8a16_gather(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    codes, scale, indices = inputs
    rows = _checked_rows(op, indices, codes.shape[0])
    return semantics.finish(dequantize(codes[rows], scale[rows], op.result_element), op.result_element)


def _cache_update(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    cache, rows, positions = inputs
    result = cache.copy()
    write_rows(op, result, rows, positions)
    return result


def write_rows(op: OperationView, cache: Array, rows: Array, positions: Array) -> None:
    """Write `rows` to the `positions` of `cache` in place; of two rows for one position the later stays."""
    cache[_checked_rows(op, positions, cache.shape[0])] = rows


def _checked_rows(op: OperationView, indices: Array, limit: int) -> Array:
    bad = (indices < 0) | (indices >= limit)
    if bool(bad.any()):
        at = int(np.argmax(bad))
        raise OptionError(
            f"{op.op.name}: index {int(indices[at])} is outside of the {limit} rows",
            where=f"index number {at}",
        )
    return indices


def _reshape(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return inputs[0].reshape(op.result_shape)


def _permute(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return np.ascontiguousarray(np.transpose(inputs[0], op.integers("order")))


def _slice(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    spans = zip(op.integers("offsets"), op.result_shape, strict=True)
    return inputs[0][tuple(slice(start, start + size) for start, size in spans)].copy()


def _concat(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return np.concatenate(list(inputs), axis=op.integer("axis"))


# Matrix products.


def channel_blocks(channels: int) -> Iterator[slice]:
    """Slices that cover `channels` output channels, `BLOCK_CHANNELS` at a time."""
    for start in range(0, channels, BLOCK_CHANNELS):
        yield slice(start, min(start + BLOCK_CHANNELS, channels))


def weight_block(
    op: OperationView, inputs: Sequence[Array], channels: slice, semantics: Semantics
) -> Array:
    """The weights `[channels, K]` of a `MatMul` or `W8A16MatMul`, widened."""
    if op.kind == "W8A16MatMul":
        codes, scale = inputs[1][channels], inputs[2][channels]
        return semantics.widen(dequantize(codes, scale, op.operand_element(0)))
    right = inputs[1]
    return semantics.widen(right[channels] if op.flag("right_transpose") else right[:, channels].T)


def _linear(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    x = semantics.widen(inputs[0])
    first = 3 if op.kind == "W8A16MatMul" else 2
    (bias,) = op.optional(inputs, first, "bias")
    result = np.empty(op.result_shape, dtype=semantics.wide)
    for channels in channel_blocks(op.result_shape[-1]):
        right = weight_block(op, inputs, channels, semantics)
        part = None if bias is None else semantics.widen(bias[channels])
        result[..., channels] = formulas.matmul(x, right, part, right_transpose=True)
    return semantics.finish(result, op.result_element)


def _batch_matmul(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    a, b = (semantics.widen(array) for array in inputs)
    product = formulas.matmul(a, b, None, right_transpose=op.flag("right_transpose"))
    return semantics.finish(product, op.result_element)


# Normalization, rotary embedding, attention.


def _widen_optional(semantics: Semantics, arrays: Sequence[Array | None]) -> list[Array | None]:
    return [None if array is None else semantics.widen(array) for array in arrays]


def _rms_norm(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    (weight,) = _widen_optional(semantics, op.optional(inputs, 1, "weight"))
    result = formulas.rms_norm(semantics.widen(inputs[0]), weight, op.number("eps"))
    return semantics.finish(result, op.result_element)


def _layer_norm(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    weight, bias = _widen_optional(semantics, op.optional(inputs, 1, "weight", "bias"))
    result = formulas.layer_norm(semantics.widen(inputs[0]), weight, bias, op.number("eps"))
    return semantics.finish(result, op.result_element)


def _rope(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    x, cos, sin = (semantics.widen(array) for array in inputs)
    result = formulas.rope(
        x,
        cos,
        sin,
        num_heads=op.integer("num_heads"),
        rotary_dim=op.integer("rotary_dim"),
        interleaved=op.flag("interleaved"),
    )
    return semantics.finish(result, op.result_element)


def _attention(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    q, k, v = (semantics.widen(array) for array in inputs[:3])
    (mask,) = _widen_optional(semantics, op.optional(inputs, 3, "mask"))
    storage = op.operand_element(0)
    result = formulas.attention(
        q,
        k,
        v,
        mask,
        num_heads=op.integer("num_heads"),
        num_kv_heads=op.integer("num_kv_heads"),
        scale=op.number("scale"),
        round_probabilities=lambda p: semantics.widen(semantics.finish(p, storage)),
    )
    return semantics.finish(result, op.result_element)


def _softmax(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return semantics.finish(formulas.softmax(semantics.widen(inputs[0])), op.result_element)


# Element by element, and reductions.


def _cast(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    if not op.result_element.is_float:
        if inputs[0].dtype != op.result_element.dtype:
            raise UnsupportedError(f"{op.op.name} to {op.result_element.name} has no defined rounding")
        return inputs[0]
    exact = inputs[0].astype(np.float64)  # every i32 and every float is one
    return semantics.finish(exact, op.result_element)


def _unary(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    result = formulas.UNARY[op.kind](semantics.widen(inputs[0]))
    return semantics.finish(result, op.result_element)


def _gelu(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    result = formulas.gelu(semantics.widen(inputs[0]), op.text("approximate"))
    return semantics.finish(result, op.result_element)


def _binary(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    a, b = (semantics.widen(array) for array in inputs)
    return semantics.finish(formulas.BINARY[op.kind](a, b), op.result_element)


def _with_constant(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    x = semantics.widen(inputs[0])
    value = semantics.wide.type(op.number("value"))
    return semantics.finish(x + value if op.kind == "AddConst" else x * value, op.result_element)


def _reduce(op: OperationView, inputs: Sequence[Array], semantics: Semantics) -> Array:
    result = formulas.reduce(semantics.widen(inputs[0]), op.text("mode"))
    return semantics.finish(result, op.result_element)


_Handler = Callable[[OperationView, Sequence[Array], Semantics], Array]

_HANDLERS: Mapping[str, _Handler] = {
    "Gather": _gather,
    "W8A16Gather": _w8a16_gather,
    "CacheUpdate": _cache_update,
    "MatMul": _linear,
    "W8A16MatMul": _linear,
    "BatchMatMul": _batch_matmul,
    "RMSNorm": _rms_norm,
    "LayerNorm": _layer_norm,
    "Rope": _rope,
    "Attention": _attention,
    "Softmax": _softmax,
    "GELU": _gelu,
    **dict.fromkeys(formulas.UNARY, _unary),
    **dict.fromkeys(formulas.BINARY, _binary),
    "AddConst": _with_constant,
    "MulConst": _with_constant,
    "Reduce": _reduce,
    "Reshape": _reshape,
    "Permute": _permute,
    "Slice": _slice,
    "Concat": _concat,
    "Cast": _cast,
}

KINDS: frozenset[str] = frozenset(_HANDLERS)
"""The kinds of op that can be evaluated."""
