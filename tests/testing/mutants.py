"""Quantizers with one fault each, most of them seen in published ones, and the properties that must
find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.testing.right import Right

from tilewright.dialects.quantization import Scheme, parse_scheme
from tilewright.testing.strategies import TopGraph

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Mutant:
    """A wrong quantizer, the scheme that it claims, and who must find it."""

    make: Callable[[Scheme], Right]
    scheme: str
    found_by: tuple[str, ...]

    @property
    def name(self) -> str:
        return getattr(self.make, "__name__", "")

    def made(self) -> Right:
        return self.make(parse_scheme(self.scheme))


MUTANTS: list[Mutant] = []


def mutant(scheme: str, *found_by: str) -> Callable[[type[Right]], type[Right]]:
    """Adds a class to `MUTANTS`."""

    def register(made: type[Right]) -> type[Right]:
        MUTANTS.append(Mutant(made, scheme, found_by))
        return made

    return register


# Scales.


@mutant("w8a16", "symmetric-codes", "idempotence", "exact-on-the-grid")
class DividesBy127AndAHalf(Right):
    """torchao: 255 codes over 2 absmax, and -128."""

    def scale(self, low: Array, high: Array) -> Array:
        return (high.astype(np.float64) - low) / 127.5

    def stored(self, scale: Array) -> Array:
        return scale.astype(np.float32)

    def clamped(self, codes: Array) -> Array:
        return np.clip(codes, -128, 127).astype(np.int8)


@mutant("w8a16", "error-bound")
class RoundsScalesAfterCodes(Right):
    """ONNX Runtime, gguf, TPU-MLIR."""

    def quantize(self, weight: Array) -> Sequence[Any]:
        codes, scale = super().quantize(weight)
        return codes, (scale * np.float32(1 - 2.0**-11)).astype(scale.dtype)

    def stored(self, scale: Array) -> Array:
        return scale.astype(np.float32)


@mutant("w8a16", "error-bound", "outliers")
class ClipsOutliers(Right):
    def ends(self, groups: Array) -> tuple[Array, Array]:
        low, high = super().ends(groups)
        return low, np.minimum(high, 8 * np.abs(groups).mean(axis=-1))


@mutant("w8a16", "range-is-used", "expected-noise")
class WastesABit(Right):
    def scale(self, low: Array, high: Array) -> Array:
        return 2 * super().scale(low, high)


@mutant("w8a16", "power-of-two-scaling")
class AddsAnEpsilon(Right):
    def scale(self, low: Array, high: Array) -> Array:
        return super().scale(low, high) + 1e-5


@mutant("w8a16", "small-weights", "subnormal-scales")
class HasAFloor(Right):
    def scale(self, low: Array, high: Array) -> Array:
        return np.maximum(super().scale(low, high), 1e-5)


@mutant("w8a16", "subnormal-scales", "scales-are-positive", "saturation", "small-weights")
class KeepsScalesInHalf(Right):
    def stored(self, scale: Array) -> Array:
        with np.errstate(all="ignore"):
            return scale.astype(np.float16)


@mutant("w8a16", "scales-are-positive", "zero-channels")
class DividesByZero(Right):
    def guarded(self, scale: Array) -> Array:
        return scale


@mutant("w4a16-g16", "largest-f16")
class SubtractsInHalf(Right):
    """`max - min` of +-65504 is infinite."""

    def scale(self, low: Array, high: Array) -> Array:
        with np.errstate(all="ignore"):
            return (high.astype(np.float16) - low.astype(np.float16)).astype(np.float64) / 15


@mutant("w8a16", "channel-locality")
class HasOneScale(Right):
    def ends(self, groups: Array) -> tuple[Array, Array]:
        low, high = super().ends(groups)
        return low, np.full_like(high, high.max())


@mutant("w8a16", "channel-permutation")
class MixesRows(Right):
    """A running maximum that is not reset for the next row."""

    def ends(self, groups: Array) -> tuple[Array, Array]:
        low, high = super().ends(groups)
        return low, np.maximum.accumulate(high, axis=0)


@mutant("w8a16-g16", "groups-are-channels")
class IgnoresGroups(Right):
    def ends(self, groups: Array) -> tuple[Array, Array]:
        low, high = super().ends(groups)
        return low, np.repeat(high.max(axis=1, keepdims=True), high.shape[1], axis=1)


@mutant("w8a16-g16", "group-permutation")
class MixesGroups(Right):
    def ends(self, groups: Array) -> tuple[Array, Array]:
        low, high = super().ends(groups)
        return low, np.maximum.accumulate(high, axis=1)


@mutant("w8a16-g16", "group-of-all-is-per-channel")
class HasTwoImplementations(Right):
    def rounded(self, steps: Array) -> Array:
        return super().rounded(steps) if self.scheme.group else np.trunc(steps).astype(np.float64)


@mutant("w8a16-g16", "finer-groups-have-smaller-scales")
class ScalesGroupsUp(Right):
    def scale(self, low: Array, high: Array) -> Array:
        return super().scale(low, high) * (1.5 if self.scheme.group else 1)


@mutant("w8a16", "column-permutation")
class ForgetsTheLastColumn(Right):
    """A loop over pairs without its remainder."""

    def ends(self, groups: Array) -> tuple[Array, Array]:
        odd = groups.shape[-1] % 2 and groups.shape[-1] > 1
        return super().ends(groups[..., :-1] if odd else groups)


# Codes.


@mutant("w8a16", "error-bound-of-rounded-scales", "error-bound")
class Truncates(Right):
    def rounded(self, steps: Array) -> Array:
        return np.trunc(steps).astype(np.float64)


@mutant("w8a16", "sign-symmetry", "ties")
class RoundsHalvesUp(Right):
    def rounded(self, steps: Array) -> Array:
        return np.floor(steps.astype(np.float64) + 0.5)


@mutant("w4a16-channel-absmax", "ties")
class HasAnotherRuleInTheRemainder(Right):
    """Halves away from zero in whole vectors, to even in the elements that are left over."""

    def rounded(self, steps: Array) -> Array:
        vectors = steps.shape[-1] // 8 * 8
        rest = np.rint(steps[..., vectors:])
        return np.concatenate([super().rounded(steps[..., :vectors]), rest], axis=-1)


@mutant("w8a16", "error-bound")
class MultipliesWithAHalfReciprocal(Right):
    def divided(self, groups: Array, scale: Array) -> Array:
        return groups * (1 / (scale * np.float32(127))).astype(np.float16) * np.float32(127)


@mutant("w8a16", "monotone-codes")
class WrapsAround(Right):
    """The clamp is missing, and the scale too small for one in a thousand."""

    def scale(self, low: Array, high: Array) -> Array:
        return super().scale(low, high) * (1 - 2.0**-7)

    def clamped(self, codes: Array) -> Array:
        return codes.astype(np.int64).astype(np.int8)


@mutant("w8a16", "code-range")
class ForgetsTheClamp(Right):
    def scale(self, low: Array, high: Array) -> Array:
        return super().scale(low, high) * (1 - 2.0**-6)

    def clamped(self, codes: Array) -> Array:
        return codes.astype(np.int16)


@mutant("w8a16", "shapes-and-types")
class ReturnsWideCodes(Right):
    def finished(self, codes: Array) -> Array:
        return codes.astype(np.int64)


@mutant("f8e4m3", "error-bound")
class TruncatesFloats(Right):
    def divided(self, groups: Array, scale: Array) -> Array:
        return super().divided(groups, scale) * np.float32(1 - 2.0**-4)


# Values that are not finite.


@mutant("w8a16", "not-finite-is-seen")
class HidesNaN(Right):
    def refuse(self, weight: Array) -> None:
        pass

    def values(self, weight: Array) -> Array:
        return np.nan_to_num(weight.astype(np.float32), posinf=0, neginf=0)


@mutant("w8a16", "not-finite-is-refused")
class PropagatesNaN(Right):
    def refuse(self, weight: Array) -> None:
        pass

    def stored(self, scale: Array) -> Array:
        return scale.astype(np.float32)


# Memory.


@mutant("w8a16", "input-is-kept")
class WritesToItsInput(Right):
    def quantize(self, weight: Array) -> Sequence[Any]:
        made = super().quantize(weight)
        weight *= 2
        return made


@mutant("w8a16", "results-are-fresh")
class UsesABufferAgain(Right):
    def __init__(self, scheme: Scheme) -> None:
        super().__init__(scheme)
        self.buffer = np.zeros(1 << 12, np.int8)

    def finished(self, codes: Array) -> Array:
        self.buffer[: codes.size] = codes.ravel()
        return self.buffer[: codes.size].reshape(codes.shape)


@mutant("w8a16", "memory-layout")
class ReadsMemoryInOrder(Right):
    def values(self, weight: Array) -> Array:
        return weight.ravel(order="K").reshape(weight.shape).astype(np.float32)


@mutant("w8a16", "weight-types")
class DividesInTheTypeOfTheWeight(Right):
    """The quantization code of ChatGLM: 1 % of the codes of f16 weights are wrong."""

    def values(self, weight: Array) -> Array:
        return weight

    def divided(self, groups: Array, scale: Array) -> Array:
        return (groups / scale.astype(groups.dtype)).astype(np.float32)


@mutant("w8a16", "determinism")
class ChangesWithEachCall(Right):
    """Stochastic rounding with a seed that goes on."""

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(scheme)
        self.numbers = count()

    def rounded(self, steps: Array) -> Array:
        return np.floor(steps.astype(np.float64) + (0.25 if next(self.numbers) % 3 else 0.75))


# Zero points.


class NotWidened(Right):
    """TPU-MLIR: the range need not hold 0, and has a floor."""

    def ends(self, groups: Array) -> tuple[Array, Array]:
        if not self.scheme.zero_point:
            return super().ends(groups)
        return groups.min(axis=-1), groups.max(axis=-1)

    def scale(self, low: Array, high: Array) -> Array:
        return np.maximum(super().scale(low, high), 1e-5)


mutant("w4a16-g16", "constant-channels", "one-sided-weights", "error-bound")(NotWidened)


@mutant("w4a16-g16", "zero-points-in-range")
class DoesNotClampZeroPoints(NotWidened):
    def zero(self, low: Array, scale: Array) -> Array:
        return np.rint(-low / scale).astype(np.float64)


@mutant("w4a16-g16", "zero-is-exact")
class KeepsFractionsOfZeroPoints(Right):
    def quantize(self, weight: Array) -> Sequence[Any]:
        codes, scale, zero = super().quantize(weight)
        return codes, scale, zero + np.float32(0.25)


@mutant("w4a16-g16", "one-sided-range")
class IsSymmetric(Right):
    def ends(self, groups: Array) -> tuple[Array, Array]:
        largest = np.abs(groups).max(axis=-1)
        return -largest, largest


@mutant("w4a16-g16", "mirrored-zero-points")
class HasZeroPointsOffByOne(Right):
    def quantize(self, weight: Array) -> Sequence[Any]:
        codes, scale, zero = super().quantize(weight)
        return codes, scale, zero + 1


@mutant("w8a16", "no-zero-points")
class HasAZeroPointThatNobodyAskedFor(Right):
    def quantize(self, weight: Array) -> Sequence[Any]:
        codes, scale = super().quantize(weight)
        return codes, scale, np.ones(scale.shape, np.int8)


# Packing.


@mutant("w4a16-channel-absmax", "packing-round-trip")
class DoesNotExtendSigns(Right):
    def unpack(self, packed: Array, depth: int) -> Array:
        return super().unpack(packed, depth) & 15


@mutant("w4a16-channel", "packing-low-nibble-first")
class SwapsNibbles(Right):
    def pack(self, codes: Array) -> Array:
        packed = super().pack(codes)
        return packed << 4 | packed >> 4

    def unpack(self, packed: Array, depth: int) -> Array:
        return super().unpack(packed << 4 | packed >> 4, depth)


@mutant("w4a16-channel", "packing-odd-length")
class FillsTheLastNibble(Right):
    def pack(self, codes: Array) -> Array:
        packed = super().pack(codes)
        if codes.shape[1] % 2:
            packed[:, -1] |= 0xF0
        return packed


@mutant("w4a16-channel", "packing-of-all-bytes")
class ReadsSignedBytes(Right):
    def unpack(self, packed: Array, depth: int) -> Array:
        raw = packed.view(np.int8)
        codes = np.stack([raw & 15, raw >> 4], axis=2).reshape(len(raw), -1)
        return codes[:, :depth]


# Dequantization and files.


@mutant("w4a16-g16", "dequantization")
class SubtractsZeroPointsLast(Right):
    def dequantize(self, codes: Array, scale: Array, zero: Array | None = None) -> Array:
        return super().dequantize(codes, scale) - (0 if zero is None else np.mean(zero))


@mutant("w8a16", "dequantization-is-linear")
class ReadsUnsignedCodes(Right):
    def dequantize(self, codes: Array, scale: Array, zero: Array | None = None) -> Array:
        return super().dequantize(codes.view(np.uint8), scale, zero)


@mutant("w8a16", "dequantization")
class RoundsProductsTwice(Right):
    def dequantize(self, codes: Array, scale: Array, zero: Array | None = None) -> Array:
        return super().dequantize(codes, scale, zero).astype(np.float16).astype(np.float32)


@mutant("w8a16", "serialization")
class WritesScalesInHalf(Right):
    def serialize(self, *parts: Array) -> bytes:
        with np.errstate(all="ignore"):
            return super().serialize(parts[0], parts[1].astype(np.float16))


@mutant("w8a16", "serialization-is-reproducible")
class WritesACounter(Right):
    numbers = count()

    def serialize(self, *parts: Array) -> bytes:
        return super().serialize(*parts) + bytes([next(self.numbers) % 256])


@mutant("w8a16", "clip-search")
class AlwaysClips(Right):
    def quantize_clipped(self, weight: Array) -> Sequence[Any]:
        return Clipped(self.scheme).quantize(weight)


class Clipped(Right):
    def ends(self, groups: Array) -> tuple[Array, Array]:
        low, high = super().ends(groups)
        return low, high * np.float32(0.5)


# Products.


def _sums(x: Array, weight: Array, dtype: type[Any]) -> Array:
    with np.errstate(all="ignore"):
        return (x.astype(dtype)[:, None, :] * weight.astype(dtype)).sum(axis=2, dtype=dtype)


@mutant("w8a16", "matmul-error-bound")
class LeavesOutTheRemainder(Right):
    """Of tiles of 16 inputs."""

    def matmul(self, x: Array, *parts: Array) -> Array:
        codes, scale = parts
        whole = x.shape[1] // 16 * 16
        return super().matmul(x[:, :whole], codes[:, :whole], scale)


@mutant("w8a16", "matmul-of-integers")
class AddsInHalf(Right):
    def matmul(self, x: Array, *parts: Array) -> Array:
        total = np.zeros((len(x), len(parts[0])), np.float16)
        with np.errstate(all="ignore"):
            for left, right in zip(x.T, self.dequantize(*parts).astype(np.float16).T, strict=True):
                total += left[:, None] * right
        return total


@mutant("w8a16-g16", "matmul-one-hot")
class UsesTheFirstGroupsScale(Right):
    def matmul(self, x: Array, *parts: Array) -> Array:
        codes, scale = parts
        first = np.repeat(scale[:, :1], scale.shape[1], axis=1)
        return super().matmul(x, codes, first)


@mutant("w8a16", "matmul-row-split")
class QuantizesTheWholeBatch(Right):
    """Dynamic quantization of activations with one scale."""

    def matmul(self, x: Array, *parts: Array) -> Array:
        scale = max(float(np.abs(x).max()), 1e-6) / 127
        return _sums(np.rint(x / scale) * scale, self.dequantize(*parts), np.float64)


@mutant("w8a16", "matmul-channel-split")
class DependsOnTheWidth(Right):
    def matmul(self, x: Array, *parts: Array) -> Array:
        y = super().matmul(x, *parts)
        return y.astype(np.float32) * np.float32(1 + 2.0**-20 * len(parts[0]))


@mutant("w8a16", "matmul-depth-split")
class Saturates(Right):
    def matmul(self, x: Array, *parts: Array) -> Array:
        return np.clip(super().matmul(x, *parts).astype(np.float32), -100, 100)


@mutant("w8a16", "matmul-padding")
class CountsPadding(Right):
    """The last inputs of a depth that is no multiple of 4 are left out."""

    def matmul(self, x: Array, *parts: Array) -> Array:
        x = x.copy()
        x[:, x.shape[1] // 4 * 4 :] = 0
        return super().matmul(x, *parts)


@mutant("w8a16", "matmul-nan-stays")
class DropsNaN(Right):
    def matmul(self, x: Array, *parts: Array) -> Array:
        return super().matmul(np.nan_to_num(x), *parts)


@mutant("w8a16", "int8-sums")
class SaturatesPairs(Right):
    """Pairs of products are added in 16 bits, as pmaddubsw does."""

    def int_matmul(self, x: Array, codes: Array, bias: Array) -> Array:
        products = x.astype(np.int64)[:, None, :] * codes
        pairs = np.pad(products, ((0, 0), (0, 0), (0, products.shape[2] % 2)))
        added = np.clip(pairs[..., ::2] + pairs[..., 1::2], -(2**14), 2**14 - 1)
        return added.sum(axis=2) + bias


@mutant("w8a16", "int8-sums-of-long-rows")
class AddsProductsInF32(Right):
    def int_matmul(self, x: Array, codes: Array, bias: Array) -> Array:
        sums = np.cumsum(x.astype(np.float32)[:, None, :] * codes, axis=2, dtype=np.float32)
        return sums[..., -1].astype(np.int64) + bias


@mutant("w8a16", "zero-point-as-bias")
class KeepsBiasesInHalf(Right):
    def int_matmul(self, x: Array, codes: Array, bias: Array) -> Array:
        with np.errstate(all="ignore"):
            half = np.nan_to_num(bias.astype(np.float16).astype(np.float64))
        return super().int_matmul(x, codes, half.astype(np.int64))


@mutant("w8a16", "requantization", "requantization-is-monotone")
class WrapsResults(Right):
    def requantize(self, sums: Array, factor: float) -> Array:
        return np.rint(sums * factor).astype(np.int64).astype(np.int8)


@mutant("w8a16", "requantization-to-nearest")
class ShiftsWithoutRounding(Right):
    def requantize(self, sums: Array, factor: float) -> Array:
        return np.clip(np.floor(sums * factor), -128, 127).astype(np.int8)


# Calibration.


@mutant("w8a16", "calibration-range")
class ForgetsTheSign(Right):
    def calibrate(self, batches: Sequence[Array]) -> float:
        return max(float(batch.max()) for batch in batches)


@mutant("w8a16", "calibration-order")
class TakesTheLastBatch(Right):
    def calibrate(self, batches: Sequence[Array]) -> float:
        return super().calibrate(batches[-1:])


@mutant("w8a16", "calibration-batches")
class AveragesBatches(Right):
    def calibrate(self, batches: Sequence[Array]) -> float:
        return float(np.mean([np.abs(batch).max() for batch in batches]))


@mutant("w8a16", "calibration-scaling")
class HasAFixedRange(Right):
    def calibrate(self, batches: Sequence[Array]) -> float:
        return min(super().calibrate(batches), 4.0)


@mutant("w8a16", "calibration-repetition")
class GrowsWithTheData(Right):
    def calibrate(self, batches: Sequence[Array]) -> float:
        rows = sum(len(batch) for batch in batches)
        return super().calibrate(batches) * (1 - 1 / (1 + rows))


# Whole models.


@mutant("w8a16", "lowering-is-sound")
class MixesUpChannels(Right):
    def run(self, graph: TopGraph, weights: Mapping[str, Array]) -> Sequence[Array]:
        last = graph.linear[-1]
        return super().run(graph, {**weights, last: weights[last][::-1]})


@mutant("w8a16", "lowering-is-reproducible")
class ReadsWhatNobodyWrote(Right):
    numbers = count()

    def run(self, graph: TopGraph, weights: Mapping[str, Array]) -> Sequence[Array]:
        (result,) = super().run(graph, weights)
        return [result + 1e-6 * next(self.numbers)]
