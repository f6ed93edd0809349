"""DEQUANT of every format: all codes against ml_dtypes and exact products, groups, zero points."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.reference.numerics import round_to
from tilewright.backends.simulator.check import check_kernel
from tilewright.backends.simulator.order import find_races
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import SimulationError

Array = npt.NDArray[Any]

FLOATS = (F32, F16, BF16)
FORMATS = ("dequant", "dequant_i4", "dequant_u4", "dequant_f8e4m3", "dequant_f8e5m2")


def numbers_of(command: str, held: Array, cols: int) -> Array:
    """What stored bytes stand for, in float64, by other means than ours."""
    if command == "dequant":
        return held.astype(np.float64)
    if "f8" in command:
        dtype = ml_dtypes.float8_e4m3fn if "e4m3" in command else ml_dtypes.float8_e5m2
        return held.view(dtype).astype(np.float64)
    dtype = ml_dtypes.int4 if "i4" in command else ml_dtypes.uint4
    nibbles = np.stack([held.view(np.uint8) & 15, held.view(np.uint8) >> 4], axis=2)
    return nibbles.astype(dtype).astype(np.float64).reshape(len(held), -1)[:, :cols]


def expected(
    command: str, held: Array, scale: Array, zero: Array | None, result: ElementType, cols: int
) -> Array:
    numbers = numbers_of(command, held, cols)
    group = cols // scale.shape[1]
    if zero is not None:
        numbers = numbers - np.repeat(zero.astype(np.float64), group, axis=1)
    return round_to(numbers * np.repeat(scale.astype(np.float64), group, axis=1), result)


def same(got: Array, wanted: Array) -> None:
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got.astype(np.float64), wanted.astype(np.float64))


@pytest.mark.parametrize("command", FORMATS)
@pytest.mark.parametrize("result", FLOATS, ids=lambda e: e.name)
@pytest.mark.parametrize("scale_type", FLOATS, ids=lambda e: e.name)
def test_all_bytes(bench: Any, command: str, scale_type: ElementType, result: ElementType) -> None:
    held = np.arange(-128, 128, dtype=np.int8)[None].repeat(70, axis=0)
    cols = 512 if "4" in command and "f8" not in command else 256
    random = np.random.default_rng(7)
    scale = random.random((70, 4)) * np.exp2(random.integers(-20, 3, (70, 4)))
    scale = scale.astype(np.float32).astype(scale_type.dtype)
    text = f"{command} 70x{cols} {{dst}} {{a}} {{b}} group={cols // 4}"
    got = bench.compute(text, {"a": held, "b": scale}, (70, cols, result))
    same(got, expected(command, held, scale, None, result, cols))


@given(
    command=st.sampled_from(FORMATS),
    rows=st.integers(1, 130),
    groups=st.integers(1, 5),
    group=st.integers(1, 40),
    zero_points=st.booleans(),
    scale_type=st.sampled_from(FLOATS),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_groups_and_zero_points(
    bench: Any,
    command: str,
    rows: int,
    groups: int,
    group: int,
    zero_points: bool,
    scale_type: ElementType,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    cols = groups * group
    width = -(-cols // 2) if command in ("dequant_i4", "dequant_u4") else cols
    held = random.integers(-128, 128, (rows, width)).astype(np.int8)
    scale = random.standard_normal((rows, groups)).astype(np.float32).astype(scale_type.dtype)
    operands: dict[str, Array] = {"a": held, "b": scale}
    text = f"{command} {rows}x{cols} {{dst}} {{a}} {{b}}"
    zero = None
    if zero_points and "f8" not in command:
        zero = random.integers(-128, 128, (rows, groups)).astype(np.int8)
        operands["c"], text = zero, text + " {c}"
    if groups > 1:
        text += f" group={group}"
    got = bench.compute(text, operands, (rows, cols, F16))
    same(got, expected(command, held, scale, zero, F16, cols))


GOOD = """
gdma 1 load 70x32xi8 local=0/64 global=0+0/32
gdma 2 load 70x2xf16 local=128/64 global=1+0/4
gdma 3 load 70x2xi8 local=256/64 global=2+0/2
bdc 1 dequant_u4 70x64 dst=f16:16384/128 a=i8:0/64 b=f16:128/64 c=i8:256/64 group=32 wait=3
gdma 4 store 70x64xf16 local=16384/128 global=3+0/128 wait=1
"""


def kernel(bench: Any, text: str) -> Any:
    arrays = [
        np.zeros((70, 32), np.int8),
        np.zeros((70, 2), np.float16),
        np.zeros((70, 2), np.int8),
    ]
    out = (np.zeros((70, 64), np.float16), "write")
    return bench.kernel(text, [*((array, "read") for array in arrays), out])


def test_a_right_kernel_passes(chip: Any, bench: Any) -> None:
    check_kernel(kernel(bench, GOOD), chip)
    assert find_races(kernel(bench, GOOD), chip) == []


BROKEN = [
    ("c=i8:256/64 group=32 wait=3", "c=i8:256/64 group=32 wait=2", "it reads byte 256 of lane 0"),
    ("c=i8:256/64", "c=i8:320/64", "it reads byte 320 of lane 6"),
    ("c=i8:256/64", "c=i8:16384/64", "the result overlaps operand c"),
    ("c=i8:256/64", "c=i8:256/65", "operand c: the stride is not a multiple of 64 bytes"),
    ("c=i8:256/64", "c=i8:262100/64", "operand c: out of range"),
    ("group=32", "group=48", "its groups do not divide its columns"),
    ("group=32", "group=16", "it reads byte 132 of lane 0"),
    ("dequant_u4", "dequant_f8e4m3", "8-bit floats have no zero points"),
    ("dequant_u4 70x64", "dequant 70x64", "it reads byte 32 of lane 0"),
    ("f16:128/64 c=i8:256/64", "f16:128/64 c=i8:256/64 transpose_right", "a flag that this"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), BROKEN, ids=lambda text: str(text)[:30])
def test_each_rule(chip: Any, bench: Any, right: str, wrong: str, message: str) -> None:
    assert GOOD.count(right) == 1
    with pytest.raises(SimulationError) as caught:
        check_kernel(kernel(bench, GOOD.replace(right, wrong)), chip)
    assert message in caught.value.what


def test_zero_points_race(chip: Any, bench: Any) -> None:
    """The next zero points are loaded while the first ones are read."""
    text = GOOD.replace(
        "gdma 4 store",
        "gdma 4 load 70x2xi8 local=256/64 global=2+0/2\ngdma 5 store",
    )
    (race,) = find_races(kernel(bench, text), chip)
    assert (race.gdma, race.bdc, race.byte) == (4, 1, 256)
