"""MM on int8, QUANTIZE, REQUANT and DEQUANTIZE: equal to the bit to what they are defined as."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tilewright.backends.reference.numerics import round_to
from tilewright.backends.reference.requant import quantize_activations, requantize_by_table
from tilewright.backends.simulator import int8_products
from tilewright.backends.simulator.conversions import JIT
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType
from tilewright.dialects.errors import SimulationError

Array = npt.NDArray[Any]

SHAPES = [
    *((1, 1, 1), (1, 70, 31), (3, 130, 32), (4, 65, 33), (130, 2, 100), (70, 1, 64)),
    *((5, 7, 1), (6, 4, 32), (7, 5, 257), (65, 67, 95)),
]


def codes(rows: int, cols: int, seed: int = 0) -> Array:
    random = np.random.default_rng([seed, rows, cols])
    return random.integers(-128, 128, (rows, cols)).astype(np.int8)


@pytest.mark.parametrize("flags", ["", "transpose_right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_exact(bench: Any, shape: tuple[int, int, int], flags: str) -> None:
    rows, cols, depth = shape
    left, right = codes(rows, depth), codes(cols, depth, 1)
    operand = right if flags else np.ascontiguousarray(right.T)
    command = f"mm {rows}x{cols}x{depth} {{dst}} {{a}} {{b}} {flags}"
    got = bench.compute(command, {"a": left, "b": operand}, (rows, cols, I32))
    assert np.array_equal(got, left.astype(np.int64) @ right.T.astype(np.int64))


@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_added_to_sums(bench: Any, shape: tuple[int, int, int]) -> None:
    """Two MMs, the second one on top of the first; sums wrap at 32 bits."""
    rows, cols, depth = shape
    left, right = codes(rows, depth), codes(cols, depth, 1)
    sums = np.full((rows, cols), 2**31 - 1, np.int32)
    stride = {"a": -(-depth // 64) * 64, "s": -(-cols * 4 // 64) * 64}
    listing = f"""
    gdma 1 load {rows}x{depth}xi8 local=0/{stride["a"]} global=0+0/{depth}
    gdma 2 load {cols}x{depth}xi8 local=65536/{stride["a"]} global=1+0/{depth}
    gdma 3 load {rows}x{cols}xi32 local=131072/{stride["s"]} global=2+0/{cols * 4}
    gdma 4 store {rows}x{cols}xi32 local=131072/{stride["s"]} global=2+0/{cols * 4} wait=1
    bdc 1 mm {rows}x{cols}x{depth} dst=i32:131072/{stride["s"]} a=i8:0/{stride["a"]} \
b=i8:65536/{stride["a"]} transpose_right accumulate wait=3
    """
    bench.run(listing, [(left, "read"), (right, "read"), (sums, "update")])
    product = left.astype(np.int64) @ right.T.astype(np.int64) + (2**31 - 1)
    assert np.array_equal(sums, product.astype(np.int32))


def test_the_largest_sums(bench: Any) -> None:
    """Every product 2^14: the most that the depth of an op allows fits 32 bits."""
    depth = 131071
    left, right = np.full((1, depth), -128, np.int8), np.full((1, depth), -128, np.int8)
    machine = {"a": left[:, :65536], "b": right[:, :65536]}
    command = "mm 1x1x65536 {dst} {a} {b} transpose_right"
    got = bench.compute(command, machine, (1, 1, I32))
    assert int(got[0, 0]) == 65536 * 2**14
    assert depth * 2**14 < 2**31 <= (depth + 1) * 2**14


@pytest.mark.parametrize("native", [False, int8_products.has_native_pairs()])
@pytest.mark.parametrize("depth", [0, 1, 31, 32, 100, 4096])
def test_every_form_of_the_loops_computes_the_same(native: bool, depth: int) -> None:
    """The portable one too, on a machine that would not choose it."""
    packed = int8_products.make_packed_block(native=native)
    direct = int8_products.make_direct_block(native=native)
    rows, cols, vector = (
        int8_products.BLOCK_ROWS,
        int8_products.BLOCK_COLS,
        int8_products.VECTOR,
    )

    @njit(**JIT)
    def run_packed(left: Any, right: Any, pitch: Any, steps: Any, out: Any) -> None:
        packed(left, right, pitch, steps, out)

    @njit(**JIT)
    def run_direct(row: Any, pitch: Any, right: Any, length: Any, out: Any) -> None:
        direct(row, row + pitch, row + 2 * pitch, row + 3 * pitch, pitch, right, length, out)

    whole = vector * (depth // vector + 1)
    left, right = np.zeros((rows, whole), np.int16), np.zeros((cols, whole), np.int16)
    left[:, :depth], right[:, :depth] = codes(rows, depth), codes(cols, depth, 1)
    expected = left.astype(np.int64) @ right.T.astype(np.int64)
    out = np.zeros((rows, cols), np.int32)
    run_packed(left.ctypes.data, right.ctypes.data, 2 * whole, whole // vector, out.ctypes.data)
    assert np.array_equal(out, expected)
    stored = np.ascontiguousarray(left[:4, : max(depth, 1)].astype(np.int8))
    column = np.zeros(4, np.int32)
    run_direct(stored.ctypes.data, stored.shape[1], right[1].ctypes.data, depth, column.ctypes.data)
    assert np.array_equal(column, expected[:4, 1])


@pytest.mark.parametrize("element", [F32, F16, BF16], ids=lambda e: e.name)
@pytest.mark.parametrize("shape", [(1, 1), (70, 77), (3, 256)])
def test_quantize_and_back(bench: Any, shape: tuple[int, int], element: ElementType) -> None:
    rows, cols = shape
    x = np.random.default_rng(3).standard_normal(shape) * 60
    x.flat[: min(x.size, 7)] = [np.nan, np.inf, -np.inf, 0.5, 1.5, -2.5, -0.0][: min(x.size, 7)]
    x = x.astype(element.dtype)
    for scale in (1.0, 0.37, 1e-30):
        one = np.array([[scale]], np.float32)
        got = bench.compute(
            f"quantize {rows}x{cols} {{dst}} {{a}} {{b}}", {"a": x, "b": one}, (*shape, I8), "b"
        )
        assert np.array_equal(got, quantize_activations(x, one))
        back = bench.compute(
            f"dequantize {rows}x{cols} {{dst}} {{a}} {{b}}",
            {"a": got, "b": one},
            (*shape, element),
            "b",
        )
        exact = got.astype(np.float64) * np.float64(one[0, 0])
        assert np.array_equal(back, round_to(exact, element))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_requant(bench: Any, data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sums = random.integers(-(2**31), 2**31, (rows, cols)) >> random.integers(0, 31, (rows, cols))
    table = np.stack(
        [
            random.integers(-(2**31), 2**31, rows) >> random.integers(0, 31, rows),
            random.integers(2**30, 2**31, rows),
            random.integers(1, 63, rows),
        ],
        axis=1,
    ).astype(np.int32)
    if data.draw(st.booleans()):  # whatever is in memory has a meaning
        table = random.integers(-(2**31), 2**31, (rows, 3)).astype(np.int32)
    got = bench.compute(
        f"requant {rows}x{cols} {{dst}} {{a}} {{b}}",
        {"a": sums.astype(np.int32), "b": table},
        (rows, cols, I8),
    )
    assert np.array_equal(got, requantize_by_table(sums.T.astype(np.int32), table).T)


RULES = [
    ("mm 4x4x4 dst=f32:131072/64 a=i8:0/64 b=i8:65536/64", "sums of int8 products are not i32"),
    ("mm 4x4x4 dst=f32:131072/64 a=f32:0/64 b=i8:65536/64", "operand b is not floating point"),
    ("quantize 4x4 dst=i32:131072/64 a=f16:0/64 b=f32:65536/64", "that it makes are not int8"),
    ("quantize 4x4 dst=i8:131072/64 a=i8:0/64 b=f32:65536/64", "operand a is not floating point"),
    ("quantize 4x4 dst=i8:131072/64 a=f16:0/64 b=f16:65536/64", "the one scale is not f32"),
    ("dequantize 4x4 dst=i8:131072/64 a=i8:0/64 b=f32:65536/64", "result is not floating point"),
    ("dequantize 4x4 dst=f16:131072/64 a=i32:0/64 b=f32:65536/64", "codes are not int8"),
    ("dequantize 4x4 dst=f16:131072/64 a=i8:0/64 b=bf16:65536/64", "the one scale is not f32"),
    ("requant 4x4 dst=i32:131072/64 a=i32:0/64 b=i32:65536/64", "that it makes are not int8"),
    ("requant 4x4 dst=i8:131072/64 a=f32:0/64 b=i32:65536/64", "and their table are not i32"),
    ("requant 4x4 dst=i8:131072/64 a=i32:0/64 b=f32:65536/64", "and their table are not i32"),
]


@pytest.mark.parametrize(("command", "message"), RULES)
def test_types(bench: Any, command: str, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        bench.run(f"bdc 1 {command}", [])


def test_requant_reads_three_columns_a_row(bench: Any) -> None:
    """A table of two columns leaves the shift undefined."""
    listing = """
    gdma 1 load 4x4xi32 local=0/64 global=0+0/16
    gdma 2 load 4x2xi32 local=65536/64 global=1+0/16
    bdc 1 requant 4x4 dst=i8:131072/64 a=i32:0/64 b=i32:65536/64 wait=2
    """
    zeros = np.zeros((4, 4), np.int32)
    with pytest.raises(SimulationError, match="reads byte 65544 of lane 0, which no command"):
        bench.run(listing, [(zeros, "read"), (zeros, "read")])
