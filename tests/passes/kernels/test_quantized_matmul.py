"""Kernels of layers with quantized weights: every format, held against bounds and exact sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.passes.kernels.test_matmul import CHIP, LOWERING, arguments, emitted, kernel_for, run
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.reference import bounds, float64
from tilewright.backends.reference.numerics import dequantize, plain_codes
from tilewright.backends.simulator.order import find_races
from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, ElementType
from tilewright.dialects.quantization import CodeFormat, Scheme, parse_scheme
from tilewright.passes.kernels.matmul import MatMulViews, build, problem_of
from tilewright.passes.kernels.registry import View
from tilewright.passes.tiling.matmul import choose_tiling
from tilewright.passes.tiling.matmul_tiles import Tiling

Array = npt.NDArray[Any]

SCHEMES = [
    *("w8a16", "w8a16-g16", "w8a16-g32-zp", "w8a16-zp"),
    *("w4a16", "w4a16-g16", "w4a16-g128", "w4a16-channel", "w4a16-absmax", "w4a16-channel-absmax"),
    *("f8e4m3", "f8e4m3-g64", "f8e5m2", "f8e5m2-g32"),
]


def random_parts(
    scheme: Scheme, channels: int, depth: int, scale: ElementType, seed: int
) -> tuple[Array, Array, Array | None]:
    """Codes as they are stored, scales, zero points: any bytes that are numbers."""
    numbers = np.random.default_rng(seed)
    codes = numbers.integers(-128, 128, (channels, scheme.format.row_bytes(depth))).astype(np.int8)
    if scheme.format.is_float:
        # Neither NaN nor infinities, and no numbers next to overflow.
        codes &= np.int8(-65)
    groups = (channels, scheme.groups(depth))
    scales = (numbers.random(groups) + 0.5) / 64
    lowest, highest = (0, 16) if scheme.format == CodeFormat.U4 else (-128, 128)
    zero = numbers.integers(lowest, highest, groups).astype(np.int8)
    return codes, scales.astype(scale.dtype), zero if scheme.zero_point else None


def op_of(
    scheme: Scheme, m: int, n: int, k: int, element: ElementType, scale: ElementType, bias: bool
) -> tpu.A16MatMul:
    """The layer on operands of these sizes and types."""
    groups = ((n, scheme.groups(k)), scale)
    kinds = [((m, k), element), ((n, scheme.format.row_bytes(k)), I8), groups]
    kinds += [((n, scheme.groups(k)), I8)] if scheme.zero_point else []
    kinds += [((n,), element)] if bias else []
    x, codes, scales, *others = arguments(*kinds)
    zero = others.pop(0) if scheme.zero_point else None
    op_class: type[tpu.A16MatMul] = tpu.W8A16MatMulOp
    if scheme.format.bits == 4:
        op_class = tpu.W4A16MatMulOp
    elif scheme.format.is_float:
        op_class = tpu.F8A16MatMulOp
    properties = {"format": tpu.CodeFormatAttr(scheme.format)} if scheme.format.is_float else {}
    last = others.pop(0) if bias else None
    return op_class(x, codes, scales, last, zero=zero, properties=properties)


def check(op: tpu.A16MatMul, scheme: Scheme, scale: ElementType) -> None:
    """The kernel of `op` on random inputs is within the derived bound, and has no races."""
    x_view, codes_view = (View.of_type(value.type) for value in (op.x, op.codes))
    numbers = np.random.default_rng(5)
    x = numbers.standard_normal(x_view.shape).astype(x_view.element.dtype)
    channels, depth = codes_view.rows, x_view.cols
    codes, scales, zero = random_parts(scheme, channels, depth, scale, 6)
    inputs = [x, codes, scales, *([] if zero is None else [zero])]
    if op.bias is not None:
        inputs.append(numbers.standard_normal(channels).astype(x_view.element.dtype))
    view = View.of_type(op.result.type)
    kernel = kernel_for(op)
    assert find_races(kernel, CHIP) == []
    actual = run(kernel, inputs, np.zeros(view.shape, view.element.dtype))
    (exact,) = float64.evaluate(op, inputs)
    assert not bounds.outside(actual, exact, bounds.bound(op, inputs, exact)).any()


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize(
    ("m", "n", "bias", "scale"), [(1, 200, False, F16), (70, 65, True, F32), (3, 130, True, F16)]
)
def test_every_scheme(name: str, m: int, n: int, bias: bool, scale: ElementType) -> None:
    scheme = parse_scheme(name)
    check(op_of(scheme, m, n, 256, F16, scale, bias), scheme, scale)


@pytest.mark.parametrize("name", ["w8a16-g16", "w4a16", "f8e4m3", "f8e5m2-g64"])
def test_bf16_activations(name: str) -> None:
    scheme = parse_scheme(name)
    check(op_of(scheme, 2, 90, 192, BF16, BF16, True), scheme, BF16)


@pytest.mark.parametrize("depth", [1, 33, 127])
@pytest.mark.parametrize("name", ["w4a16-channel", "w4a16-channel-absmax", "w8a16-zp"])
def test_odd_depths(name: str, depth: int) -> None:
    scheme = parse_scheme(name)
    check(op_of(scheme, 5, 70, depth, F16, F16, False), scheme, F16)


@st.composite
def tiled_schemes(draw: st.DrawFn) -> tuple[tuple[int, int, int], Tiling, Scheme]:
    scheme = parse_scheme(draw(st.sampled_from([name for name in SCHEMES if name[0] == "w"])))
    unit = scheme.group or (2 if scheme.format.bits == 4 else 1)
    units = draw(st.integers(1, 200 // unit if unit < 100 else 3))
    m, n = (draw(st.integers(1, 150)) for _ in range(2))
    channels_left = draw(st.booleans())
    tm = m if channels_left else draw(st.integers(max(1, m // 4), m))
    tn = draw(st.integers(max(1, n // 4), n))
    tk = draw(st.integers(max(1, units // 4), units)) * unit
    return (m, n, units * unit), Tiling(channels_left, tm, tn, tk), scheme


@given(tiled_schemes())
@settings(deadline=None, max_examples=50)
def test_every_tiling_takes_the_scales_and_zero_points_of_its_part(
    case: tuple[tuple[int, int, int], Tiling, Scheme],
) -> None:
    """Small integers times powers of two add up exactly in f32."""
    (m, n, k), tiling, scheme = case
    numbers = np.random.default_rng(m * n * k)
    x = numbers.integers(-3, 4, (m, k)).astype(np.float16)
    codes, _, zero = random_parts(scheme, n, k, F16, 3)
    scales = np.exp2(numbers.integers(-1, 2, (n, scheme.groups(k)))).astype(np.float16)
    held = [x, codes, scales, *([] if zero is None else [zero])]
    views = [View.of(array.shape, I8 if array.dtype == np.int8 else F16) for array in held]
    given_views = MatMulViews(views[0], views[1], View.of((m, n), F32), *views[2:])
    problem = problem_of(given_views, channels_are_rows=True, code_format=scheme.format)
    kernel = emitted(ModuleOp([build(given_views, problem, tiling)]), LOWERING)
    assert find_races(kernel, CHIP) == []
    weight = dequantize(plain_codes(codes, scheme.format, k), scales, F16, zero, scheme.format)
    expected = x.astype(np.float32) @ weight.astype(np.float32).T
    assert np.array_equal(run(kernel, held, np.zeros_like(expected)), expected)


@pytest.mark.parametrize("name", ["w8a16-g64-zp", "w4a16", "w4a16-channel", "f8e4m3"])
def test_parts_of_k_are_whole_groups_and_whole_bytes(name: str) -> None:
    scheme = parse_scheme(name)
    k = 64 * 300
    kinds = [((600, k), F16), ((900, scheme.format.row_bytes(k)), I8)]
    x, codes = (View.of(shape, element) for shape, element in kinds)
    groups = (900, scheme.groups(k))
    zero = View.of(groups, I8) if scheme.zero_point else None
    views = MatMulViews(x, codes, View.of((600, 900), F16), View.of(groups, F16), zero)
    problem = problem_of(views, channels_are_rows=True, code_format=scheme.format)
    assert problem.group == scheme.group
    assert problem.weight_pitch_bytes == scheme.format.row_bytes(k)
    tiling = choose_tiling(problem, CHIP)
    assert tiling.tk < k
    assert tiling.tk % problem.depth_unit == 0
