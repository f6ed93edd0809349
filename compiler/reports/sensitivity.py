"""What each linear layer loses in each scheme: predicted by closed formulas, and measured on the
layer's inputs.

A layer `y = x W^T` whose weight becomes `W + dW` makes the error `x dW^T`. Over the rows X of the
samples its energy is `tr(dW H dW^T)`, that of the output `tr(W H W^T)`, with H = X^T X / rows: the
figures are exact for these samples, though no sample is kept. (Biases are left out: they are not
quantized.) `int8` rounds inputs and outputs, too; its layers are run (`int8_layers`).

Predictions: errors are uniform in a step and independent of everything, so a weight in a group of
step s has the variance `s^2 / 12` (`backends.reference.noise`), and a layer's output the error
`sum_nk s_nk^2 / 12 H_kk`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.backends.reference.distributions import GAUSSIAN
from tilewright.backends.reference.noise import (
    code_spacing,
    code_steps,
    cosine_from_snr,
    expected_snr_db,
)
from tilewright.backends.reference.numerics import dequantize, quantize
from tilewright.compiler.quantization.linear_weights import LinearWeight
from tilewright.compiler.quantization.sizes import stored_bytes
from tilewright.compiler.reports.figures import ChannelSums, decibels, finite
from tilewright.dialects.element_types import F32, ElementType
from tilewright.dialects.quantization import Scheme, parse_scheme

Array = npt.NDArray[Any]

RANGE_INPUTS = 8
"""Inputs that are listed because they set the ranges of channels."""


@dataclass(frozen=True)
class EndToEnd:
    """The error of the model's final output if only this layer is quantized."""

    snr_db: float
    kl_nats: float | None
    """Mean divergence of the next token's distribution from the float model's; none where the
    output is not logits."""


@dataclass(frozen=True)
class LayerFigures:
    """One layer in one scheme. SNRs are in dB; a larger one is a smaller error."""

    key: str
    scheme: str
    channels: int
    depth: int
    rows: int
    """Rows of inputs that were seen."""
    bits_per_weight: float
    size_bytes: int
    gaussian_weight_snr_db: float
    """By the closed formula for Gaussian weights: depth and group alone."""
    predicted_weight_snr_db: float
    """By the closed formula, with the ranges that this weight's groups have."""
    weight_snr_db: float
    predicted_snr_db: float
    """Of the output, from the steps of this weight and the energy of each input."""
    snr_db: float
    predicted_cosine: float
    cosine: float
    worst_channel: int
    worst_channel_snr_db: float
    noise_share: float
    """The energy of the output's error over that of the output."""
    range_inputs: tuple[tuple[int, float], ...]
    """Inputs whose weights set the most ranges, and the share of ranges that each sets."""
    channel_snr_db: tuple[float, ...]
    share: float = 0.0
    """Of the noise shares of all layers in this scheme."""
    end_to_end: EndToEnd | None = None

    def to_json(self) -> dict[str, object]:
        """A row of `tw sensitivity --json` (docs/json.md); infinities become null."""
        end = self.end_to_end
        values: dict[str, object] = {
            name: finite(value) if isinstance(value, float) else value
            for name, value in vars(self).items()
            if name not in ("channel_snr_db", "end_to_end", "range_inputs")
        }
        values["range_inputs"] = [{"input": k, "share": share} for k, share in self.range_inputs]
        values["end_to_end"] = (
            None if end is None else {"snr_db": finite(end.snr_db), "kl_nats": end.kl_nats}
        )
        return values


@dataclass(frozen=True)
class NotPossible:
    """A scheme that a layer cannot have."""

    key: str
    scheme: str
    why: str


@dataclass(frozen=True)
class QuantizedMatrix:
    """A weight `[N, K]` and what is left of it in a scheme, f32 each."""

    exact: Array
    made: Array
    scheme: Scheme

    @staticmethod
    def of(weight: Array, scheme: Scheme, element: ElementType, name: str) -> QuantizedMatrix:
        """Quantize; scales (and dequantized weights) are of the type of activations, `element`."""
        codes, scale, zero = quantize(weight, scheme, element, name=name)
        # The machine's int8 products keep codes and scales apart: nothing is rounded again.
        kept = F32 if scheme.int8_activations else element
        made = dequantize(codes, scale, kept, zero, scheme.format)
        return QuantizedMatrix(weight, made.astype(np.float32), scheme)


def layer_figures(
    layer: LinearWeight,
    matrix: QuantizedMatrix,
    moments: Array,
    rows: int,
    output: ChannelSums | None = None,
    activation_noise: float = 0.0,
) -> LayerFigures:
    """The figures of a weight in a scheme on inputs with the second moments `moments` `[K, K]`.

    `output` is what was measured of a layer that was run (`int8`); `activation_noise` what rounding
    its input and output is predicted to add, as a share of the output's energy.
    """
    scheme = matrix.scheme
    weights = ChannelSums.of(matrix.exact.T, matrix.made.T)
    exact = matrix_sums(matrix, moments)
    noise = predicted_noise(matrix.exact, scheme, np.diag(moments))
    signal = float(exact.signal.sum())
    predicted = decibels(noise / signal + activation_noise) if signal else decibels(0.0)
    sums = exact if output is None else output
    channel_snr = sums.channel_snr_db
    has_noise = float(np.abs(matrix.exact).max(initial=0)) > 0
    size = stored_bytes(layer, scheme.name)
    return LayerFigures(
        key=layer.key,
        scheme=scheme.name,
        channels=layer.channels,
        depth=layer.depth,
        rows=rows,
        bits_per_weight=8 * size / layer.elements,
        size_bytes=size,
        gaussian_weight_snr_db=expected_snr_db(GAUSSIAN, scheme, layer.depth),
        predicted_weight_snr_db=expected_snr_db(matrix.exact, scheme, layer.depth)
        if has_noise
        else decibels(0.0),
        weight_snr_db=weights.snr_db,
        predicted_snr_db=predicted,
        snr_db=sums.snr_db,
        predicted_cosine=cosine_from_snr(predicted),
        cosine=sums.cosine,
        worst_channel=sums.worst_channel,
        worst_channel_snr_db=float(channel_snr[sums.worst_channel]),
        noise_share=sums.noise_share,
        range_inputs=range_inputs(matrix.exact, scheme),
        channel_snr_db=tuple(float(each) for each in channel_snr),
    )


def matrix_sums(matrix: QuantizedMatrix, moments: Array) -> ChannelSums:
    """The sums of the outputs, by channel, over rows with second moments H: `diag(W H W^T)` etc."""
    exact = matrix.exact.astype(np.float64)
    made = matrix.made.astype(np.float64)
    error = made - exact
    of_exact, of_error = exact @ moments, error @ moments
    signal = np.einsum("nk,nk->n", of_exact, exact)
    noise = np.einsum("nk,nk->n", of_error, error)
    cross = np.einsum("nk,nk->n", of_exact, error)
    # Moments of f32 products are not quite positive: what cancels may end below zero.
    return ChannelSums(
        np.maximum(signal, 0.0),
        np.maximum(noise, 0.0),
        signal + cross,
        np.maximum(signal + 2 * cross + noise, 0.0),
    )


def predicted_noise(weight: Array, scheme: Scheme, input_squares: Array) -> float:
    """`sum_nk variance(n, k) E[x_k^2]`: the energy of a row of outputs that rounding a weight is
    predicted to add. The variance is `(step d)^2 / 12` with the step of the group's range over the
    number of steps, and d the distance of codes (1 for integers)."""
    wide = weight.astype(np.float64)
    groups = wide.reshape(len(wide), scheme.groups(wide.shape[1]), -1)
    high, low = np.maximum(groups.max(axis=-1), 0), np.minimum(groups.min(axis=-1), 0)
    reach = high - low if scheme.zero_point else np.maximum(high, -low)
    step = np.repeat(reach / code_steps(scheme), groups.shape[-1], axis=1)
    safe = np.where(step == 0, 1.0, step)
    variance = (step * code_spacing(wide / safe, scheme)) ** 2 / 12
    return float((variance @ np.asarray(input_squares, np.float64)).sum())


def range_inputs(weight: Array, scheme: Scheme) -> tuple[tuple[int, float], ...]:
    """The inputs whose weights are the largest of their group most often, with the share of all
    groups: one that sets the ranges of many channels is an outlier column."""
    groups = scheme.groups(weight.shape[1])
    size = weight.shape[1] // groups
    largest = np.abs(weight).reshape(len(weight), groups, size).argmax(axis=-1)
    columns = (largest + size * np.arange(groups)).ravel()
    counts = np.bincount(columns, minlength=weight.shape[1])
    top = np.argsort(-counts, kind="stable")[:RANGE_INPUTS]
    return tuple((int(k), float(counts[k] / len(columns))) for k in top if counts[k])


def with_shares(rows: Iterable[LayerFigures]) -> list[LayerFigures]:
    """The rows with their shares of the error of their scheme, worst first."""
    rows = list(rows)
    totals: dict[str, float] = {}
    for row in rows:
        totals[row.scheme] = totals.get(row.scheme, 0.0) + row.noise_share
    shared = [
        replace(row, share=row.noise_share / totals[row.scheme] if row.noise_share else 0.0)
        for row in rows
    ]
    return sorted(shared, key=lambda row: row.snr_db)


def possible_schemes(
    layers: Mapping[str, LinearWeight], schemes: Sequence[str]
) -> tuple[dict[str, list[Scheme]], list[NotPossible]]:
    """The schemes that each layer can have, and those that it cannot."""
    possible: dict[str, list[Scheme]] = {}
    refused: list[NotPossible] = []
    for key, layer in layers.items():
        possible[key] = []
        for name in schemes:
            scheme = parse_scheme(name)
            if not scheme.fits(layer.depth):
                why = f"groups of {scheme.group} do not divide {layer.depth} inputs"
                refused.append(NotPossible(key, scheme.name, why))
            elif layer.is_head and scheme.int8_activations:
                why = "the head cannot be int8: logits of 8 bits would tie"
                refused.append(NotPossible(key, scheme.name, why))
            else:
                possible[key].append(scheme)
    return possible, refused
