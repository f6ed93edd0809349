"""Predicted errors: the closed formulas against measured noise and the published table, and errors
on samples of rows against those on all."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import TINY_LLAMA, model_of, random_weights

from tilewright.backends.reference.distributions import GAUSSIAN
from tilewright.backends.reference.noise import expected_square_max, expected_square_range
from tilewright.backends.reference.numerics import dequantize, quantize
from tilewright.compiler.quantization.expected_noise import expected_noise
from tilewright.compiler.quantization.layer_error import LayerErrors, sample_rows
from tilewright.compiler.quantization.linear_weights import LinearWeight, linear_weights
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]


def decibels(noise: float) -> float:
    return -10 * log10(noise)


@pytest.mark.parametrize(
    ("quant", "snr"),
    [
        ("w8a16", 41.3),
        ("w4a16-channel-absmax", 16.1),
        ("w4a16-channel", 17.1),
        ("w4a16-g128-absmax", 18.6),
        ("w4a16-g32-absmax", 20.3),
        ("w4a16-g32", 21.9),
    ],
)
def test_closed_formulas_give_the_table_of_the_numerics_page(quant: str, snr: float) -> None:
    assert decibels(expected_noise(quant, 4096)) == pytest.approx(snr, abs=0.2)


@pytest.mark.parametrize(
    "quant",
    [
        *("w8a16", "w8a16-zp", "w8a16-g64", "w4a16-channel", "w4a16", "w4a16-g16"),
        *("w4a16-absmax", "f8e4m3", "f8e5m2", "f8e4m3-g64"),
    ],
)
def test_closed_formulas_agree_with_measured_noise(quant: str) -> None:
    """Within 0.6 dB: scales are rounded up, and the largest value of a group has no error."""
    rows = np.random.default_rng(1).standard_normal((64, 1024)).astype(np.float32)
    scheme = parse_scheme(quant)
    codes, scale, zero = quantize(rows, scheme, F16)
    error = dequantize(codes, scale, F32, zero, scheme.format) - rows
    measured = float(np.sum(error**2) / np.sum(rows**2))
    assert decibels(measured) == pytest.approx(decibels(expected_noise(quant, 1024)), abs=0.6)


@pytest.mark.parametrize("count", [1, 2, 64, 4096])
def test_order_statistics_of_gaussians(count: int) -> None:
    draws = np.random.default_rng(2).standard_normal((8_000_000 // max(count, 400), count))
    largest = float(np.mean(np.abs(draws).max(axis=1) ** 2))
    high, low = draws.max(axis=1, initial=0), draws.min(axis=1, initial=0)
    assert expected_square_max(GAUSSIAN, count) == pytest.approx(largest, rel=0.03)
    spread = float(np.mean((high - low) ** 2))
    assert expected_square_range(GAUSSIAN, count) == pytest.approx(spread, rel=0.03)


@dataclass(frozen=True)
class Matrices:
    """A source of dense matrices."""

    arrays: dict[str, Array]

    def read_rows(self, key: str, start: int, stop: int) -> Array:
        return self.arrays[key][start:stop]

    def read_columns(self, key: str, start: int, stop: int) -> Array:
        return self.arrays[key][:, start:stop]


@dataclass(frozen=True)
class Inputs:
    """Statistics of a layer's inputs."""

    mean_abs: Array
    hessian: Array | None = None


def test_errors_of_samples_are_those_of_whole_weights() -> None:
    """Channels with errors of many sizes, and inputs that are far from alike."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((2048, 128)) * rng.lognormal(0, 0.3, (2048, 1))
    x = rng.standard_normal((1000, 128)) * rng.lognormal(0, 1, 128)
    quants = ["w4a16-g32", "w8a16"]
    source = Matrices({"w": weight.astype(np.float16), "t": weight.T.astype(np.float16)})
    statistics = Inputs(np.abs(x).mean(axis=0), x.T @ x / len(x))
    errors = LayerErrors(source, "f16").of(LinearWeight("w", 2048, 128), quants, statistics)
    turned = LinearWeight("t", 2048, 128, transposed=True)
    assert LayerErrors(source, "f16").of(turned, quants, statistics) == errors
    for quant, predicted in zip(quants, errors, strict=True):
        scheme = parse_scheme(quant)
        held = source.arrays["w"].astype(np.float32)
        codes, scale, zero = quantize(held, scheme, F16)
        error = (dequantize(codes, scale, F16, zero, scheme.format).astype(np.float32) - held) @ x.T
        measured = np.sum(error**2) / np.sum((held @ x.T) ** 2)
        assert decibels(predicted) == pytest.approx(decibels(float(measured)), abs=1.0)


def test_statistics_decide() -> None:
    """An input that is never used makes no error, however large its weights are."""
    weight = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32)
    weight[:, 5] *= 1000
    layer, source = LinearWeight("w", 64, 64), Matrices({"w": weight})
    used = np.ones(64)
    used[5] = 0
    plain, diagonal, full = (
        LayerErrors(source, "f16").of(layer, ["w4a16-channel"], statistics)[0]
        for statistics in (None, Inputs(used), Inputs(used, np.diag(used)))
    )
    assert diagonal == pytest.approx(full)
    assert diagonal > 50 * plain, "the largest weight spoils the others' codes"


def test_inputs_that_cancel_are_seen_in_second_moments_only() -> None:
    """Two inputs that are always alike, with weights of opposite signs, give no output."""
    weight = np.random.default_rng(5).standard_normal((64, 64)).astype(np.float32)
    weight[:, 0], weight[:, 1] = 30, -30
    moments = np.eye(64)
    moments[0, 1] = moments[1, 0] = 1
    layer, source = LinearWeight("w", 64, 64), Matrices({"w": weight})
    alike = np.ones(64)
    diagonal, full = (
        LayerErrors(source, "f16").of(layer, ["w4a16-channel"], statistics)[0]
        for statistics in (Inputs(alike), Inputs(alike, moments))
    )
    assert full > 10 * diagonal


def test_samples_of_few_rows_are_all_rows() -> None:
    array = np.arange(12.0).reshape(3, 4)
    rows = sample_rows(Matrices({"w": array}), LinearWeight("w", 3, 4))
    np.testing.assert_array_equal(np.unique(rows, axis=0), array)
    assert LayerErrors(Matrices({"w": 0 * array}), "f16").of(
        LinearWeight("w", 3, 4), ["w8a16", "f16"]
    ) == [0, 0]


def test_linear_weights_are_those_of_products_and_the_embedding() -> None:
    model = model_of(TINY_LLAMA, 8)
    found = linear_weights(model.trace())
    matrices = {key: array.shape for key, array in random_weights(model).items()}
    assert {
        key: (each.depth, each.channels) if each.transposed else (each.channels, each.depth)
        for key, each in found.items()
    } == {
        key: shape for key, shape in matrices.items() if key.endswith("weight") and len(shape) == 2
    }
    assert [key for key, each in found.items() if each.is_head] == ["lm_head.weight"]
    assert [key for key, each in found.items() if each.is_embedding] == [
        "model.embed_tokens.weight"
    ]
