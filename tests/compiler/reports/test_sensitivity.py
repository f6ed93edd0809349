"""Figures of layers against plain NumPy, closed formulas against measurement."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tilewright.compiler.calibration import LayerRange
from tilewright.compiler.quantization.linear_weights import LinearWeight
from tilewright.compiler.reports.float_runs import divergences
from tilewright.compiler.reports.int8_layers import activation_noise, round_to_codes
from tilewright.compiler.reports.sensitivity import (
    LayerFigures,
    QuantizedMatrix,
    layer_figures,
    possible_schemes,
    with_shares,
)
from tilewright.dialects.element_types import F16
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]

SCHEMES = [
    *("w8a16", "w8a16-g64", "w8a16-zp", "w4a16", "w4a16-channel", "w4a16-g32-absmax"),
    "w4a16-channel-absmax",
]


def inputs(rows: int, depth: int, seed: int = 1) -> Array:
    """Correlated inputs of many sizes."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, depth)) @ rng.standard_normal((depth, depth)) / depth**0.5
    return mixed * rng.lognormal(0, 0.7, depth)


def figures(weight: Array, x: Array, scheme: str) -> LayerFigures:
    layer = LinearWeight("w", *weight.shape)
    matrix = QuantizedMatrix.of(weight.astype(np.float32), parse_scheme(scheme), F16, "w")
    return layer_figures(layer, matrix, x.T @ x / len(x), len(x))


def snr(exact: Array, made: Array) -> float:
    return 10 * math.log10(float(np.sum(exact**2) / np.sum((made - exact) ** 2)))


def test_figures_are_those_of_the_layer_run_on_its_inputs() -> None:
    """Symmetric int4 by hand: scales rounded up to f16, codes half away from zero."""
    weight = np.random.default_rng(2).standard_normal((48, 64)).astype(np.float32)
    x = inputs(300, 64)
    exact_scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(7)
    scale = exact_scale.astype(np.float16)
    low = scale.astype(np.float32) < exact_scale
    scale = np.where(low, np.nextafter(scale, np.float16(np.inf)), scale).astype(np.float32)
    quotient = weight / scale
    codes = np.trunc(quotient + np.copysign(0.5, quotient))
    made = (codes * scale).astype(np.float16).astype(np.float64)
    y, y_made = x @ weight.astype(np.float64).T, x @ made.T
    row = figures(weight, x, "w4a16-channel-absmax")
    assert row.snr_db == pytest.approx(snr(y, y_made), abs=1e-6)
    assert row.weight_snr_db == pytest.approx(snr(weight.astype(np.float64), made), abs=1e-6)
    norms = np.linalg.norm(y) * np.linalg.norm(y_made)
    assert row.cosine == pytest.approx(float((y * y_made).sum() / norms), abs=1e-9)
    by_channel = [snr(y[:, n], y_made[:, n]) for n in range(48)]
    assert row.worst_channel == int(np.argmin(by_channel))
    assert row.worst_channel_snr_db == pytest.approx(min(by_channel), abs=1e-6)
    assert row.bits_per_weight == 4 + 16 / 64
    assert (row.rows, row.size_bytes) == (300, 48 * (32 + 2))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_closed_formulas_agree_with_measurement_on_gaussian_weights(scheme: str) -> None:
    weight = np.random.default_rng(3).standard_normal((512, 1024))
    row = figures(weight, np.random.default_rng(4).standard_normal((64, 1024)), scheme)
    assert row.gaussian_weight_snr_db == pytest.approx(row.weight_snr_db, abs=0.2)
    assert row.predicted_weight_snr_db == pytest.approx(row.weight_snr_db, abs=0.2)
    assert row.predicted_snr_db == pytest.approx(row.snr_db, abs=0.2)


def test_prediction_of_outputs_knows_the_inputs() -> None:
    """A column that sets the ranges and has small inputs costs the output more than the weight."""
    weight = np.random.default_rng(5).standard_normal((256, 256))
    x = np.random.default_rng(6).standard_normal((500, 256))
    weight[:, 9] *= 30
    x[:, 9] /= 30
    row = figures(weight, x, "w8a16")
    set_by_it = float(np.mean(np.abs(weight).argmax(axis=1) == 9))
    assert set_by_it > 0.8
    assert row.range_inputs[0] == (9, pytest.approx(set_by_it))
    assert row.snr_db < row.weight_snr_db - 5
    assert row.predicted_snr_db == pytest.approx(row.snr_db, abs=0.3)
    assert row.gaussian_weight_snr_db > row.predicted_weight_snr_db + 2


def test_an_all_zero_weight_has_no_error() -> None:
    row = figures(np.zeros((4, 32)), inputs(5, 32), "w8a16")
    assert (row.snr_db, row.weight_snr_db, row.noise_share) == (math.inf, math.inf, 0)
    assert row.to_json()["snr_db"] is None


def test_shares_sum_to_one_in_each_scheme_and_the_worst_comes_first() -> None:
    x, rng = inputs(50, 64), np.random.default_rng(7)
    rows = [
        figures(rng.standard_t(3, (32, 64)), x, scheme)
        for scheme in ("w8a16", "w4a16")
        for _ in range(3)
    ]
    shared = with_shares(rows)
    for scheme in ("w8a16", "w4a16"):
        assert sum(r.share for r in shared if r.scheme == scheme) == pytest.approx(1)
    assert [r.snr_db for r in shared] == sorted(r.snr_db for r in rows)


def test_schemes_that_do_not_fit_are_listed() -> None:
    layers = {
        "a": LinearWeight("a", 8, 96),
        "head": LinearWeight("head", 8, 128, is_head=True),
    }
    possible, refused = possible_schemes(layers, ["w8a16", "w4a16", "int8"])
    assert {k: [s.name for s in v] for k, v in possible.items()} == {
        "a": ["w8a16", "int8"],
        "head": ["w8a16", "w4a16"],
    }
    assert [(each.key, each.scheme) for each in refused] == [("a", "w4a16"), ("head", "int8")]
    assert refused[0].why == "groups of 64 do not divide 96 inputs"


def test_prediction_of_int8_activations() -> None:
    """Uniform rounding of inputs and outputs, whose ranges nothing leaves."""
    weight = np.random.default_rng(8).standard_normal((128, 256)).astype(np.float32)
    x = np.random.default_rng(9).standard_normal((400, 256))
    y = x @ weight.T.astype(np.float64)
    reach = LayerRange(float(np.abs(x).max()), float(np.abs(y).max()), len(x))
    matrix = QuantizedMatrix(weight, weight, parse_scheme("int8"))
    rounded = round_to_codes(x, reach.input_absmax) @ weight.T.astype(np.float64)
    measured = snr(y, round_to_codes(rounded, reach.output_absmax))
    predicted = activation_noise(matrix, reach, float(np.mean((y**2).sum(axis=1))))
    assert -10 * math.log10(predicted) == pytest.approx(measured, abs=0.2)
    assert np.abs(round_to_codes(np.array([9.0, -9.0]), 1.27)).max() <= 1.28 + 1e-12


def test_divergence_of_predictions() -> None:
    exact = np.log(np.array([[0.5, 0.25, 0.25]]))
    made = np.log(np.array([[0.25, 0.5, 0.25]]))
    wanted = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    np.testing.assert_allclose(divergences(exact, made + 7), [wanted])
    np.testing.assert_allclose(divergences(exact, exact), [0])
