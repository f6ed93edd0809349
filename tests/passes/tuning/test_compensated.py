"""GPTQ against what it is defined by: the closest point by optimal brain surgery, column by column,
with the inverse Hessian of what is left computed anew for each, in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.tuning.memory import correlated, statistics_of

from tilewright.backends.reference import numerics
from tilewright.dialects.element_types import BF16, F16, F32
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme, parse_scheme
from tilewright.passes.tuning.compensated import (
    Compensation,
    code_limits,
    inverse_factor,
    round_with_compensation,
)
from tilewright.passes.tuning.rounding import Rounded, energy, round_to_nearest

Array = npt.NDArray[Any]

SCHEMES = (
    "w8a16",
    "w8a16-g32",
    "w8a16-zp",
    "w8a16-g64-zp",
    "w4a16",
    "w4a16-g32",
    "w4a16-channel",
    "w4a16-absmax",
    "w4a16-channel-absmax",
    "int8",
)


def problem(seed: int, channels: int, depth: int) -> tuple[Array, Array]:
    """A weight and a Hessian."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((channels, depth)).astype(np.float32)
    inputs = correlated(rng, 4 * depth, depth).astype(np.float64)
    return weight, inputs.T @ inputs / len(inputs)


def surgery(
    weight: Array, hessian: Array, scheme: Scheme, order: Array, *, static: bool
) -> Rounded:
    """Optimal brain surgery in the order `order`: after `w_i` is rounded with error `e`, the
    weights that are left, F, take `-e * inv(H_F)[:, i] / inv(H_F)[i, i]`."""
    channels, depth = weight.shape
    group = scheme.group or depth
    whole = round_to_nearest(weight, scheme, F16)
    scale, zero = whole.scale.copy(), whole.zero
    work = weight.astype(np.float64)
    codes = np.zeros((channels, depth), np.int8)
    low, high = code_limits(scheme)
    for position, column in enumerate(order):
        g = column // group
        if not static and position % group == 0:
            columns = slice(column, column + group)
            found = round_to_nearest(
                work[:, columns].astype(np.float32), replace(scheme, group=0), F16
            )
            scale[:, g] = found.scale[:, 0]
            if zero is not None and found.zero is not None:
                zero[:, g] = found.zero[:, 0]
        step = scale[:, g].astype(np.float64)
        shift = np.zeros(channels) if zero is None else zero[:, g].astype(np.float64)
        rounded = numerics.round_half_away(work[:, column] / step)
        codes[:, column] = np.clip(rounded + shift, low, high)
        error = work[:, column] - (codes[:, column] - shift) * step
        left = order[position:]
        inverse = np.linalg.inv(hessian[np.ix_(left, left)])
        work[:, left] -= np.outer(error, inverse[:, 0] / inverse[0, 0])
    return Rounded(codes, scale, zero, scheme.format)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("act_order", [False, True])
def test_it_is_optimal_brain_surgery(name: str, act_order: bool) -> None:
    scheme, damping = parse_scheme(name), 0.01
    weight, hessian = problem(1, 24, 192)
    damped = hessian + damping * np.diag(hessian).mean() * np.eye(192)
    order = np.argsort(-np.diag(damped), kind="stable") if act_order else np.arange(192)
    expected = surgery(weight, damped, scheme, order, static=act_order or not scheme.group)
    how = Compensation(damping, act_order=act_order)
    made = round_with_compensation(weight, hessian, scheme, F16, how)
    assert np.mean(made.codes == expected.codes) > 0.995  # f32 against float64: ties differ
    errors = [energy(weight - each.values(), statistics(hessian)) for each in (made, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    nearest = round_to_nearest(weight, scheme, F16)
    assert errors[0] < 0.9 * energy(weight - nearest.values(), statistics(hessian))


def statistics(hessian: Array) -> Any:
    one = statistics_of(np.ones((1, len(hessian))))
    return replace(one, hessian=hessian)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("element", [F16, BF16, F32])
def test_without_correlation_it_is_rounding_to_nearest(name: str, element: Any) -> None:
    """Bit by bit, whatever the sizes of the inputs are and in whatever order they come."""
    scheme = parse_scheme(name)
    rng = np.random.default_rng(2)
    weight = rng.standard_t(4, (70, 384)).astype(np.float32)
    weight[3] = 0
    weight[4, 64:128] = 0
    nearest = round_to_nearest(weight, scheme, element)
    for hessian in (np.eye(384), np.diag(rng.random(384)), np.zeros((384, 384))):
        for act_order, static in itertools.product([False, True], repeat=2):
            how = Compensation(0.01, act_order, static)
            made = round_with_compensation(weight, hessian, scheme, element, how)
            np.testing.assert_array_equal(made.codes, nearest.codes)
            np.testing.assert_array_equal(made.scale, nearest.scale)
            assert made.scale.dtype == nearest.scale.dtype
            if nearest.zero is not None:
                np.testing.assert_array_equal(made.zero, nearest.zero)


def test_scales_that_f16_cannot_hold_are_f32_for_the_whole_tensor() -> None:
    scheme = parse_scheme("w4a16-g32")
    weight, hessian = problem(3, 8, 64)
    weight[5] *= 1e-6
    assert round_to_nearest(weight, scheme, F16).scale.dtype == np.float32
    made = round_with_compensation(weight, np.eye(64), scheme, F16)
    np.testing.assert_array_equal(made.scale, round_to_nearest(weight, scheme, F16).scale)
    for act_order in (False, True):
        how = Compensation(act_order=act_order)
        assert round_with_compensation(weight, hessian, scheme, F16, how).scale.dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.sampled_from([16, 48, 130, 200]),
    name=st.sampled_from(["w8a16", "w4a16-channel", "w4a16-channel-absmax"]),
    act_order=st.booleans(),
)
def test_the_error_is_bounded_as_that_of_the_nearest_plane(
    seed: int, depth: int, name: str, act_order: bool
) -> None:
    """`d H d^T = sum_i (r_i / U_ii)^2 <= s^2 / 4 * sum_i 1 / U_ii^2` where no code is clipped;
    `r_i` is the rounding error of column i: GPTQ is Babai's nearest plane algorithm."""
    scheme = parse_scheme(name)
    weight, hessian = problem(seed, 6, depth)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(depth)
    how = Compensation(0.01, act_order)
    made = round_with_compensation(weight, hessian, scheme, F32, how)
    order = np.argsort(-np.diag(damped), kind="stable") if act_order else np.arange(depth)
    upper = inverse_factor(damped[np.ix_(order, order)])
    bound = made.scale[:, 0].astype(np.float64) ** 2 / 4 * np.sum(1 / np.diag(upper) ** 2)
    difference = weight.astype(np.float64) - made.values()
    error = np.sum(difference @ damped * difference, axis=1)
    low, high = code_limits(scheme)
    inside = np.all((made.codes > low) & (made.codes < high), axis=1)
    assert np.all(error[inside] <= bound[inside] * 1.001)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_tiny_layers_lie_between_the_best_codes_and_the_nearest(seed: int) -> None:
    """All codes of three weights are tried: none is better than the best; on average over channels
    GPTQ comes closer to it than rounding to nearest does."""
    scheme = parse_scheme("w4a16-channel-absmax")
    weight, hessian = problem(seed, 64, 3)
    hessian += 0.95 * np.sqrt(np.outer(np.diag(hessian), np.diag(hessian)))
    made = round_with_compensation(weight, hessian, scheme, F32, Compensation(0.0))
    nearest = round_to_nearest(weight, scheme, F32)
    every = np.array(list(itertools.product(range(-8, 8), repeat=3)), np.float64)

    def errors(values: Array) -> Array:
        difference = weight.astype(np.float64) - values
        return np.sum(difference @ hessian * difference, axis=-1)

    steps = made.scale.astype(np.float64)
    best = np.min([errors(steps * codes) for codes in every], axis=0)
    tolerance = 1e-5 * np.max(errors(0 * weight))
    assert np.all(errors(made.values()) >= best - tolerance)
    assert np.sum(errors(made.values())) <= np.sum(errors(nearest.values())) + tolerance


def test_the_factor_is_that_of_the_inverse() -> None:
    _, hessian = problem(4, 1, 150)
    upper = inverse_factor(hessian)
    assert np.array_equal(upper, np.triu(upper))
    np.testing.assert_allclose(upper.T @ upper, np.linalg.inv(hessian), rtol=1e-8, atol=1e-10)


def test_a_hessian_of_too_few_rows_needs_damping() -> None:
    scheme = parse_scheme("w8a16")
    weight, _ = problem(5, 4, 32)
    inputs = np.random.default_rng(6).standard_normal((3, 32))
    hessian = inputs.T @ inputs
    with pytest.raises(OptionError, match="not positive definite"):
        round_with_compensation(weight, hessian - 1e-9 * np.eye(32), scheme, F16, Compensation(0.0))
    round_with_compensation(weight, hessian, scheme, F16)


def test_the_layout_of_groups_does_not_depend_on_the_order() -> None:
    """With act order too, scale `[n, g]` is that of inputs `g * group ..`."""
    scheme = parse_scheme("w4a16-g32")
    weight, hessian = problem(7, 16, 128)
    made = round_with_compensation(weight, hessian, scheme, F16, Compensation(act_order=True))
    nearest = round_to_nearest(weight, scheme, F16)
    np.testing.assert_array_equal(made.scale, nearest.scale)
    assert np.abs(made.values() - weight).max() < 4 * nearest.scale.max()
