"""A quantizer of a page that has every property: what the wrong ones of `mutants` are made from."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.reference import requant
from tilewright.backends.reference.executor import run_function
from tilewright.backends.reference.numerics import encode_float8, round_half_away, round_up
from tilewright.dialects.element_types import F16
from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.testing import Quantizer
from tilewright.testing.formats import code_limit, code_range, code_steps, code_values
from tilewright.testing.strategies import TopGraph

Array = npt.NDArray[Any]


class Right:
    """Rounding to nearest by a scheme, halves away from zero, with f16 scales that are rounded up.

    A method for each decision, so that a mutant is a class with one method that is wrong.
    """

    activations = np.float16

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.low, self.high = code_range(scheme)
        self.limit, self.steps = code_limit(scheme), code_steps(scheme)

    # Quantizing.

    def quantize(self, weight: Array) -> Sequence[Any]:
        self.refuse(weight)
        groups = self.values(weight).reshape(len(weight), self.scheme.groups(weight.shape[1]), -1)
        low, high = self.ends(groups)
        scale = self.stored(self.guarded(self.scale(low, high)))
        with np.errstate(all="ignore"):
            steps = self.divided(groups, scale.astype(groups.dtype)[..., None])
            if self.scheme.format.is_float:
                codes = encode_float8(steps, self.scheme.format)
                return self.finished(codes.reshape(weight.shape)), scale
            zero = self.zero(low, scale.astype(np.float32))
            codes = self.clamped(self.rounded(steps) + zero[..., None])
        codes = self.finished(codes.reshape(weight.shape))
        return (codes, scale, zero.astype(np.int16)) if self.scheme.zero_point else (codes, scale)

    def refuse(self, weight: Array) -> None:
        if not np.all(np.isfinite(weight.astype(np.float32))):
            raise ValueError("NaN or infinity")

    def values(self, weight: Array) -> Array:
        return weight.astype(np.float32)

    def ends(self, groups: Array) -> tuple[Array, Array]:
        if not self.scheme.zero_point:
            largest = np.abs(groups).max(axis=-1)
            return np.zeros_like(largest), largest
        return np.minimum(groups.min(axis=-1), 0), np.maximum(groups.max(axis=-1), 0)

    def scale(self, low: Array, high: Array) -> Array:
        return (high.astype(np.float64) - low) / self.steps

    def guarded(self, scale: Array) -> Array:
        return np.where(scale == 0, 1.0, scale)

    def stored(self, scale: Array) -> Array:
        up = round_up(scale, F16)
        fits = np.all(np.isfinite(up) & (up >= 2.0**-14))
        return up if fits else scale.astype(np.float32)

    def divided(self, groups: Array, scale: Array) -> Array:
        return groups / scale

    def rounded(self, steps: Array) -> Array:
        return round_half_away(steps).astype(np.float64)

    def zero(self, low: Array, scale: Array) -> Array:
        if not self.scheme.zero_point:
            return np.zeros(scale.shape)
        away = round_half_away(-low / scale).astype(np.float64)
        return np.clip(away + self.low, self.low, self.high)

    def clamped(self, codes: Array) -> Array:
        low = self.low if self.scheme.zero_point else -self.limit
        return np.clip(codes, low, self.high).astype(np.int8)

    def finished(self, codes: Array) -> Array:
        return codes

    # What else it can do.

    def with_scheme(self, scheme: Scheme) -> Any:
        return type(self)(scheme).quantize

    def dequantize(self, codes: Array, scale: Array, zero: Array | None = None) -> Array:
        values = code_values(codes, self.scheme.format).reshape(*scale.shape, -1)
        steps = values if zero is None else values - zero.astype(np.float64)[..., None]
        with np.errstate(all="ignore"):
            return (steps * scale.astype(np.float64)[..., None]).reshape(codes.shape)

    def pack(self, codes: Array) -> Array:
        even = np.pad(codes.astype(np.uint8) & 15, ((0, 0), (0, codes.shape[1] % 2)))
        return even[:, ::2] | even[:, 1::2] << 4

    def unpack(self, packed: Array, depth: int) -> Array:
        raw = packed.view(np.uint8)
        codes = np.stack([raw & 15, raw >> 4], axis=2).reshape(len(raw), -1)[:, :depth]
        signed = self.scheme.format is CodeFormat.I4
        return (codes.astype(np.int8) ^ 8) - 8 if signed else codes

    def serialize(self, *parts: Array) -> bytes:
        file = io.BytesIO()
        for part in parts:
            np.save(file, part)
        return file.getvalue()

    def deserialize(self, data: bytes) -> Sequence[Array]:
        file = io.BytesIO(data)
        return [np.load(file) for _ in range(3 if self.scheme.zero_point else 2)]

    def matmul(self, x: Array, *parts: Array) -> Array:
        codes, weight = parts[0], self.dequantize(*parts)
        with np.errstate(all="ignore"):
            sums = np.zeros((len(x), len(codes)), np.float32)
            for left, right in zip(x.T, weight.astype(np.float16).T, strict=True):
                sums += left.astype(np.float32)[:, None] * right.astype(np.float32)
            return sums.astype(np.float16)

    def int_matmul(self, x: Array, codes: Array, bias: Array) -> Array:
        return x.astype(np.int32) @ codes.astype(np.int32).T + bias

    def requantize(self, sums: Array, factor: float) -> Array:
        return requant.requantize(sums, *requant.requant_parameters(factor))

    def calibrate(self, batches: Sequence[Array]) -> float:
        return max(float(np.abs(batch).max()) for batch in batches)

    def quantize_clipped(self, weight: Array) -> Sequence[Any]:
        return self.quantize(weight)

    def run_lowered(self, graph: TopGraph) -> Sequence[Array]:
        weights = {key: array.astype(np.float64) for key, array in graph.weights.items()}
        for key in graph.linear:
            weights[key] = self.dequantize(*self.quantize(graph.weights[key]))
        return self.run(graph, weights)

    def run(self, graph: TopGraph, weights: Mapping[str, Array]) -> Sequence[Array]:
        return run_function(
            graph.module,
            "main",
            [graph.x.astype(np.float64)],
            weights=lambda key, op: weights[key],
            states={},
            semantics="float64",
        )

    def quantizer(self) -> Quantizer:
        """It, as the suite takes it."""
        return Quantizer.of(self)
