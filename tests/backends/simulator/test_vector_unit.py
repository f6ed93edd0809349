"""The vector unit's commands against numpy: f32 arithmetic, one rounding to the result's type."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dialects.element_types import BF16, F16, F32, ElementType

Array = npt.NDArray[Any]

FLOATS = [F32, F16, BF16]
MIXES = [(a, b) for a in FLOATS for b in FLOATS]
ROWS, COLS = 67, 35

EXACT_UNARY = {
    "cast": lambda x: x,
    "neg": lambda x: -x,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "reciprocal": lambda x: np.float32(1) / x,
}
NEAR_UNARY = {
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def draw(rows: int, cols: int, element: ElementType, seed: int = 0) -> Array:
    random = np.random.default_rng([seed, rows, cols, element.code])
    values = random.standard_normal((rows, cols)) * np.exp2(random.integers(-9, 4, (rows, cols)))
    return values.astype(element.dtype)


def same(got: Array, expected: Array) -> None:
    """Equal to the bit, NaN for NaN."""
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got.astype(np.float64), expected.astype(np.float64))


def all_halves(element: ElementType) -> Array:
    return np.arange(65536, dtype=np.uint16).view(element.dtype).reshape(256, 256)


@pytest.mark.parametrize("element", [F16, BF16], ids=lambda e: e.name)
def test_every_16_bit_value_widens_and_narrows_exactly(bench: Any, element: ElementType) -> None:
    values = all_halves(element)
    wide = bench.compute("cast 256x256 {dst} {a}", {"a": values}, (256, 256, F32))
    with np.errstate(invalid="ignore"):
        same(wide, values.astype(np.float32))
    same(bench.compute("cast 256x256 {dst} {a}", {"a": wide}, (256, 256, element)), values)


@pytest.mark.parametrize("element", [F16, BF16], ids=lambda e: e.name)
def test_rounds_to_nearest_even(bench: Any, element: ElementType) -> None:
    """Around every 16-bit value: itself, just below, at and just above the middle to the next."""
    low = all_halves(element).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        bits = np.ascontiguousarray(low).view(np.uint32)
        half = np.uint32(0x1000 if element == F16 else 0x8000)
        for shift in (half - np.uint32(1), half, half + np.uint32(1)):
            values = (bits + shift).view(np.float32)
            got = bench.compute("cast 256x256 {dst} {a}", {"a": values}, (256, 256, element))
            same(got, values.astype(element.dtype))


@pytest.mark.parametrize(("source", "result"), MIXES, ids=lambda e: e.name)
@pytest.mark.parametrize("function", EXACT_UNARY)
def test_exact_functions(
    bench: Any, function: str, source: ElementType, result: ElementType
) -> None:
    x = draw(ROWS, COLS, source)
    x[0, :4] = [0, -0.0, np.inf, np.nan]
    got = bench.compute(f"{function} {ROWS}x{COLS} {{dst}} {{a}}", {"a": x}, (ROWS, COLS, result))
    with np.errstate(all="ignore"):
        same(got, EXACT_UNARY[function](x.astype(np.float32)).astype(result.dtype))


@pytest.mark.parametrize("result", FLOATS, ids=lambda e: e.name)
@pytest.mark.parametrize("function", NEAR_UNARY)
def test_transcendental_functions_within_2_ulp(
    bench: Any, function: str, result: ElementType
) -> None:
    x = draw(ROWS, COLS, F32) * 4
    x[0, :7] = [0, -100, 100, 1e-6, 88, -88, 1e-30]
    got = bench.compute(f"{function} {ROWS}x{COLS} {{dst}} {{a}}", {"a": x}, (ROWS, COLS, result))
    with np.errstate(all="ignore"):
        exact = NEAR_UNARY[function](x.astype(np.float64))
        rounded = exact.astype(np.float32).astype(result.dtype)
        around = [np.nextafter(rounded, rounded.dtype.type(s * np.inf)) for s in (1, -1)]
    assert np.all(np.isnan(got) == np.isnan(rounded))
    near = (got == rounded) | (got == around[0]) | (got == around[1])
    assert np.all(near | np.isnan(got))


@pytest.mark.parametrize("function", NEAR_UNARY)
def test_nan_propagates(bench: Any, function: str) -> None:
    x = np.full((1, 3), np.nan, np.float32)
    got = bench.compute(f"{function} 1x3 {{dst}} {{a}}", {"a": x}, (1, 3, F32))
    assert np.isnan(got).all()


@pytest.mark.parametrize(("left", "right"), MIXES, ids=lambda e: e.name)
@pytest.mark.parametrize("function", BINARY)
def test_two_tiles(bench: Any, function: str, left: ElementType, right: ElementType) -> None:
    x, y = draw(ROWS, COLS, left), draw(ROWS, COLS, right, 1)
    x[0, :3], y[0, :3] = [np.nan, 1, np.inf], [1, np.nan, -np.inf]
    for result in FLOATS:
        command = f"{function} {ROWS}x{COLS} {{dst}} {{a}} {{b}}"
        got = bench.compute(command, {"a": x, "b": y}, (ROWS, COLS, result))
        with np.errstate(all="ignore"):
            expected = BINARY[function](x.astype(np.float32), y.astype(np.float32))
            same(got, expected.astype(result.dtype))


@pytest.mark.parametrize("function", BINARY)
def test_broadcast_operands(bench: Any, function: str) -> None:
    x = draw(ROWS, COLS, F16)
    row, column = draw(1, COLS, F32, 1), draw(ROWS, 1, BF16, 2)
    wide = x.astype(np.float32)
    with np.errstate(all="ignore"):
        command = f"{function} {ROWS}x{COLS} {{dst}} {{a}} {{b}} row"
        got = bench.compute(command, {"a": x, "b": row}, (ROWS, COLS, F32), replicated="b")
        same(got, BINARY[function](wide, row))
        command = f"{function} {ROWS}x{COLS} {{dst}} {{a}} {{b}} column"
        got = bench.compute(command, {"a": x, "b": column}, (ROWS, COLS, F32))
        same(got, BINARY[function](wide, column.astype(np.float32)))
        command = f"{function} {ROWS}x{COLS} {{dst}} {{a}} immediate=0.3"
        got = bench.compute(command, {"a": x}, (ROWS, COLS, F32))
        same(got, BINARY[function](wide, np.float32(0.3)))


def test_replicated_rows_are_computed_in_every_lane(bench: Any) -> None:
    """A replicated row is squared in every lane and then meets every row."""
    x, row = draw(ROWS, COLS, F32), draw(1, COLS, F32, 1)
    out = np.zeros((ROWS, COLS), np.float32)
    listing = f"""
    gdma 1 load {ROWS}x{COLS}xf32 local=0/192 global=0+0/{4 * COLS}
    gdma 2 load_replicated 1x{COLS}xf32 local=65536/0 global=1+0/0
    bdc 1 mul 1x{COLS} dst=f32:131072/0 a=f32:65536/0 b=f32:65536/0 replicated wait=2
    bdc 2 add {ROWS}x{COLS} dst=f32:196608/192 a=f32:0/192 b=f32:131072/0 row
    gdma 3 store {ROWS}x{COLS}xf32 local=196608/192 global=2+0/{4 * COLS} wait=2
    """
    bench.run(listing, [(x, "read"), (row, "read"), (out, "write")])
    np.testing.assert_array_equal(out, x + row * row)


@pytest.mark.parametrize("cols", [1, 15, 16, 17, 500])
@pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
def test_reductions(bench: Any, element: ElementType, cols: int) -> None:
    x = draw(ROWS, cols, element)
    wide = x.astype(np.float64)
    for name, function in (("max", np.max), ("min", np.min)):
        command = f"reduce_{name} {ROWS}x{cols} {{dst}} {{a}}"
        got = bench.compute(command, {"a": x}, (ROWS, 1, element))
        same(got[:, 0], function(x, axis=1))
    got = bench.compute(f"reduce_sum {ROWS}x{cols} {{dst}} {{a}}", {"a": x}, (ROWS, 1, F32))
    error = np.abs(got[:, 0] - wide.sum(axis=1))
    assert np.all(error <= cols * 2.0**-24 * np.abs(wide).sum(axis=1))


def test_reductions_propagate_nan(bench: Any) -> None:
    x = draw(3, 40, F32)
    x[1, 17] = np.nan
    for name in ("sum", "max", "min"):
        got = bench.compute(f"reduce_{name} 3x40 {{dst}} {{a}}", {"a": x}, (3, 1, F32))
        assert np.isnan(got[:, 0]).tolist() == [False, True, False]


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (67, 130), (130, 67)])
@pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
def test_transpose(bench: Any, element: ElementType, shape: tuple[int, int]) -> None:
    x = draw(*shape, element)
    command = f"transpose {shape[0]}x{shape[1]} {{dst}} {{a}}"
    got = bench.compute(command, {"a": x}, (shape[1], shape[0], element))
    same(got, x.T)


@pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
def test_fill(bench: Any, element: ElementType) -> None:
    got = bench.compute("fill 67x35 {dst} immediate=0.1", {}, (67, 35, element))
    same(got, np.full((67, 35), np.float32(0.1)).astype(element.dtype))


@pytest.mark.parametrize("flags", ["", "interleaved"])
@pytest.mark.parametrize("turned", [2, 10, 34])
def test_rotate(bench: Any, turned: int, flags: str) -> None:
    x = draw(ROWS, COLS, F16)
    command = f"rotate {ROWS}x{COLS} {{dst}} {{a}} turned={turned} {flags}"
    got = bench.compute(command, {"a": x}, (ROWS, COLS, F32))
    expected = np.zeros((ROWS, COLS), np.float32)
    for pair in range(turned // 2):
        first = 2 * pair if flags else pair
        second = first + 1 if flags else first + turned // 2
        expected[:, first], expected[:, second] = -x[:, second], x[:, first]
    same(got, expected)


@pytest.mark.parametrize("result", FLOATS, ids=lambda e: e.name)
@pytest.mark.parametrize("scale_type", FLOATS, ids=lambda e: e.name)
def test_dequantize_rounds_once(bench: Any, scale_type: ElementType, result: ElementType) -> None:
    codes = np.arange(-128, 128, dtype=np.int8)[None].repeat(300, axis=0)
    random = np.random.default_rng(7)
    scale = random.random((300, 1)) * np.exp2(random.integers(-24, 3, (300, 1)))
    # A quotient of a middle between two results and a code: the product, rounded to f32, is that
    # middle, so a second rounding goes to even, where it should go to the side of the product.
    bits = 11 if result == F16 else 8
    middle = 2 * random.integers(2 ** (bits - 1), 2**bits, (200, 1)) + 1
    scale[:200] = middle / 2.0**bits / random.integers(3, 128, (200, 1))
    scale = scale.astype(np.float32).astype(scale_type.dtype)
    command = "dequant 300x256 {dst} {a} {b}"
    got = bench.compute(command, {"a": codes, "b": scale}, (300, 256, result))
    exact = codes.astype(np.float64) * scale.astype(np.float64)
    same(got, _round_once(exact, result))


def _round_once(exact: Array, result: ElementType) -> Array:
    if result != BF16:
        return exact.astype(result.dtype)
    # float64 to bf16 by way of an f32 rounded to odd.
    single = exact.astype(np.float32)
    bits = single.view(np.uint32).copy()
    inexact = single.astype(np.float64) != exact
    grows = np.abs(exact) > np.abs(single)
    even = (bits & 1) == 0
    bits[inexact & even & grows] += np.uint32(1)
    bits[inexact & even & ~grows] -= np.uint32(1)
    return bits.view(np.float32).astype(result.dtype)


@given(
    value=st.floats(width=32, allow_nan=False),
    function=st.sampled_from(sorted(BINARY)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_immediates(bench: Any, value: float, function: str, seed: int) -> None:
    x = draw(3, 5, F32, seed)
    command = f"{function} 3x5 {{dst}} {{a}} immediate={np.float32(value)}"
    got = bench.compute(command, {"a": x}, (3, 5, F32))
    with np.errstate(all="ignore"):
        same(got, BINARY[function](x, np.float32(value)))
