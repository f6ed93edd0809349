"""Bounds against measurement, and against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.testing.amount import examples

from tilewright.backends.reference import numerics, requant
from tilewright.dialects.element_types import F16
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.quantization import parse_scheme
from tilewright.testing.bounds import (
    cosine_from_snr,
    dequantized_matmul_error_bound,
    expected_snr_db,
    expected_square_max,
    f32_accumulator_is_exact,
    gamma,
    graph_error_bound,
    int32_accumulator_is_exact,
    largest_weight_error,
    matmul_error_bound,
    output_error_bound,
    quantization_error_bound,
    requantization_error,
    snr_db,
    zero_point_bias,
)
from tilewright.testing.formats import code_values
from tilewright.testing.strategies import (
    GAUSSIAN,
    HALF_GAUSSIAN,
    LAPLACE,
    STUDENT_T4,
    UNIFORM,
    Distribution,
    TopGraph,
    activations,
    cancelling,
    top_graphs,
    weights,
)

Array = npt.NDArray[Any]

# docs/numerics.md, "What follows"
GAUSSIAN_DB = {
    "w8a16": 41.3,
    "w4a16-channel-absmax": 16.1,
    "w4a16-channel": 17.1,
    "w4a16-g128-absmax": 18.6,
    "w4a16-g32-absmax": 20.3,
    "w4a16-g32": 21.9,
}
ONE_SIDED_DB = {"w4a16-channel": 22.6, "w4a16-g32": 26.9, "w4a16-g32-absmax": 20.3}


def quantized(weight: Array, name: str) -> tuple[Array, Array, Array]:
    """`(values, steps, scale)` by the reference, f64."""
    scheme = parse_scheme(name)
    codes, scale, zero = numerics.quantize(weight.astype(np.float32), scheme, F16)
    wide = scale.astype(np.float64)
    steps = code_values(codes, scheme.format)
    if zero is not None:
        steps = steps - np.repeat(zero.astype(np.float64), weight.shape[1] // zero.shape[1], axis=1)
    return steps * np.repeat(wide, weight.shape[1] // wide.shape[1], axis=1), steps, wide


# Noise.


@pytest.mark.parametrize("name", GAUSSIAN_DB)
def test_expected_noise_is_that_of_the_documentation(name: str) -> None:
    expected = expected_snr_db(GAUSSIAN, parse_scheme(name), 4096)
    assert expected == pytest.approx(GAUSSIAN_DB[name], abs=0.2)


@pytest.mark.parametrize("name", ONE_SIDED_DB)
def test_expected_noise_of_one_sided_weights(name: str) -> None:
    expected = expected_snr_db(HALF_GAUSSIAN, parse_scheme(name), 4096)
    assert expected == pytest.approx(ONE_SIDED_DB[name], abs=0.2)


@pytest.mark.parametrize(
    ("distribution", "names"),
    [
        (GAUSSIAN, [*GAUSSIAN_DB, "w8a16-zp", "w8a16-g32", "f8e4m3", "f8e5m2", "w4a16-g16"]),
        (LAPLACE, ["w8a16", "w8a16-zp", "w8a16-g32", "f8e4m3"]),
        (UNIFORM, ["w8a16", "w4a16-channel", "w4a16-channel-absmax", "f8e4m3"]),
        (HALF_GAUSSIAN, ["w8a16-zp", "w4a16-channel", "w4a16-g32"]),
        (STUDENT_T4, ["w8a16-g32"]),
    ],
    ids=lambda value: value.name if isinstance(value, Distribution) else "",
)
def test_expected_noise_is_what_is_measured(distribution: Distribution, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    weight = distribution.quantile(rng.random((1024, 512)))
    if not distribution.one_sided:
        weight *= rng.choice([-1.0, 1.0], weight.shape)
    for name in names:
        measured = snr_db(weight, quantized(weight, name)[0])
        expected = expected_snr_db(distribution, parse_scheme(name), 512)
        assert measured == pytest.approx(expected, abs=0.2), name
        from_data = expected_snr_db(weight, parse_scheme(name), 512)
        assert measured == pytest.approx(from_data, abs=0.15), name


def test_expected_squares_of_extremes() -> None:
    # Of two Gaussians: E[max(|a|, |b|)^2] = 1 + 2 / pi, by integrating over the angle.
    assert expected_square_max(GAUSSIAN, 1) == pytest.approx(1, rel=1e-5)
    assert expected_square_max(GAUSSIAN, 2) == pytest.approx(1 + 2 / np.pi, rel=1e-5)
    assert expected_square_max(UNIFORM, 9) == pytest.approx(9 / 11, rel=1e-5)


def test_snr_and_cosine() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(200_000)
    for db in (3.0, 16.0, 41.0):
        noisy = x + rng.standard_normal(x.size) * 10 ** (-db / 20)
        assert snr_db(x, noisy) == pytest.approx(db, abs=0.05)
        cosine = x @ noisy / np.linalg.norm(x) / np.linalg.norm(noisy)
        assert cosine_from_snr(db) == pytest.approx(cosine, abs=2e-3)
    assert snr_db(x, x) == float("inf")
    assert snr_db(np.zeros(3), np.ones(3)) == float("-inf")


# Weights.


@given(
    name=st.sampled_from(["w8a16", "w8a16-zp", "w4a16-channel", "f8e4m3", "f8e5m2"]),
    weight=weights((3, 32)),
)
@settings(max_examples=examples(100), deadline=None)
def test_quantization_error_is_within_its_bound(name: str, weight: Array) -> None:
    scheme = parse_scheme(name)
    values, steps, scale = quantized(weight, name)
    error = np.abs(values - weight)
    assert np.all(error <= quantization_error_bound(scale, steps, scheme))
    assert np.all(error <= largest_weight_error(weight, scheme))


def test_the_bound_of_weights_is_reached() -> None:
    weight = np.array([[127.0, 0.5, 63.5, -0.5]])
    values, steps, scale = quantized(weight, "w8a16")
    bound = quantization_error_bound(scale, steps, parse_scheme("w8a16"))
    assert np.abs(values - weight).max() / bound.max() > 0.9999


def test_scales_that_are_rounded_afterwards() -> None:
    scheme = parse_scheme("w8a16")
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((500, 64)).astype(np.float32)
    scale = (np.abs(weight).max(axis=1, keepdims=True) / 127).astype(np.float64)
    codes = np.rint(weight / scale)
    stored = scale.astype(np.float16).astype(np.float64)
    error = np.abs(codes * stored - weight)
    plain = quantization_error_bound(stored, codes, scheme)
    wider = quantization_error_bound(stored, codes, scheme, scale_rounded_after=2.0**-11)
    assert (error > plain).any()
    assert (error <= wider).all()
    assert (wider / plain).max() < 1.126


# Products.


def _exact(x: Array, weight: Array) -> list[list[Fraction]]:
    return [
        [
            sum(
                (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(r, c, strict=True)),
                Fraction(0),
            )
            for c in weight
        ]
        for r in x
    ]


@given(
    st.one_of(
        cancelling(2, (3, 24)),
        st.tuples(activations((2, 24)), activations((3, 24), dtype=np.float32)),
    )
)
@settings(max_examples=examples(60), deadline=None)
def test_products_are_within_their_bound_of_exact_sums(operands: tuple[Array, Array]) -> None:
    x, weight = operands
    weight = weight.astype(np.float16)
    with np.errstate(all="ignore"):
        y = (x.astype(np.float32) @ weight.astype(np.float32).T).astype(np.float16)
    bound = matmul_error_bound(x, weight, np.float16)
    for i, row in enumerate(_exact(x, weight)):
        for j, value in enumerate(row):
            if np.isfinite(bound[i, j]):
                assert abs(Fraction(float(y[i, j])) - value) <= Fraction(float(bound[i, j]))


def test_products_in_half_are_outside() -> None:
    rng = np.random.default_rng(3)
    x, w = (rng.standard_normal(s).astype(np.float16) for s in ((4, 512), (8, 512)))
    sums = np.zeros((4, 8), np.float16)
    for left, right in zip(x.T, w.T, strict=True):
        sums += left[:, None] * right
    error = np.abs(sums - x.astype(np.float64) @ w.astype(np.float64).T)
    assert (error > matmul_error_bound(x, w, np.float16)).any()


def test_two_ways_to_use_a_scale_are_within_one_bound() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((8, 300)).astype(np.float16)
    weight = rng.standard_normal((16, 300))
    values, steps, scale = quantized(weight, "w8a16")
    exact = x.astype(np.float64) @ values.T
    bound = dequantized_matmul_error_bound(x, steps, scale, np.float16)
    rounded = x.astype(np.float32) @ values.astype(np.float16).astype(np.float32).T
    scaled = (x.astype(np.float32) @ steps.astype(np.float32).T) * scale.astype(np.float32).T
    for y in (rounded.astype(np.float16), scaled.astype(np.float16)):
        assert (np.abs(y - exact) <= bound).all()
    assert (rounded.astype(np.float16) != scaled.astype(np.float16)).any()


def test_what_quantizing_does_to_outputs() -> None:
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((64, 4096)), rng.standard_normal((64, 4096))
    values, _, scale = quantized(weight, "w8a16")
    error = x @ (values - weight).T
    assert (np.abs(error) <= output_error_bound(x, scale) * 1.001).all()
    rms = output_error_bound(x, scale, rms=True)
    assert np.sqrt(np.mean((error / rms) ** 2)) == pytest.approx(1, abs=0.03)


def test_accumulators() -> None:
    assert int32_accumulator_is_exact(133144)
    assert not int32_accumulator_is_exact(133145)
    assert 133144 * 127**2 < 2**31 <= 133145 * 127**2
    assert not int32_accumulator_is_exact(133144, bias=20_000)
    assert f32_accumulator_is_exact(1040)
    assert not f32_accumulator_is_exact(1041)
    assert gamma(4096) == pytest.approx(4096 * 2.0**-24, rel=1e-3)
    with pytest.raises(UnsupportedError, match="no f32 error bound"):
        gamma(2**24)


@given(st.integers(-(2**31), 2**31 - 1), st.floats(2.0**-31, 0.999, allow_subnormal=False))
@settings(max_examples=examples(200))
def test_requantization_by_multiplier_and_shift_is_to_nearest(total: int, factor: float) -> None:
    sums = np.array([total], np.int32)
    made = requant.requantize(sums, *requant.requant_parameters(factor))
    assert requantization_error(made, sums, factor)[0] <= 0.5 + 2.0**-20


def test_zero_points_as_biases() -> None:
    rng = np.random.default_rng(6)
    x, codes = (rng.integers(-127, 128, s) for s in ((5, 99), (7, 99)))
    folded = x @ codes.T + zero_point_bias(codes, 17)
    np.testing.assert_array_equal(folded, (x - 17) @ codes.T)


# Graphs.


def _run(graph: TopGraph, weights_: dict[str, Array]) -> Array:
    ((value, _),) = graph_error_bound(graph.module, [graph.x], weights_)
    return value


@given(top_graphs(), st.sampled_from(["w8a16", "w4a16-g16", "f8e4m3"]))
@settings(max_examples=examples(40), deadline=None)
def test_quantized_graphs_are_within_the_composed_bound(graph: TopGraph, name: str) -> None:
    scheme = parse_scheme(name)
    errors = {key: largest_weight_error(graph.weights[key], scheme) for key in graph.linear}
    ((value, bound),) = graph_error_bound(
        graph.module, [graph.x], graph.weights, weight_errors=errors
    )
    made = {key: quantized(graph.weights[key], name)[0] for key in graph.linear}
    error = np.abs(_run(graph, {**graph.weights, **made}) - value)
    assert np.all(error <= bound)


def test_the_composed_bound_says_something() -> None:
    scheme, ratios = parse_scheme("w8a16"), list[float]()

    @given(top_graphs(most_ops=3))
    @settings(max_examples=30, deadline=None)
    def measure(graph: TopGraph) -> None:
        errors = {key: largest_weight_error(graph.weights[key], scheme) for key in graph.linear}
        ((value, bound),) = graph_error_bound(
            graph.module, [graph.x], graph.weights, weight_errors=errors
        )
        ratios.append(float(np.median(bound) / (np.abs(value).max() + 1e-30)))

    measure()
    assert np.median(ratios) < 0.2
