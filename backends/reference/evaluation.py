"""Evaluation of one op, for either semantics.

A `Semantics` says in which type the mathematics is done and how a result is rounded to its storage
type. Ops that only move data never change type; all others go `widen -> formula -> finish`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from tilewright.backends.reference import formulas
from tilewright.backends.reference.numerics import dequantize, plain_codes
from tilewright.dialects import graph, plugins, tpu
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import OptionError, UnsupportedError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import where_of

Array = NDArray[Any]
_T = TypeVar("_T")
Linear = graph.MatMul | tpu.A16MatMul

Handler = Callable[[Any, Sequence[Array], "Semantics"], Array | list[Array]]
"""Evaluates an op of its class: see `register`."""

BLOCK_CHANNELS = 1024
"""Output channels that are widened at a time: a weight is never held in float64 as a whole."""


@dataclass(frozen=True)
class Semantics:
    """`wide`: the type of the mathematics. `finish`: rounds a wide array to an element type."""

    wide: np.dtype[Any]
    finish: Callable[[Array, ElementType], Array]
    storage_types: bool
    """Whether inputs must be of the operands' storage types."""

    def widen(self, array: Array) -> Array:
        """Floats to the wide type (exactly); integers as they are."""
        if array.dtype.kind in "iu":
            return array
        with np.errstate(invalid="ignore"):
            return array.astype(self.wide, copy=False)

    def widen_optional(self, array: Array | None) -> Array | None:
        """`widen`, for an operand that may be missing."""
        return None if array is None else self.widen(array)


def evaluate(op: Operation, inputs: Sequence[Array], semantics: Semantics) -> list[Array]:
    """The results of an op of `top` or `tpu`.

    Raises `OptionError` for inputs that do not fit the op (number, shape, type, index range) and
    `UnsupportedError` for ops that need more than their operands (weights, states, calls)."""
    handler = handler_of(op, _HANDLERS)
    if handler is None:
        raise UnsupportedError(
            f"{op.name} cannot be evaluated by itself",
            where=where_of(op),
            why="weights, states, calls and launches need what surrounds them; any other op needs "
            "a function that evaluates it",
            hint=f"decorate one with evaluation.register({type(op).__name__}), in a module that is "
            "imported before",
        )
    check_inputs(op, inputs, storage_types=semantics.storage_types)
    with np.errstate(all="ignore"):
        results = handler(op, inputs, semantics)
    return results if isinstance(results, list) else [results]


def register(*op_classes: type[Operation]) -> Callable[[Handler], Handler]:
    """Register the decorated function as the evaluation of `op_classes` and their subclasses.

    It is called as `handler(op, inputs, semantics)`: inputs fit the op's operands. It computes in
    `semantics.wide` (`semantics.widen(array)`), ends in `semantics.finish(result, element)` for
    each result, and returns one array or a list of them.
    """

    def decorate(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(op_classes, handler))
        return handler

    return decorate


def handler_of(op: Operation, handlers: Mapping[type[Operation], _T]) -> _T | None:
    """The entry for the class of `op` or the nearest base of it; those of plugins are there too.

    None for an op of a plugin whose nearest base is a family that goes by the names of our ops.
    """
    plugins.load_modules()
    base = next((base for base in type(op).__mro__ if base in handlers), None)
    is_ours = op.dialect_name() in ("top", "tpu")
    return None if base is None or (base in _BY_NAME and not is_ours) else handlers[base]


_BY_NAME = (graph.UnaryGraphOp, graph.BinaryGraphOp)


def check_inputs(op: Operation, inputs: Sequence[Array], *, storage_types: bool) -> None:
    """Raise `OptionError` unless there is an array of the right shape (and type) an operand."""
    if len(inputs) != len(op.operands):
        raise OptionError(f"{op.name} takes {len(op.operands)} inputs, not {len(inputs)}")
    for index, (array, operand) in enumerate(zip(inputs, op.operands, strict=True)):
        expected, element = shape_of(operand), storage_of(operand)
        if array.shape != expected or (storage_types and array.dtype != element.dtype):
            raise OptionError(
                f"input {index} of {op.name} is {array.dtype}{list(array.shape)}, "
                f"not {element.name}{list(expected)}"
            )


# Ops that move data: no arithmetic, no rounding.


def _gather(op: graph.Gather, inputs: Sequence[Array], semantics: Semantics) -> Array:
    table, indices = inputs
    return table[checked_rows(op, indices, table.shape[0])]


def _w8a16_gather(op: tpu.W8A16GatherOp, inputs: Sequence[Array], semantics: Semantics) -> Array:
    codes, scale, indices = inputs
    rows = checked_rows(op, indices, codes.shape[0])
    element = storage_of(op.result)
    return semantics.finish(dequantize(codes[rows], scale[rows], element), element)


def _cache_update(op: graph.CacheUpdate, inputs: Sequence[Array], semantics: Semantics) -> Array:
    cache, rows, positions = inputs
    result = cache.copy()
    write_rows(op, result, rows, positions)
    return result


def write_rows(op: graph.CacheUpdate, cache: Array, rows: Array, positions: Array) -> None:
    """Write `rows` to the `positions` of `cache` in place; of two for one position, the later."""
    cache[checked_rows(op, positions, cache.shape[0])] = rows


def checked_rows(op: Operation, indices: Array, limit: int) -> Array:
    """`indices`; raises `OptionError` for the first that is not a row of `limit`."""
    bad = (indices < 0) | (indices >= limit)
    if bool(bad.any()):
        at = int(np.argmax(bad))
        raise OptionError(
            f"{op.name}: index {int(indices[at])} is outside of the {limit} rows",
            where=f"index number {at}",
        )
    return indices


def _reshape(op: graph.Reshape, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return inputs[0].reshape(shape_of(op.result))


def _permute(op: graph.Permute, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return np.ascontiguousarray(np.transpose(inputs[0], op.order.get_values()))


def _slice(op: graph.Slice, inputs: Sequence[Array], semantics: Semantics) -> Array:
    spans = zip(op.offsets.get_values(), shape_of(op.result), strict=True)
    return inputs[0][tuple(slice(start, start + size) for start, size in spans)].copy()


def _concat(op: graph.Concat, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return np.concatenate(list(inputs), axis=op.axis.value.data)


# Matrix products.


def channel_blocks(channels: int) -> Iterator[slice]:
    """Slices that cover `channels` output channels, `BLOCK_CHANNELS` at a time."""
    for start in range(0, channels, BLOCK_CHANNELS):
        yield slice(start, min(start + BLOCK_CHANNELS, channels))


def weight_block(
    op: Linear, inputs: Sequence[Array], channels: slice, semantics: Semantics
) -> Array:
    """The weights `[channels, K]` of a linear layer, dequantized and widened."""
    if isinstance(op, tpu.A16MatMul):
        return semantics.widen(dequantized_channels(op, inputs, channels))
    right = inputs[1]
    return semantics.widen(right[:, channels].T if op.right_transpose is None else right[channels])


def dequantized_channels(op: tpu.A16MatMul, inputs: Sequence[Array], channels: slice) -> Array:
    """Some channels of the weight `[N, K]` of a quantized layer, in the type of `x`."""
    codes = plain_codes(inputs[1][channels], op.code_format, shape_of(op.x)[-1])
    zero = None if op.zero is None else inputs[3][channels]
    return dequantize(codes, inputs[2][channels], storage_of(op.x), zero, op.code_format)


def _linear(op: Linear, inputs: Sequence[Array], semantics: Semantics) -> Array:
    x = semantics.widen(inputs[0])
    bias = None if op.bias is None else semantics.widen(inputs[-1])
    result = np.empty(shape_of(op.result), dtype=semantics.wide)
    for channels in channel_blocks(result.shape[-1]):
        right = weight_block(op, inputs, channels, semantics)
        part = None if bias is None else bias[channels]
        result[..., channels] = formulas.matmul(x, right, part, right_transpose=True)
    return semantics.finish(result, storage_of(op.result))


def _batch_matmul(op: graph.BatchMatMul, inputs: Sequence[Array], semantics: Semantics) -> Array:
    a, b = (semantics.widen(array) for array in inputs)
    product = formulas.matmul(a, b, None, right_transpose=op.right_transpose is not None)
    return semantics.finish(product, storage_of(op.result))


# Normalization, rotary embedding, attention.


def _rms_norm(op: graph.RMSNorm, inputs: Sequence[Array], semantics: Semantics) -> Array:
    weight = None if op.weight is None else semantics.widen(inputs[1])
    result = formulas.rms_norm(semantics.widen(inputs[0]), weight, op.eps.value.data)
    return semantics.finish(result, storage_of(op.result))


def norm_parameters(
    op: graph.LayerNorm, inputs: Sequence[Array]
) -> tuple[Array | None, Array | None]:
    """Weight and bias of a LayerNorm; either may be missing."""
    weight = None if op.weight is None else inputs[1]
    bias = None if op.bias is None else inputs[-1]
    return weight, bias


def _layer_norm(op: graph.LayerNorm, inputs: Sequence[Array], semantics: Semantics) -> Array:
    weight, bias = (semantics.widen_optional(array) for array in norm_parameters(op, inputs))
    x = semantics.widen(inputs[0])
    result = formulas.layer_norm(x, weight, bias, op.eps.value.data)
    return semantics.finish(result, storage_of(op.result))


def _rope(op: graph.Rope, inputs: Sequence[Array], semantics: Semantics) -> Array:
    x, cos, sin = (semantics.widen(array) for array in inputs)
    straight, turned = formulas.rope_terms(
        x,
        cos,
        sin,
        num_heads=op.num_heads.value.data,
        rotary_dim=op.rotary_dim.value.data,
        interleaved=bool(op.interleaved.value.data),
    )
    return semantics.finish(straight + turned, storage_of(op.result))


def _attention(op: graph.Attention, inputs: Sequence[Array], semantics: Semantics) -> Array:
    q, k, v = (semantics.widen(array) for array in inputs[:3])
    mask = None if op.mask is None else semantics.widen(inputs[3])
    storage = storage_of(op.q)
    result = formulas.attention(
        q,
        k,
        v,
        mask,
        num_heads=op.num_heads.value.data,
        num_kv_heads=op.num_kv_heads.value.data,
        scale=op.scale.value.data,
        round_probabilities=lambda p: semantics.widen(semantics.finish(p, storage)),
    )
    return semantics.finish(result, storage_of(op.result))


def _softmax(op: graph.Softmax, inputs: Sequence[Array], semantics: Semantics) -> Array:
    return semantics.finish(formulas.softmax(semantics.widen(inputs[0])), storage_of(op.result))


# Element by element, and reductions.


def _cast(op: graph.Cast, inputs: Sequence[Array], semantics: Semantics) -> Array:
    element = storage_of(op.result)
    if element.is_float:
        return semantics.finish(inputs[0].astype(np.float64), element)
    if inputs[0].dtype != element.dtype:
        raise UnsupportedError(f"{op.name} from floating point to {element.name} is not defined")
    return inputs[0]


def _unary(op: graph.UnaryGraphOp, inputs: Sequence[Array], semantics: Semantics) -> Array:
    function = formulas.UNARY[op.name.partition(".")[2]]
    return semantics.finish(function(semantics.widen(inputs[0])), storage_of(op.result))


def _gelu(op: graph.Gelu, inputs: Sequence[Array], semantics: Semantics) -> Array:
    result = formulas.gelu(semantics.widen(inputs[0]), op.approximate.data)
    return semantics.finish(result, storage_of(op.result))


def _binary(op: graph.BinaryGraphOp, inputs: Sequence[Array], semantics: Semantics) -> Array:
    a, b = (semantics.widen(array) for array in inputs)
    function = formulas.BINARY[op.name.partition(".")[2]]
    return semantics.finish(function(a, b), storage_of(op.result))


def _constant(op: graph.ConstGraphOp, inputs: Sequence[Array], semantics: Semantics) -> Array:
    function = formulas.CONSTANT[op.name.partition(".")[2]]
    value = np.asarray(op.value.value.data, dtype=semantics.wide)
    return semantics.finish(function(semantics.widen(inputs[0]), value), storage_of(op.result))


def _reduce(op: graph.Reduce, inputs: Sequence[Array], semantics: Semantics) -> Array:
    result = formulas.reduce(semantics.widen(inputs[0]), op.mode.data)
    return semantics.finish(result, storage_of(op.result))


_HANDLERS: dict[type[Operation], Handler] = {
    graph.Gather: _gather,
    tpu.W8A16GatherOp: _w8a16_gather,
    graph.CacheUpdate: _cache_update,
    graph.MatMul: _linear,
    tpu.A16MatMul: _linear,
    graph.BatchMatMul: _batch_matmul,
    graph.RMSNorm: _rms_norm,
    graph.LayerNorm: _layer_norm,
    graph.Rope: _rope,
    graph.Attention: _attention,
    graph.Softmax: _softmax,
    graph.UnaryGraphOp: _unary,
    graph.Gelu: _gelu,
    graph.BinaryGraphOp: _binary,
    graph.ConstGraphOp: _constant,
    graph.Reduce: _reduce,
    graph.Reshape: _reshape,
    graph.Permute: _permute,
    graph.Slice: _slice,
    graph.Concat: _concat,
    graph.Cast: _cast,
}
