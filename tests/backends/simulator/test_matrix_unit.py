"""MM: against float64, against the fixed order of the sums, and what follows from that order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dialects.element_types import BF16, F16, F32, ElementType

Array = npt.NDArray[Any]

FLOATS = [F32, F16, BF16]


def draw(rows: int, cols: int, element: ElementType, seed: int = 0) -> Array:
    random = np.random.default_rng([seed, rows, cols, element.code])
    return random.standard_normal((rows, cols)).astype(element.dtype)


def multiply(bench: Any, left: Array, right: Array, result: ElementType, flags: str) -> Array:
    """`left @ right`, or `left @ right.T` with the flag `transpose_right`."""
    cols = right.shape[0] if "transpose_right" in flags else right.shape[1]
    rows, depth = left.shape
    command = f"mm {rows}x{cols}x{depth} {{dst}} {{a}} {{b}} {flags}"
    return bench.compute(command, {"a": left, "b": right}, (rows, cols, result))


def fixed_order(left: Array, right: Array) -> Array:
    """The documented sum: 16 partial sums by k mod 16, then halves.

    Only for 16-bit operands, whose products are exact: numpy has no fused multiply-add.
    """
    depth = -(-left.shape[1] // 16) * 16
    a = np.zeros((left.shape[0], depth), np.float32)
    b = np.zeros((right.shape[0], depth), np.float32)
    a[:, : left.shape[1]], b[:, : right.shape[1]] = left, right
    sums = np.zeros((left.shape[0], right.shape[0], 16), np.float32)
    for k in range(0, depth, 16):
        sums += a[:, None, k : k + 16] * b[None, :, k : k + 16]
    while sums.shape[2] > 1:
        half = sums.shape[2] // 2
        sums = sums[:, :, :half] + sums[:, :, half:]
    return sums[:, :, 0]


@pytest.mark.parametrize("element", [F16, BF16], ids=lambda e: e.name)
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 9, 40), (70, 1, 33), (3, 70, 16), (13, 66, 100)])
def test_sums_have_the_documented_order(
    bench: Any, shape: tuple[int, int, int], element: ElementType
) -> None:
    rows, cols, depth = shape
    left, right = draw(rows, depth, element), draw(cols, depth, element, 1)
    expected = fixed_order(left, right)
    got = multiply(bench, left, right, F32, "transpose_right")
    np.testing.assert_array_equal(got, expected)
    plain = multiply(bench, left, np.ascontiguousarray(right.T), F32, "")
    np.testing.assert_array_equal(plain, expected)
    for result in (F16, BF16):
        rounded = multiply(bench, left, right, result, "transpose_right")
        np.testing.assert_array_equal(rounded, expected.astype(result.dtype))


@pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
@pytest.mark.parametrize("flags", ["", "transpose_right"])
@pytest.mark.parametrize("shape", [(2, 130, 257), (130, 2, 257), (65, 67, 257)])
def test_within_the_bound_of_f32_accumulation(
    bench: Any, shape: tuple[int, int, int], flags: str, element: ElementType
) -> None:
    rows, cols, depth = shape
    left, right = draw(rows, depth, element), draw(cols, depth, element, 1)
    operand = right if flags else np.ascontiguousarray(right.T)
    got = multiply(bench, left, operand, F32, flags).astype(np.float64)
    x, w = left.astype(np.float64), right.astype(np.float64).T
    gamma = depth * 2.0**-24 / (1 - depth * 2.0**-24)
    assert np.all(np.abs(got - x @ w) <= gamma * (np.abs(x) @ np.abs(w)))


@pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
def test_independent_of_how_rows_and_columns_are_split_and_ordered(
    bench: Any, element: ElementType
) -> None:
    left, right = draw(30, 100, element), draw(41, 100, element, 1)
    whole = multiply(bench, left, right, F32, "transpose_right")
    for rows, cols in [(1, 41), (30, 1), (2, 3), (6, 4), (29, 40)]:
        part = multiply(bench, left[-rows:].copy(), right[:cols].copy(), F32, "transpose_right")
        np.testing.assert_array_equal(part, whole[-rows:, :cols])
    order_m = np.random.default_rng(3).permutation(30)
    order_n = np.random.default_rng(4).permutation(41)
    permuted = multiply(bench, left[order_m], right[order_n], F32, "transpose_right")
    np.testing.assert_array_equal(permuted, whole[order_m][:, order_n])


@given(exponent=st.integers(-5, 5), seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_scales_by_powers_of_two(bench: Any, exponent: int, seed: int) -> None:
    left, right = (draw(rows, 37, F16, seed).astype(np.float32) for rows in (5, 6))
    factor = np.float32(2.0**exponent)
    plain = multiply(bench, left, right, F32, "transpose_right")
    got = multiply(bench, left * factor, right, F32, "transpose_right")
    np.testing.assert_array_equal(got, plain * factor)


@pytest.mark.parametrize("cols", [2, 20])
def test_accumulates_in_place(bench: Any, cols: int) -> None:
    left, right = draw(66, 20, F16), draw(cols, 20, F16, 1)
    before = draw(66, cols, F32, 2)
    command = f"mm 66x{cols}x20 {{dst}} {{a}} {{b}} transpose_right accumulate"
    got = bench.compute(command, {"a": left, "b": right, "dst": before}, (66, cols, F32))
    np.testing.assert_array_equal(got, fixed_order(left, right) + before)


def test_padding_and_poison_do_not_leak(bench: Any) -> None:
    """Neighbours of a tail are poison (NaN); infinities stay in their row."""
    left, right = draw(5, 3, F16), draw(2, 3, F16, 1)
    left[2, 1] = np.inf
    got = multiply(bench, left, right, F32, "transpose_right")
    finite = np.isfinite(got).all(axis=1)
    assert finite.tolist() == [True, True, False, True, True]


def test_nothing_is_left_of_the_command_before(bench: Any) -> None:
    """Deep tiles full of NaN, then shallow ones whose rows end within a vector."""
    bad, out = np.full((70, 96), np.nan, np.float16), np.zeros((70, 10), np.float32)
    left, right = draw(70, 20, F16), draw(10, 20, F16, 1)
    listing = """
    gdma 1 load 70x96xf16 local=0/192 global=0+0/192
    gdma 2 load 70x20xf16 local=16384/64 global=1+0/40
    gdma 3 load 10x20xf16 local=32768/64 global=2+0/40
    bdc 1 mm 70x70x96 dst=f32:49152/320 a=f16:0/192 b=f16:0/192 transpose_right wait=3
    bdc 2 mm 70x10x20 dst=f32:65536/64 a=f16:16384/64 b=f16:32768/64 transpose_right
    gdma 4 store 70x10xf32 local=65536/64 global=3+0/40 wait=2
    """
    bench.run(listing, [(bad, "read"), (left, "read"), (right, "read"), (out, "write")])
    np.testing.assert_array_equal(out, fixed_order(left, right))


def test_overflow_of_f16_is_infinite(bench: Any) -> None:
    left = np.full((1, 8), 200, np.float16)
    got = multiply(bench, left, left, F16, "transpose_right")
    assert np.isposinf(got).all()
