"""Composite ops are evaluated as their decomposition is, and their bound covers the machine's."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.ir import Block

from tilewright.backends.reference import bounds, composition, float64, typed
from tilewright.backends.reference.balls import FLOAT64, Ball
from tilewright.dialects import tpu
from tilewright.dialects.element_types import (
    BF16,
    ELEMENT_TYPES,
    F16,
    F32,
    ElementType,
    tensor_type,
)
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import CompositeOp, composite


@composite("test.GatedNorm", tpu.TpuOp)
def gated_norm(x: Value, gate: Value) -> Value:
    wide = [tpu.CastOp(each, F32).result for each in (x, gate)]
    normed = tpu.RMSNormOp(wide[0], eps=1e-5).result
    return tpu.MulOp(normed, tpu.SiLUOp(wide[1]).result).result


@composite("test.Head", tpu.TpuOp)
def head(x: Value, codes: Value, scale: Value) -> Value:
    return tpu.GELUOp(tpu.W8A16MatMulOp(x, codes, scale, element=F32).result, "tanh").result


def made(op: type[CompositeOp], *arrays: np.ndarray, element: ElementType | None) -> CompositeOp:
    elements = {each.dtype: each for each in ELEMENT_TYPES}
    types = [tensor_type(array.shape, elements[array.dtype]) for array in arrays]
    return op(*Block(arg_types=types).args, element=element)


def normal(shape: tuple[int, ...], element: ElementType, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(element.dtype)


@pytest.mark.parametrize("element", [F16, BF16], ids=lambda each: each.name)
def test_float64_is_the_formula(element: ElementType) -> None:
    x, gate = normal((20, 30), element, 0), normal((20, 30), element, 1)
    op = made(gated_norm, x, gate, element=None)
    (actual,) = float64.evaluate(op, [x, gate])
    a, b = x.astype(np.float64), gate.astype(np.float64)
    expected = a / np.sqrt(np.mean(a * a, axis=1, keepdims=True) + np.float32(1e-5))
    expected = expected * b / (1 + np.exp(-b))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("element", [F16, F32], ids=lambda each: each.name)
def test_the_typed_result_is_within_the_bound_and_rounded_once(element: ElementType) -> None:
    x, gate = normal((64, 300), F16, 2), normal((64, 300), F16, 3)
    op = made(gated_norm, x, gate, element=element)
    (result,) = typed.evaluate(op, [x, gate])
    (exact,) = float64.evaluate(op, [x, gate])
    limit = bounds.bound(op, [x, gate], exact)
    assert limit is not None
    assert result.dtype == element.dtype
    assert not bounds.outside(result, exact, limit).any()
    # Half an ulp of the result's type, and little more: no second rounding to it.
    unit = {"f16": 2.0**-11, "f32": 2.0**-24}[element.name]
    large = np.abs(exact) > 1e-3
    share = limit[large] / np.abs(exact[large])
    assert share.max() < (1.05 if element == F16 else 500) * unit
    # A bound that is half as large is broken.
    assert bounds.outside(result, exact, limit / (2 if element == F16 else 1000)).any()


def test_quantized_weights() -> None:
    rng = np.random.default_rng(5)
    x = normal((7, 64), F16, 6)
    codes = rng.integers(-127, 128, (9, 64), dtype=np.int8)
    scale = (rng.random((9, 1)) / 100).astype(np.float16)
    op = made(head, x, codes, scale, element=None)
    arrays = [x, codes, scale]
    (exact,) = float64.evaluate(op, arrays)
    limit = bounds.bound(op, arrays, exact)
    assert not bounds.outside(typed.evaluate(op, arrays)[0], exact, limit).any()
    weight = (codes * scale.astype(np.float64)).astype(np.float16).astype(np.float64)
    product = x.astype(np.float64) @ weight.T
    cubic = product + 0.044715 * product**3
    expected = product / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * cubic))
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-12)


def test_errors_of_operands_are_carried() -> None:
    x, gate = normal((4, 30), F16, 2), normal((4, 30), F16, 3)
    op = made(gated_norm, x, gate, element=None)
    exact = composition.propagate(op, [Ball.exact(x), Ball.exact(gate)], FLOAT64)[0]
    assert exact.radii.max() < 1e-12
    off = Ball(gate.astype(np.float64), np.asarray(1e-3))
    carried = composition.propagate(op, [Ball.exact(x), off], FLOAT64)[0]
    (moved,) = float64.evaluate(op, [x.astype(np.float64), gate.astype(np.float64) + 1e-3])
    assert (np.abs(moved - carried.value) <= carried.radii).all()
    assert (carried.radii > exact.radii).all()
