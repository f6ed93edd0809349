"""The fast quantizer against the plain reference, to the bit, for every scheme."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.reference import numerics
from tilewright.compiler.weights.quantize import CodesRule, quantize_weight
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError
from tilewright.dialects.quantization import Scheme, parse_scheme

Array = npt.NDArray[Any]
SOURCES = [F16, BF16, F32]
RULES: list[CodesRule] = ["stored-scale", "tpu-mlir"]
NAMES = [
    *("w8a16", "w8a16-g32", "w8a16-zp", "w8a16-g16-zp", "int8"),
    *("w4a16-g32", "w4a16-channel", "w4a16-absmax", "w4a16-g16-absmax", "w4a16-channel-absmax"),
    *("f8e4m3", "f8e4m3-g32", "f8e5m2", "f8e5m2-g16"),
]
W8A16 = parse_scheme("w8a16")
schemes = st.sampled_from(NAMES).map(parse_scheme)
rules = st.sampled_from(RULES)
EXPONENTS = [(-20, 5), (-149, 127), (-149, -120), (100, 127), (-14, 0)]


def assert_equal_to_reference(
    weight: Array, scheme: Scheme, stored: ElementType, rule: CodesRule = "stored-scale"
) -> None:
    if rule == "tpu-mlir" and scheme.format.is_float:
        return
    made = quantize_weight(weight, scheme, stored, codes_rule=rule)
    codes, scale, zero = numerics.quantize(weight, scheme, stored, codes_rule=rule)
    groups = (len(weight), scheme.groups(weight.shape[1]))
    assert made.scale.dtype == made.scale_element.dtype == scale.dtype
    assert made.scale.shape == scale.shape == groups
    assert made.scale.tobytes() == scale.tobytes()
    np.testing.assert_array_equal(made.codes, numerics.stored_codes(codes, scheme.format))
    assert (made.zero is None) == (zero is None) == (not scheme.zero_point)
    if made.zero is not None and zero is not None:
        np.testing.assert_array_equal(made.zero, zero)


def finite(values: Array, source: ElementType) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        weight = values.astype(np.float32).astype(source.dtype)
    weight[~np.isfinite(weight)] = 1
    return weight


@pytest.mark.parametrize("source", SOURCES, ids=lambda e: e.name)
@pytest.mark.parametrize("stored", SOURCES, ids=lambda e: e.name)
@pytest.mark.parametrize("name", NAMES)
def test_gaussian_weights(source: ElementType, stored: ElementType, name: str) -> None:
    for rule in RULES:
        for std in (0.02, 2e-4, 30.0):
            weight = np.random.default_rng(1).standard_normal((37, 256)) * std
            assert_equal_to_reference(finite(weight, source), parse_scheme(name), stored, rule)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.sampled_from(SOURCES),
    stored=st.sampled_from(SOURCES),
    scheme=schemes,
    rule=rules,
    exponents=st.sampled_from(EXPONENTS),
    shift=st.sampled_from([0.0, 1.5, -1.5, 40.0]),
)
def test_any_finite_weights(
    seed: int,
    source: ElementType,
    stored: ElementType,
    scheme: Scheme,
    rule: CodesRule,
    exponents: tuple[int, int],
    shift: float,
) -> None:
    """Of any size; within and on one side of zero; with zeros of both signs and whole zero groups.
    A channel that is no multiple of a vector where the scheme allows it."""
    rng = np.random.default_rng(seed)
    depth = 192 if scheme.group else int(rng.integers(1, 100))
    rows = rng.uniform(-2, 2, (5, depth)) + shift
    weight = finite(np.ldexp(rows, rng.integers(*exponents, (5, 1))), source)
    weight[rng.random(weight.shape) < 0.1] = 0
    weight[rng.random(weight.shape) < 0.05] = -0.0
    weight[2, : depth // 2] = 0
    assert_equal_to_reference(weight, scheme, stored, rule)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), source=st.sampled_from(SOURCES), scheme=schemes)
def test_ties_and_their_neighbours(seed: int, source: ElementType, scheme: Scheme) -> None:
    """Values at, just below and just above every place where a code changes."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-448, 449, (8, 64)) / 2
    unit = np.ldexp(1 + rng.integers(0, 2**10, (8, 1)) / 2**10, rng.integers(-10, 3, (8, 1)))
    exact = (steps * unit).astype(np.float32)
    nudged = np.nextafter(exact, np.float32(np.inf) * rng.choice([-1, 1], exact.shape))
    weight = finite(np.where(rng.random(exact.shape) < 0.5, exact, nudged), source)
    for stored in (F16, BF16):
        assert_equal_to_reference(weight, scheme, stored)


@pytest.mark.parametrize("name", NAMES)
def test_every_finite_half(name: str) -> None:
    weight = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    weight = np.where(np.isfinite(weight), weight, np.float16(0))
    for rule in RULES:
        for stored in (F16, BF16):
            assert_equal_to_reference(weight, parse_scheme(name), stored, rule)


@pytest.mark.parametrize("name", ["w8a16", "w8a16-zp", "w4a16-channel", "w4a16-channel-absmax"])
def test_codes_are_those_of_a_division(name: str) -> None:
    """Products with a reciprocal: every 11-bit significand in every binade of codes over scales of
    11 bits, and halves of scales of few bits, which are ties."""
    scheme = parse_scheme(name)
    top = {"w8a16": 127, "w8a16-zp": 255, "w4a16-channel": 15, "w4a16-channel-absmax": 7}[name]
    significands = np.arange(2**10, 2**11) / 2**10
    values = np.concatenate([significands * 2.0**exponent for exponent in range(-2, 8)])
    long, short = np.arange(1024, 2048, 7) / 1024, np.arange(1, 64, 2) / 32
    ties = 0
    for quotients, scales in ((values, long), (np.arange(2 * top) / 2, short)):
        quotients = quotients[quotients < top]
        quotients = np.append(quotients, np.full(32 - len(quotients) % 32, top))
        weight = (quotients * scales[:, None]).astype(np.float16)
        weight[:, -1] = down_to_half(top * scales)
        assert weight.shape[1] % 32 == 0, "other widths are divided"
        for rows in (weight, -weight):
            assert_equal_to_reference(rows, scheme, F16)
            made = quantize_weight(rows, scheme, F16)
            doubled = 2 * rows.astype(np.float64) / made.scale.astype(np.float64)
            ties += np.count_nonzero(doubled % 2 == 1)
    assert ties > 10 * top


def down_to_half(values: Array) -> Array:
    nearest = values.astype(np.float16)
    below = np.nextafter(nearest, np.float16(0))
    return np.where(nearest.astype(np.float64) > values, below, nearest)


@pytest.mark.parametrize("source", SOURCES, ids=lambda e: e.name)
def test_8_bit_floats_are_those_of_a_division(source: ElementType) -> None:
    significands = np.arange(2**10, 2**11) / 2**10
    scales = np.arange(1024, 2048, 7)[:, None] / 1024
    weight = np.append(significands * np.ones_like(scales), 448 * scales, axis=1)
    assert_equal_to_reference(finite(weight, source), parse_scheme("f8e4m3"), F16)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    source=st.sampled_from(SOURCES),
    stored=st.sampled_from(SOURCES),
    scheme=schemes.filter(lambda scheme: not scheme.format.is_float),
    shift=st.sampled_from([0.0, 1.5, -3.0, 100.0]),
)
def test_the_error_is_at_most_half_a_step(
    seed: int, source: ElementType, stored: ElementType, scheme: Scheme, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((6, 192)) + shift) * 10.0 ** rng.uniform(-4, 2, (6, 1))
    weight = finite(rows, source)
    made = quantize_weight(weight, scheme, stored)
    groups = made.scale.shape[1]
    codes = numerics.plain_codes(made.codes, scheme.format, 192).astype(np.float64)
    zero = np.zeros(made.scale.shape) if made.zero is None else made.zero.astype(np.float64)
    scale = made.scale.astype(np.float64)
    restored = (codes - np.repeat(zero, 192 // groups, 1)) * np.repeat(scale, 192 // groups, 1)
    slack = 2.0**-15 if made.scale_element == F32 else 0.0
    limit = np.repeat(scale, 192 // groups, 1) / 2 * (1 + slack)
    assert (np.abs(weight.astype(np.float64) - restored) <= limit).all()


def test_zeros_are_exact_with_zero_points() -> None:
    weight = np.random.default_rng(3).uniform(-1, 5, (4, 64)).astype(np.float16)
    weight[:, ::5] = 0
    for name in ("w4a16-g32", "w8a16-zp"):
        scheme = parse_scheme(name)
        made = quantize_weight(weight, scheme, F16)
        assert made.zero is not None
        codes = numerics.plain_codes(made.codes, scheme.format, 64)
        restored = numerics.dequantize(codes, made.scale, F16, made.zero, scheme.format)
        assert not restored[:, ::5].any()


def test_ties_go_away_from_zero_and_what_is_below_them_does_not() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    weight = np.array([[127, 0.5, -0.5, below, -below, 1.5, 2.5, -2.5, 126.5]], np.float32)
    made = quantize_weight(weight, W8A16, F16)
    assert made.scale[0, 0] == 1
    assert made.codes.tolist() == [[127, 1, -1, 0, 0, 2, 3, -3, 127]]


@pytest.mark.parametrize("depth", [32, 33])
@pytest.mark.parametrize(("name", "end"), [("w4a16-channel", 7.5), ("w8a16-zp", 127.5)])
def test_a_code_past_the_last_is_the_last(name: str, end: float, depth: int) -> None:
    """Both ends of a range at a half: the zero point and the greatest quotient round up."""
    weight = np.linspace(-end, end, depth, dtype=np.float16)[None]
    scheme = parse_scheme(name)
    made = quantize_weight(weight, scheme, F16)
    codes = numerics.plain_codes(made.codes, scheme.format, depth)
    assert made.scale[0, 0] == 1
    assert codes[0, [0, -1]].tolist() == list(numerics.code_range(scheme.format))
    assert_equal_to_reference(weight, scheme, F16)


def test_two_codes_lie_in_a_byte_the_first_in_the_low_nibble() -> None:
    weight = np.array([[7, -1, -7, 2, 3]], np.float16)
    made = quantize_weight(weight, parse_scheme("w4a16-channel-absmax"), F16)
    assert made.codes.view(np.uint8).tolist() == [[0xF7, 0x29, 0x03]]
    weight = np.array([[15, 1, 0, 2, 3]], np.float16)
    made = quantize_weight(weight, parse_scheme("w4a16-channel"), F16)
    assert made.zero is not None
    assert made.zero.tolist() == [[0]]
    assert made.codes.view(np.uint8).tolist() == [[0x1F, 0x20, 0x03]]


@pytest.mark.parametrize("name", NAMES)
def test_groups_of_zeros_have_scale_1(name: str) -> None:
    scheme = parse_scheme(name)
    weight = np.zeros((3, 64), np.float16)
    weight[1, 0] = 1.27
    made = quantize_weight(weight, scheme, BF16)
    assert (made.scale[[0, 2]] == 1).all()
    codes = numerics.plain_codes(made.codes, scheme.format, 64)
    restored = numerics.dequantize(codes, made.scale, BF16, made.zero, scheme.format)
    assert not restored[[0, 2]].any()
    assert not restored[1, 1:].any()
    if made.zero is not None:
        assert made.zero[0, 0] == codes[0, 0] == {8: -128, 4: 0}[scheme.format.bits]


def test_one_subnormal_scale_makes_all_scales_f32() -> None:
    weight = (np.random.default_rng(0).standard_normal((9, 64)) * 0.02).astype(np.float16)
    assert quantize_weight(weight, W8A16, F16).scale_element == F16
    weight[5] = np.float16(7.7e-3) * np.sign(weight[5])
    assert quantize_weight(weight, W8A16, F16).scale_element == F32
    assert quantize_weight(weight, W8A16, BF16).scale_element == BF16
    assert quantize_weight(weight, W8A16, F16, codes_rule="tpu-mlir").scale_element == F16


@pytest.mark.parametrize("source", SOURCES, ids=lambda e: e.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w8a16", "w4a16-g16", "w4a16-g16-absmax", "f8e4m3-g16"])
def test_what_is_not_finite_is_named(source: ElementType, bad: float, name: str) -> None:
    weight = np.ones((40, 48), source.dtype)
    weight[17, 3] = bad
    weight[31, 2] = bad
    for threads in (1, 2):
        with pytest.raises(ModelReadError, match=r"weight 'layers.3.w' holds .*\[17, 3\]"):
            quantize_weight(weight, parse_scheme(name), F16, name="layers.3.w", threads=threads)


@pytest.mark.parametrize("name", ["w8a16", "w4a16-channel", "w4a16-channel-absmax", "f8e5m2"])
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (7, 1), (100, 33)])
def test_shapes_and_threads(shape: tuple[int, int], name: str) -> None:
    weight = np.random.default_rng(2).standard_normal(shape).astype(np.float16)
    scheme = parse_scheme(name)
    one = quantize_weight(weight, scheme, F16)
    codes = np.full((shape[0], scheme.format.row_bytes(shape[1])), 77, np.int8)
    two = quantize_weight(weight, scheme, F16, threads=2, out=codes)
    assert two.codes is codes
    np.testing.assert_array_equal(one.codes, codes)
    np.testing.assert_array_equal(one.scale, two.scale)
    assert one.shape == shape
    if shape[1]:
        assert_equal_to_reference(weight, scheme, F16)


def test_wrong_arguments() -> None:
    ones = np.ones((2, 40), np.float16)
    with pytest.raises(OptionError, match="unknown rule"):
        quantize_weight(ones, W8A16, F16, codes_rule="nearest")  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError, match="no rule for the codes of f8e4m3"):
        quantize_weight(ones, parse_scheme("f8e4m3"), F16, codes_rule="tpu-mlir")
    with pytest.raises(UnsupportedError, match="rank 3"):
        quantize_weight(np.ones((2, 2, 2), np.float16), W8A16, F16)
    with pytest.raises(UnsupportedError, match="float64"):
        quantize_weight(np.ones((2, 2)), W8A16, F32)
    with pytest.raises(UnsupportedError, match=r"groups of 32 do not divide the 40 .*'w'"):
        quantize_weight(ones, parse_scheme("w4a16-g32"), F16, name="w")
    scheme = parse_scheme("w4a16-channel")
    with pytest.raises(ValueError, match=r"contiguous i8 array of shape \[2, 20\]"):
        quantize_weight(ones, scheme, F16, out=np.zeros((2, 40), np.int8))


def test_scales_are_rounded_up_from_the_exact_quotient() -> None:
    """Not from the f32 that is nearest to it: a 15th of this range is 1 and a quarter of an ulp."""
    weight = np.array([[15, -(2.0**-21)]], np.float32)
    assert np.float32((15 + 2.0**-21) / 15) == 1
    scheme = parse_scheme("w4a16-channel")
    assert quantize_weight(weight, scheme, F16).scale[0, 0] == 1 + 2.0**-10
    assert_equal_to_reference(weight, scheme, F16)
