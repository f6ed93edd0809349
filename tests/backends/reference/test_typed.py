"""The typed reference: one rounding, in the right place, and IEEE behaviour at the edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xdsl.ir import Attribute, Block, Operation, SSAValue

from tilewright.backends.reference import float64, typed
from tilewright.backends.reference.numerics import dequantize, round_to
from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.errors import OptionError

Array = NDArray[Any]

pytestmark = pytest.mark.filterwarnings("error")

FLOATS = (F32, F16, BF16)
SIXTEEN_BITS = (F16, BF16)


def values(*types: tuple[tuple[int, ...], ElementType]) -> Sequence[SSAValue[Attribute]]:
    """SSA values to build ops on."""
    return Block(arg_types=[tensor_type(shape, element) for shape, element in types]).args


def bits_of(element: ElementType, count: int, seed: int) -> Array:
    """Values whose bit patterns are uniform: all magnitudes, subnormals, infinities and NaN."""
    rng = np.random.default_rng(seed)
    unsigned = {2: np.uint16, 4: np.uint32}[element.size_bytes]
    return rng.integers(0, np.iinfo(unsigned).max, count, dtype=unsigned).view(element.dtype)


def assert_same(result: Array, expected: Array) -> None:
    """Equal values, and NaN where NaN is."""
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(result.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("element", SIXTEEN_BITS)
@pytest.mark.parametrize("op_class", [tpu.AddOp, tpu.SubOp, tpu.MulOp, tpu.DivOp])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_one_operation_is_correctly_rounded(
    element: ElementType,
    op_class: Callable[[SSAValue[Attribute], SSAValue[Attribute]], Operation],
    seed: int,
) -> None:
    a, b = bits_of(element, 500, seed), bits_of(element, 500, seed + 1)
    op = op_class(*values((a.shape, element), (b.shape, element)))
    (result,) = typed.evaluate(op, [a, b])
    (exact,) = float64.evaluate(op, [a, b])
    assert result.dtype == element.dtype
    # A float64 quotient is itself rounded, but never onto a midpoint of 16-bit values.
    assert_same(result, round_to(exact, element))


@pytest.mark.parametrize("element", FLOATS)
def test_square_roots_are_correctly_rounded(element: ElementType) -> None:
    x = bits_of(element, 5000, 1)
    op = tpu.SqrtOp(*values((x.shape, element)))
    (result,), (exact,) = typed.evaluate(op, [x]), float64.evaluate(op, [x])
    assert_same(result, round_to(exact, element))


@pytest.mark.parametrize("element", SIXTEEN_BITS)
def test_casts_round_once(element: ElementType) -> None:
    x = bits_of(F32, 5000, 2)
    op = tpu.CastOp(values((x.shape, F32))[0], element)
    with np.errstate(all="ignore"):
        expected = x.astype(element.dtype)
    assert_same(typed.evaluate(op, [x])[0], expected)
    back = tpu.CastOp(values((x.shape, element))[0], F32)
    (wide,) = typed.evaluate(back, [expected])
    assert wide.dtype == np.float32
    assert_same(wide, expected)


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize(
    "op_class",
    [
        tpu.SiLUOp,
        tpu.TanhOp,
        tpu.SigmoidOp,
        tpu.ExpOp,
        tpu.RsqrtOp,
        tpu.ErfOp,
        tpu.ReciprocalOp,
        tpu.ReluOp,
        tpu.GELUOp,
    ],
)
def test_any_bits_give_no_warning_and_keep_nan(
    element: ElementType, op_class: Callable[[SSAValue[Attribute]], Operation]
) -> None:
    x = bits_of(element, 3000, 3)
    (result,) = typed.evaluate(op_class(*values((x.shape, element))), [x])
    assert result.dtype == element.dtype
    wide = x.astype(np.float32)
    assert np.isnan(result.astype(np.float32))[np.isnan(wide)].all()


def test_overflow_is_infinite() -> None:
    x = np.array([60000, -60000, 6.0], np.float16)
    (doubled,) = typed.evaluate(tpu.MulConstOp(values((x.shape, F16))[0], 2.0), [x])
    assert doubled.tolist() == [np.inf, -np.inf, 12]
    row = np.full((1, 64), 200, np.float16)
    product = tpu.MatMulOp(*values(((1, 64), F16), ((2, 64), F16)), right_transpose=True)
    (result,) = typed.evaluate(product, [row, np.concatenate([row, -row])])
    assert result.tolist() == [[np.inf, -np.inf]]


def test_matmul_accumulates_in_f32_and_may_leave_in_f32() -> None:
    # In f16 the ones would be lost: 2048 + 1 is 2048.
    x = np.ones((1, 4097), np.float16)
    x[0, 0] = 2048
    w = np.ones((1, 4097), np.float16)
    operands = values((x.shape, F16), (w.shape, F16))
    narrow = tpu.MatMulOp(operands[0], operands[1], right_transpose=True)
    assert typed.evaluate(narrow, [x, w])[0].tolist() == [[6144]]
    wide = tpu.MatMulOp(operands[0], operands[1], right_transpose=True, element=F32)
    (result,) = typed.evaluate(wide, [x, w * np.float16(1.0009765625)])
    assert result.dtype == np.float32
    assert result.tolist() == [[6144 * (1 + 2.0**-10)]]


def test_bias_is_added_before_the_rounding() -> None:
    # 1 + 2^-11 is a tie that goes down to 1; with 2^-12 from the bias it goes up.
    x = np.array([[1, 2.0**-11]], np.float16)
    w = np.ones((1, 2), np.float16)
    bias = np.array([2.0**-12], np.float16)
    op = tpu.MatMulOp(
        *values((x.shape, F16), (w.shape, F16), (bias.shape, F16)), right_transpose=True
    )
    assert typed.evaluate(op, [x, w, bias])[0].tolist() == [[1 + 2.0**-10]]


def test_layer_norm_rounds_only_at_the_end() -> None:
    rng = np.random.default_rng(4)
    x, w, b = (rng.standard_normal(s).astype(np.float16) for s in ((64, 96), (96,), (96,)))
    op = tpu.LayerNormOp(*values((x.shape, F16), (w.shape, F16), (b.shape, F16)), eps=1e-5)
    (result,), (exact,) = typed.evaluate(op, [x, w, b]), float64.evaluate(op, [x, w, b])
    assert np.mean(result == exact.astype(np.float16)) > 0.999


@pytest.mark.parametrize("element", FLOATS)
def test_attention_rounds_probabilities_to_the_storage_type(element: ElementType) -> None:
    # With v the identity, the result is the stored probabilities themselves.
    rng = np.random.default_rng(5)
    q, k = (rng.standard_normal((16, 16)).astype(element.dtype) for _ in range(2))
    v = np.eye(16).astype(element.dtype)
    op = tpu.AttentionOp(
        *values(*[((16, 16), element)] * 3), num_heads=1, num_kv_heads=1, scale=0.25
    )
    (result,) = typed.evaluate(op, [q, k, v])
    scores = (q.astype(np.float32) @ k.astype(np.float32).T) * np.float32(0.25)
    powers = np.exp((scores - scores.max(axis=1, keepdims=True)).astype(np.float64))
    expected = round_to(powers / powers.sum(axis=1, keepdims=True), element).astype(np.float64)
    np.testing.assert_allclose(
        result.astype(np.float64), expected, rtol=1e-6 if element == F32 else 0
    )

    # And a sum over two equal halves is that of the rounded ones.
    doubled = np.concatenate([k, k]), np.concatenate([v, v])
    types = [((16, 16), element), ((32, 16), element), ((32, 16), element)]
    op = tpu.AttentionOp(*values(*types), num_heads=1, num_kv_heads=1, scale=0.25)
    (summed,) = typed.evaluate(op, [q, *doubled])
    halves = round_to(powers / (2 * powers.sum(axis=1, keepdims=True)), element)
    np.testing.assert_allclose(
        summed.astype(np.float64), 2 * halves.astype(np.float64), rtol=1e-6 if element == F32 else 0
    )


@pytest.mark.parametrize("element", SIXTEEN_BITS)
@pytest.mark.parametrize("scale_is_f32", [False, True])
def test_quantized_rows_and_products(element: ElementType, scale_is_f32: bool) -> None:
    rng = np.random.default_rng(6)
    scale_element = F32 if scale_is_f32 else element
    codes = rng.integers(-127, 128, (1100, 32)).astype(np.int8)
    scale = (rng.random((1100, 1)) / 100).astype(scale_element.dtype)
    weight = dequantize(codes, scale, element)
    indices = np.array([1099, 0, 5, 5], np.int32)
    types = ((codes.shape, I8), (scale.shape, scale_element), (indices.shape, I32))
    gather = tpu.W8A16GatherOp(*values(*types), element=element)
    (rows,) = typed.evaluate(gather, [codes, scale, indices])
    assert rows.dtype == element.dtype
    assert np.array_equal(rows, weight[indices])
    assert np.array_equal(
        rows.astype(np.float64), float64.evaluate(gather, [codes, scale, indices])[0]
    )

    # A row of the identity reads one input's weights out.
    x = np.eye(32).astype(element.dtype)
    bias = np.zeros(1100).astype(element.dtype)
    types = (
        (x.shape, element),
        (codes.shape, I8),
        (scale.shape, scale_element),
        (bias.shape, element),
    )
    (product,) = typed.evaluate(tpu.W8A16MatMulOp(*values(*types)), [x, codes, scale, bias])
    assert product.dtype == element.dtype
    assert np.array_equal(product, weight.T)


def test_inputs_must_be_of_the_storage_types() -> None:
    op = tpu.AddOp(*values(((3,), F16), ((3,), F16)))
    half = np.ones(3, np.float16)
    with pytest.raises(OptionError, match=r"input 1 of tpu\.Add is float32\[3\], not f16\[3\]"):
        typed.evaluate(op, [half, half.astype(np.float32)])
