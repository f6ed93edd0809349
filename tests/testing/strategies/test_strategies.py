"""What the strategies draw is what they say: every pattern, ties that are ties, heavy tails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from tests.testing.amount import examples

from tilewright.backends.reference.numerics import pack_nibbles, unpack_nibbles
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.quantization import Scheme, parse_scheme
from tilewright.testing.formats import FLOAT8_E4M3, FLOAT16, code_steps
from tilewright.testing.quantizer import Quantizer, Subject
from tilewright.testing.strategies import (
    DISTRIBUTIONS,
    GAUSSIAN,
    LAPLACE,
    STUDENT_T4,
    Distribution,
    QuantizerConfig,
    TopGraph,
    bfloat16s,
    bit_arrays,
    cancelling,
    constant_channels,
    float8s_e4m3,
    float8s_e5m2,
    float16s,
    int4s,
    largest_f16,
    matrix_shapes,
    near_subnormal_scales,
    on_grid,
    one_sided,
    outliers,
    packed_int4_bytes,
    quantizer_configs,
    schemes,
    tailed,
    ties,
    top_graphs,
    weights,
    with_zero_channels,
)
from tilewright.testing.strategies.tails import quantile_table
from tilewright.testing.suite.accuracy import ideal_scale

Array = npt.NDArray[Any]
SCHEMES = ["w8a16", "w8a16-zp", "w4a16-g16", "w4a16-channel-absmax", "f8e4m3"]
SHAPE = (4, 48)


def sample(strategy: st.SearchStrategy[Any], count: int = 60) -> list[Any]:
    """What Hypothesis draws."""
    seen: list[Any] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(strategy)
    def draw(value: Any) -> None:
        seen.append(value)

    draw()
    return seen


def scales_of(weight: Array, scheme: Scheme) -> Array:
    """The ideal scale of each element."""
    subject = Subject(Quantizer(lambda w: ()), scheme)
    scale = ideal_scale(subject, weight)
    return np.repeat(scale, weight.shape[1] // scale.shape[1], axis=1)


# Scalars.


@pytest.mark.parametrize("scalars", [float16s, bfloat16s, float8s_e5m2])
def test_special_values_are_common(scalars: Callable[[], st.SearchStrategy[Any]]) -> None:
    values = np.array([float(x) for x in sample(scalars(), 400)])
    nonfinite = np.mean(~np.isfinite(values))
    assert 0.001 < nonfinite < 0.2  # 3 % of f16, 0.8 % of bf16, 3 % of e5m2 are not finite


def test_arrays_are_uniform_over_bit_patterns() -> None:
    bits = np.concatenate([a.view(np.uint16) for a in sample(bit_arrays(FLOAT16, (2000,)), 20)])
    # As many in each sixteenth of the patterns, but for Hypothesis's own favourites.
    shares = np.histogram(bits, bins=16, range=(0, 65536))[0] / len(bits)
    assert shares.min() > 0.03
    subnormal = ((bits & 0x7C00) == 0).mean()
    assert 0.015 < subnormal < 0.2


def test_filters_of_scalars() -> None:
    for value in sample(float8s_e4m3(allow_nan=False), 200):
        assert np.isfinite(float(value))
    assert {int(v) for v in sample(int4s(), 300)} == set(range(-8, 8))


def test_scalars_shrink_to_simple_numbers() -> None:
    assert find(float16s(), lambda x: bool(x > 0)) == 1
    assert find(float16s(), lambda x: bool(x > 100)) == 128
    assert np.isinf(find(bfloat16s(allow_nan=False), lambda x: not np.isfinite(float(x))))


def test_arrays_shrink_element_by_element() -> None:
    made = find(bit_arrays(FLOAT8_E4M3, (3, 5)), lambda a: bool((a.astype(np.float32) > 1).any()))
    assert sorted(made.astype(np.float32).ravel().tolist())[-2:] == [0, 2]


@given(packed_int4_bytes(matrix_shapes()))
@settings(max_examples=examples(50))
def test_packed_bytes_unpack_and_pack(packed: tuple[Array, int]) -> None:
    data, depth = packed
    codes = unpack_nibbles(data, depth, signed=True)
    np.testing.assert_array_equal(pack_nibbles(codes).view(np.uint8), data)


# Weights.


@pytest.mark.parametrize("name", SCHEMES)
def test_ties_are_ties(name: str) -> None:
    scheme = parse_scheme(name)
    exact = tied = total = 0
    for weight in sample(ties(SHAPE, scheme)):
        steps = weight / scales_of(weight, scheme)
        fraction, _ = np.frexp(scales_of(weight, scheme))
        exact += bool((fraction == 0.5).all())
        if scheme.format.is_float:
            codes = np.abs(steps).astype(FLOAT8_E4M3.dtype).astype(np.float64)
            tied += int((codes != np.abs(steps)).sum())
        else:
            tied += int((steps % 1 == 0.5).sum())
        total += steps.size
    assert exact == 60
    assert tied / total > 0.2


@pytest.mark.parametrize("name", SCHEMES)
def test_the_grid_is_exact(name: str) -> None:
    scheme = parse_scheme(name)
    for weight, codes, zero in sample(on_grid(SHAPE, scheme)):
        wide = np.repeat(zero, SHAPE[1] // zero.shape[1], axis=1)
        np.testing.assert_array_equal(weight, (codes - wide) * scales_of(weight, scheme))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: d.name)
def test_tables_have_the_distributions_moments_and_cdf(distribution: Distribution) -> None:
    values = quantile_table(distribution)
    # The heaviest tail is cut at 1 in 4096.
    assert np.mean(values**2) == pytest.approx(distribution.mean_square, rel=0.1)
    at = np.array([-1.5, -0.25, 0.1, 0.7, 1.9])
    shares = (values[None, :] <= at[:, None]).mean(axis=1)
    np.testing.assert_allclose(shares, distribution.cdf(at), atol=2e-3)


def test_tails_are_heavy() -> None:
    def kurtosis(distribution: Distribution) -> float:
        drawn = np.concatenate(sample(tailed(SHAPE, distribution, exponents=(0, 0))))
        return float(np.mean(drawn**4.0) / np.mean(drawn**2.0) ** 2)

    # Of the distributions: 3, 6, infinite. Hypothesis repeats itself: the order holds, no more.
    assert kurtosis(GAUSSIAN) < kurtosis(LAPLACE) < kurtosis(STUDENT_T4)


def test_scales_near_the_subnormals() -> None:
    ranges = [np.abs(w).max(axis=1) / 127 for w in sample(near_subnormal_scales(SHAPE))]
    scales = np.concatenate(ranges)
    assert (scales < 2.0**-25 * 1.1).any()  # 0 in f16
    assert ((scales > 2.0**-24) & (scales < 2.0**-14)).any()  # subnormal
    assert (scales >= 2.0**-14).any()


def test_other_families() -> None:
    assert all(np.abs(w).max() == 65504 for w in sample(largest_f16(SHAPE), 20))
    for weight in sample(one_sided(SHAPE, offset=5.0, exponents=(0, 0)), 20):
        assert (np.abs(weight) >= 5).all()
        assert (np.abs(weight.sum(axis=1)) == np.abs(weight).sum(axis=1)).all()
    for weight in sample(constant_channels(SHAPE), 20):
        assert (weight == weight[:, :1]).all()
        assert (weight != 0).all()
    scheme = parse_scheme("w4a16-g16")
    for weight in sample(with_zero_channels(SHAPE, scheme), 20):
        assert (weight.reshape(4, 3, 16) == 0).all(axis=2).any()
    drawn = [np.abs(w) for w in sample(outliers(SHAPE), 60)]
    ratios = [w.max() / np.median(w) for w in drawn if np.median(w)]
    assert np.median(ratios) > 8


def test_products_cancel() -> None:
    shares: list[float] = []
    for x, weight in sample(cancelling(2, (3, 32)), 40):
        terms = np.abs(x.astype(np.float64)) @ np.abs(weight.astype(np.float64)).T
        sums = np.abs(x.astype(np.float64) @ weight.astype(np.float64).T)
        shares += (sums / np.maximum(terms, 1e-30)).ravel().tolist()
    assert max(shares) < 2.0**-9


@pytest.mark.parametrize("name", ["w8a16", "w4a16-g16", "f8e5m2"])
def test_ordinary_weights_have_normal_scales(name: str) -> None:
    scheme = parse_scheme(name)
    for weight in sample(weights(scheme=scheme, ordinary=True), 100):
        scales = np.abs(weight).max() and scales_of(weight, scheme)
        assert np.all((scales == 0) | (scales >= 2.0**-14))
        assert np.isfinite(weight.astype(np.float16)).all()


@given(weights())
@settings(max_examples=examples(100))
def test_weights_are_finite(weight: Array) -> None:
    assert weight.dtype == np.float32
    assert np.isfinite(weight).all()


def test_shapes_leave_remainders() -> None:
    depths = {shape[1] for shape in sample(matrix_shapes(), 200)}
    assert {depth % 2 for depth in depths} == {0, 1}
    assert any(depth % 16 == 1 and depth > 16 for depth in depths)
    assert any(depth % 16 == 15 for depth in depths)
    grouped = parse_scheme("w4a16-g32")
    assert {shape[1] for shape in sample(matrix_shapes(grouped), 60)} == {32, 64, 96}


# Configurations and graphs.


@given(schemes())
@settings(max_examples=examples(100))
def test_schemes_have_names(scheme: Scheme) -> None:
    assert parse_scheme(scheme.name) == scheme
    assert code_steps(scheme) > 0


@given(quantizer_configs())
@settings(max_examples=examples(50))
def test_configurations_fit(config: QuantizerConfig) -> None:
    assert config.scheme.fits(config.shape[1])


@given(top_graphs(parse_scheme("w4a16-g16")))
@settings(max_examples=examples(30), deadline=None)
def test_graphs_are_verified_and_their_layers_fit(graph: TopGraph) -> None:
    verify_module(graph.module)
    assert graph.linear
    for key in graph.linear:
        assert graph.weights[key].shape[1] % 16 == 0


def test_ordinary_weights_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """And not as the call that made them from others."""

    @given(weights((1, 2), ordinary=True))
    def fails(weight: Array) -> None:
        raise ValueError(weight)

    with pytest.raises(ValueError, match=r"\[\[") as caught:
        fails()
    assert "weight=array(" in "".join(caught.value.__notes__)
