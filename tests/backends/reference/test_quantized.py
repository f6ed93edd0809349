"""Layers with quantized weights in both semantics: every format, groups, zero points."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block

from tilewright.backends.reference import bounds, composition, float64, typed
from tilewright.backends.reference.balls import FLOAT64, MACHINE, Ball
from tilewright.backends.reference.kernels import run_kernel
from tilewright.dialects import tpu
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import BF16, F16, F32, I8, ElementType, tensor_type
from tilewright.dialects.quantization import CodeFormat
from tilewright.passes.kernels.matmul import MatMulViews, build, problem_of
from tilewright.passes.kernels.registry import View
from tilewright.passes.registry import PASSES
from tilewright.passes.tiling.matmul_tiles import Tiling

Array = npt.NDArray[Any]

N, K = 40, 96
FORMATS = tuple(CodeFormat)


def held_and_numbers(code_format: CodeFormat, seed: int) -> tuple[Array, Array]:
    """Stored codes, and what they stand for as ml_dtypes has it."""
    random = np.random.default_rng(seed)
    held = random.integers(-128, 128, (N, code_format.row_bytes(K))).astype(np.int8)
    if code_format == CodeFormat.I8:
        return held, held.astype(np.float64)
    if code_format.is_float:
        held &= np.int8(-65)
        e4m3 = code_format == CodeFormat.F8E4M3
        dtype = ml_dtypes.float8_e4m3fn if e4m3 else ml_dtypes.float8_e5m2
        return held, held.view(dtype).astype(np.float64)
    dtype = ml_dtypes.int4 if code_format == CodeFormat.I4 else ml_dtypes.uint4
    raw = held.view(np.uint8)
    nibbles = np.stack([raw & 15, raw >> 4], axis=2).reshape(N, K)
    return held, nibbles.astype(dtype).astype(np.float64)


def layer(
    code_format: CodeFormat, groups: int, element: ElementType, scale: ElementType, bias: bool
) -> tpu.A16MatMul:
    zero = code_format == CodeFormat.U4
    kinds = [((3, K), element), ((N, code_format.row_bytes(K)), I8), ((N, groups), scale)]
    kinds += [((N, groups), I8)] * zero + [((N,), element)] * bias
    block = Block(arg_types=[tensor_type(*kind) for kind in kinds])
    x, codes, scales, *others = block.args
    point = others.pop(0) if zero else None
    last = others.pop(0) if bias else None
    if code_format == CodeFormat.I8:
        return tpu.W8A16MatMulOp(x, codes, scales, last, zero=point)
    if not code_format.is_float:
        return tpu.W4A16MatMulOp(x, codes, scales, last, zero=point)
    properties = {"format": tpu.CodeFormatAttr(code_format)}
    return tpu.F8A16MatMulOp(x, codes, scales, last, properties=properties)


def inputs_of(op: tpu.A16MatMul, groups: int, seed: int) -> tuple[list[Array], Array]:
    """Inputs of the op, and its weights: rounded once, from the exact products."""
    random = np.random.default_rng(seed)
    x_type, _, scale_type, *_ = elements_of(op)
    held, numbers = held_and_numbers(op.code_format, seed)
    scale = ((random.random((N, groups)) + 0.5) / 64).astype(scale_type.dtype)
    inputs = [random.standard_normal((3, K)).astype(x_type.dtype), held, scale]
    if op.zero is not None:
        zero = random.integers(0, 16, (N, groups)).astype(np.int8)
        numbers = numbers - np.repeat(zero.astype(np.float64), K // groups, axis=1)
        inputs.append(zero)
    if op.bias is not None:
        inputs.append(random.standard_normal(N).astype(x_type.dtype))
    exact = numbers * np.repeat(scale.astype(np.float64), K // groups, axis=1)
    return inputs, exact.astype(np.float32).astype(x_type.dtype).astype(np.float64)


@pytest.mark.parametrize("code_format", FORMATS)
@pytest.mark.parametrize("element", [F16, BF16], ids=lambda e: e.name)
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_both_semantics(code_format: CodeFormat, element: ElementType, groups: int) -> None:
    op = layer(code_format, groups, element, element, True)
    inputs, weight = inputs_of(op, groups, 3)
    expected = inputs[0].astype(np.float64) @ weight.T + inputs[-1].astype(np.float64)
    (exact,) = float64.evaluate(op, inputs)
    np.testing.assert_allclose(exact, expected, rtol=1e-12, atol=1e-12)
    (machine,) = typed.evaluate(op, inputs)
    limit = bounds.bound(op, inputs, exact)
    assert machine.dtype == element.dtype
    assert not bounds.outside(machine, exact, limit).any()
    # Scales of the next group, or zero points that are left out, are other weights.
    wrong = [*inputs[:2], np.roll(inputs[2], 1, axis=int(groups > 1)), *inputs[3:]]
    assert bounds.outside(typed.evaluate(op, wrong)[0], exact, limit).mean() > 0.5
    if op.zero is not None:
        wrong = [*inputs[:3], np.zeros_like(inputs[3]), *inputs[4:]]
        assert bounds.outside(typed.evaluate(op, wrong)[0], exact, limit).mean() > 0.5


@pytest.mark.parametrize("code_format", FORMATS)
def test_errors_of_scales_count_by_their_group(code_format: CodeFormat) -> None:
    groups = 4
    op = layer(code_format, groups, F16, F32, False)
    inputs, _ = inputs_of(op, groups, 5)
    radius = np.abs(inputs[2].astype(np.float64)) * 1e-3
    balls = [Ball.exact(each) for each in inputs]
    balls[2] = Ball(inputs[2].astype(np.float64), radius)
    (ball,) = composition.propagate(op, balls, FLOAT64)
    for sign in (-1, 1):
        moved = [*inputs[:2], (inputs[2] + sign * radius).astype(np.float32), *inputs[3:]]
        (other,) = float64.evaluate(op, moved)
        assert (np.abs(other - ball.value) <= ball.radii * 1.001).all()
    (of_machine,) = composition.propagate(op, [Ball.exact(each) for each in inputs], MACHINE)
    assert np.array_equal(of_machine.value, typed.evaluate(op, inputs)[0].astype(np.float64))


@pytest.mark.parametrize("stages", [0, 3])
@pytest.mark.parametrize("code_format", FORMATS)
def test_kernels(code_format: CodeFormat, stages: int) -> None:
    """As built, and with tiles in local memory, where double-buffer takes parts of k in turn."""
    groups = 6
    op = layer(code_format, groups, F16, F16, True)
    inputs, _ = inputs_of(op, groups, 8)
    views = [View.of(array.shape, e) for array, e in zip(inputs, elements_of(op), strict=True)]
    x, codes, scale = views[:3]
    zero = views[3] if op.zero is not None else None
    given = MatMulViews(x, codes, View.of((3, N), F16), scale, zero, views[-1])
    problem = problem_of(given, channels_are_rows=True, code_format=code_format)
    kernel = build(given, problem, Tiling(True, 3, 16, 32))
    module = ModuleOp([kernel])
    for name in ("double-buffer", "allocate-local-memory", "insert-waits")[:stages]:
        PASSES[name]()().apply(make_context(), module)
    (exact,) = float64.evaluate(op, inputs)
    result = run_kernel(kernel, [*inputs, np.zeros((3, N), np.float16)], arithmetic=FLOAT64)[-1]
    np.testing.assert_allclose(result.value, exact, rtol=1e-12, atol=1e-12)
    machine = run_kernel(kernel, [*inputs, np.zeros((3, N), np.float16)], arithmetic=MACHINE)[-1]
    assert (np.abs(machine.value - exact) <= machine.radii).all()


def elements_of(op: tpu.A16MatMul) -> list[ElementType]:
    return [View.of_type(operand.type).element for operand in op.operands]
