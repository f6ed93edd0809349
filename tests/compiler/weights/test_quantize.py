"""The fast quantizer against the plain reference, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.reference import numerics
from tilewright.compiler.weights.quantize import CodesRule, quantize_w8a16
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]
SOURCES = [F16, BF16, F32]
RULES: list[CodesRule] = ["stored-scale", "tpu-mlir"]


def assert_equal_to_reference(weight: Array, stored: ElementType, rule: CodesRule) -> None:
    codes, scale = quantize_w8a16(weight, stored, codes=rule)
    expected_codes, expected_scale, _ = numerics.quantize(
        weight, parse_scheme("w8a16"), stored, codes_rule=rule
    )
    assert scale.dtype == expected_scale.dtype
    assert scale.shape == expected_scale.shape == (len(weight), 1)
    assert scale.tobytes() == expected_scale.tobytes()
    np.testing.assert_array_equal(codes, expected_codes)


@pytest.mark.parametrize("source", SOURCES, ids=lambda e: e.name)
@pytest.mark.parametrize("stored", [F16, BF16], ids=lambda e: e.name)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("std", [0.02, 2e-4, 30.0])
def test_gaussian_weights(
    source: ElementType, stored: ElementType, rule: CodesRule, std: float
) -> None:
    rng = np.random.default_rng(1)
    weight = (rng.standard_normal((37, 259)) * std).astype(source.dtype)
    assert_equal_to_reference(weight, stored, rule)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.sampled_from(SOURCES),
    stored=st.sampled_from([F16, BF16]),
    rule=st.sampled_from(RULES),
    exponents=st.sampled_from([(-20, 5), (-149, 127), (-149, -120), (100, 127), (-14, 0)]),
)
def test_any_finite_weights(
    seed: int, source: ElementType, stored: ElementType, rule: CodesRule, exponents: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    rows = np.ldexp(rng.uniform(-2, 2, (5, 67)), rng.integers(*exponents, (5, 1)))
    with np.errstate(over="ignore", under="ignore"):
        weight = rows.astype(np.float32).astype(source.dtype)
    weight[~np.isfinite(weight)] = 1
    weight[rng.random(weight.shape) < 0.1] = 0
    assert_equal_to_reference(weight, stored, rule)


def test_every_finite_half() -> None:
    weight = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    weight = np.where(np.isfinite(weight), weight, np.float16(0))
    for stored in (F16, BF16):
        for rule in RULES:
            assert_equal_to_reference(weight, stored, rule)


def test_ties_go_away_from_zero_and_what_is_below_them_does_not() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    weight = np.array([[127, 0.5, -0.5, below, -below, 1.5, 2.5, -2.5, 126.5]], np.float32)
    codes, scale = quantize_w8a16(weight, F16)
    assert scale[0, 0] == 1
    assert codes.tolist() == [[127, 1, -1, 0, 0, 2, 3, -3, 127]]


def test_a_channel_of_zeros_has_scale_1() -> None:
    weight = np.zeros((3, 8), np.float16)
    weight[1, 0] = 1.27
    weight[2] = -0.0
    codes, scale = quantize_w8a16(weight, F16)
    assert scale[0, 0] == scale[2, 0] == 1
    assert not codes[[0, 2]].any()
    assert scale.dtype == np.float16


def test_one_subnormal_scale_makes_all_scales_f32() -> None:
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((9, 64)) * 0.02).astype(np.float16)
    assert quantize_w8a16(weight, F16)[1].dtype == np.float16
    weight[5] = np.float16(7.7e-3) * np.sign(weight[5])
    assert quantize_w8a16(weight, F16)[1].dtype == np.float32
    assert quantize_w8a16(weight, BF16)[1].dtype == BF16.dtype
    assert quantize_w8a16(weight, F16, codes="tpu-mlir")[1].dtype == np.float16


@pytest.mark.parametrize("source", SOURCES, ids=lambda e: e.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_not_finite_is_named(source: ElementType, bad: float, threads: int) -> None:
    weight = np.ones((40, 50), source.dtype)
    weight[17, 3] = bad
    weight[31, 2] = bad
    with pytest.raises(ModelReadError, match=r"weight 'layers.3.w' holds .*\[17, 3\]"):
        quantize_w8a16(weight, F16, name="layers.3.w", threads=threads)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (7, 1), (100, 33)])
def test_shapes_and_threads(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(2).standard_normal(shape).astype(np.float16)
    one = quantize_w8a16(weight, F16)
    two = quantize_w8a16(weight, F16, threads=2)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def test_wrong_arguments() -> None:
    with pytest.raises(OptionError, match="unknown rule"):
        quantize_w8a16(np.ones((2, 2), np.float16), F16, codes="nearest")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnsupportedError, match="rank 3"):
        quantize_w8a16(np.ones((2, 2, 2), np.float16), F16)
    with pytest.raises(UnsupportedError, match="float64"):
        quantize_w8a16(np.ones((2, 2)), F32)
