"""Error bounds, both ways: right results lie within them, wrong ones do not.

Right results are the typed reference's, and those of implementations that share nothing with it:
PyTorch's kernels on the storage types, and the ways in which a tiled machine would compute. Wrong
results are the faults that compilers make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xdsl.ir import Attribute, Block, Operation, SSAValue

from tilewright.backends.reference import float64, typed
from tilewright.backends.reference.bounds import bound, outside
from tilewright.backends.reference.numerics import gamma, quantize, round_to, ulp
from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, F32, I8, I32, ElementType, tensor_type
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.quantization import parse_scheme

Array = NDArray[Any]

pytestmark = pytest.mark.filterwarnings("error")

FLOATS = (F32, F16, BF16)
SIXTEEN_BITS = (F16, BF16)
SEEDS = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    """An op on inputs in its storage types, with the float64 result and the bound."""

    op: Operation
    inputs: Sequence[Array]

    @property
    def exact(self) -> Array:
        return float64.evaluate(self.op, self.inputs)[0]

    @property
    def typed(self) -> Array:
        return typed.evaluate(self.op, self.inputs)[0]

    def wrong(self, result: Array) -> float:
        """The share of elements of `result` (rounded to the op's type) that are out of bound."""
        stored = result if result.dtype == self.typed.dtype else self.rounded(result)
        exact = self.exact
        return float(np.mean(outside(stored, exact, bound(self.op, self.inputs, exact))))

    def rounded(self, result: Array) -> Array:
        element = next(e for e in FLOATS if e.dtype == self.typed.dtype)
        return round_to(result.astype(np.float64), element)


def values(*types: tuple[tuple[int, ...], ElementType]) -> Sequence[SSAValue[Attribute]]:
    """SSA values to build ops on."""
    return Block(arg_types=[tensor_type(shape, element) for shape, element in types]).args


def of_arrays(*arrays: Array) -> Sequence[SSAValue[Attribute]]:
    elements = {e.dtype: e for e in (F32, F16, BF16, I8, I32)}
    return values(*((array.shape, elements[array.dtype]) for array in arrays))


def draw(
    element: ElementType, seed: int, *shapes: tuple[int, ...], spread: float = 1
) -> list[Array]:
    """Normal numbers times `spread`, and a factor of 2^[-3, 3] a row."""
    rng = np.random.default_rng(seed)
    drawn: list[Array] = []
    for shape in shapes:
        rows = 2.0 ** rng.integers(-3, 4, (*shape[:-1], 1)) if len(shape) > 1 else 1.0
        drawn.append((rng.standard_normal(shape) * rows * spread).astype(element.dtype))
    return drawn


def to_torch(array: Array) -> torch.Tensor:
    if array.dtype == BF16.dtype:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array)


def from_torch(tensor: torch.Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def truncated(exact: Array, element: ElementType) -> Array:
    """Rounded towards zero: the fault of a conversion that drops bits."""
    nearest = round_to(exact, element)
    inward = np.nextafter(nearest, np.zeros_like(nearest))
    return np.where(np.abs(nearest.astype(np.float64)) > np.abs(exact), inward, nearest)


# Matrix products.


def matmul_case(element: ElementType, seed: int, depth: int = 256, *, biased: bool = True) -> Case:
    x, w, b = draw(element, seed, (7, depth), (33, depth), (33,))
    inputs = [x, w, b] if biased else [x, w]
    return Case(tpu.MatMulOp(*of_arrays(*inputs), right_transpose=True), inputs)


def tiled_product(x: Array, w: Array, tile: int, bias: Array | None = None) -> Array:
    """f32 partial sums over K tiles in ascending order, sequential inside a tile."""
    total = np.zeros((x.shape[0], w.shape[0]), np.float32)
    for start in range(0, x.shape[1], tile):
        part = np.zeros_like(total)
        for k in range(start, min(start + tile, x.shape[1])):
            part += x[:, k : k + 1].astype(np.float32) * w[:, k].astype(np.float32)
        total += part
    return total if bias is None else total + bias.astype(np.float32)


@pytest.mark.parametrize("element", FLOATS)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, depth=st.integers(1, 300), biased=st.booleans())
def test_matmul_within(element: ElementType, seed: int, depth: int, biased: bool) -> None:
    case = matmul_case(element, seed, depth, biased=biased)
    bias = case.inputs[2] if biased else None
    assert case.wrong(case.typed) == 0
    for tile in (1, 64):
        assert case.wrong(tiled_product(case.inputs[0], case.inputs[1], tile, bias)) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_torch_linear_within(element: ElementType) -> None:
    case = matmul_case(element, 1, biased=False)
    x, w = (to_torch(array) for array in case.inputs)
    assert case.wrong(from_torch(F.linear(x, w))) == 0


def test_matmul_bound_is_the_contracts() -> None:
    case = matmul_case(F16, 2, biased=False)
    x, w = (np.abs(array.astype(np.float64)) for array in case.inputs)
    limit = bound(case.op, case.inputs, case.exact)
    assert limit is not None
    internal = gamma(256) * (x @ w.T)
    law = internal + ulp(np.abs(case.exact) + internal, F16) / 2
    np.testing.assert_allclose(limit, law, rtol=1e-8)


@pytest.mark.parametrize("element", FLOATS)
def test_matmul_faults_are_outside(element: ElementType) -> None:
    case = matmul_case(element, 3, 4096)
    x, w, b = case.inputs
    exact = case.exact
    assert case.wrong(tiled_product(x[:, 64:], w[:, 64:], 64, b)) > 0.9, "a K tile is missing"
    assert case.wrong(exact - b.astype(np.float64)) > 0.3, "the bias is missing"
    assert case.wrong(np.roll(exact, 1, axis=1)) > 0.95, "columns are off by one"
    assert case.wrong(np.float32(0) * exact) > 0.95, "nothing was computed"


@pytest.mark.parametrize("element", SIXTEEN_BITS)
def test_wrong_roundings_of_a_product_are_outside(element: ElementType) -> None:
    # At depth 64; gamma(4096) times the terms is more than an ulp of their sum.
    case = matmul_case(element, 3, 64)
    x, w, b = case.inputs
    assert case.wrong(truncated(case.exact, element)) > 0.3, "truncated"
    halves = [tiled_product(x[:, part], w[:, part], 64) for part in (slice(32), slice(32, 64))]
    stored = [case.rounded(half).astype(np.float32) for half in halves]
    assert case.wrong(stored[0] + stored[1] + b.astype(np.float32)) > 0.2, "16-bit partial sums"
    late = case.rounded(tiled_product(x, w, 64)).astype(np.float32) + b.astype(np.float32)
    assert case.wrong(late) > 0.2, "rounded before the bias"


@pytest.mark.parametrize("element", SIXTEEN_BITS)
def test_quantized_matmul(element: ElementType) -> None:
    x, weight = draw(element, 4, (5, 512), (48, 512), spread=0.05)
    codes, scale, _ = quantize(weight, parse_scheme("w8a16"), element)
    case = Case(tpu.W8A16MatMulOp(*of_arrays(x, codes, scale)), [x, codes, scale])
    dequantized = (codes.astype(np.float32) * scale.astype(np.float32)).astype(element.dtype)
    assert case.wrong(case.typed) == 0
    assert case.wrong(tiled_product(x, dequantized, 64)) == 0
    # Scaling after the product is another model, and the unquantized weight another weight.
    wide = x.astype(np.float64)
    assert case.wrong(wide @ weight.astype(np.float64).T) > 0.5
    off = np.roll(scale, 1, axis=0).astype(np.float64)
    assert case.wrong(wide @ (codes * off).T) > 0.9, "scales are off by a row"
    assert case.wrong(wide @ (np.clip(codes, -64, 63) * scale.astype(np.float64)).T) > 0.5


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize("transpose", [False, True])
def test_batch_matmul(element: ElementType, transpose: bool) -> None:
    a, b = draw(element, 5, (3, 4, 64), (3, 9, 64) if transpose else (3, 64, 9))
    case = Case(tpu.BatchMatMulOp(*of_arrays(a, b), right_transpose=transpose), [a, b])
    assert case.wrong(case.typed) == 0
    assert case.wrong(np.roll(case.exact, 1, axis=0)) > 0.9, "batches are off by one"


# Normalizations.


def sequential_sum(x: Array) -> Array:
    return np.cumsum(x, axis=-1, dtype=np.float32)[..., -1:]


def rms_case(element: ElementType, seed: int, eps: float = 1e-5, spread: float = 1) -> Case:
    x, w = draw(element, seed, (9, 320), (320,), spread=spread)
    return Case(tpu.RMSNormOp(*of_arrays(x, w), eps=eps), [x, w])


@pytest.mark.parametrize("element", FLOATS)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, spread=st.sampled_from([1e-6, 1e-3, 1.0, 100.0]))
def test_rms_norm_within(element: ElementType, seed: int, spread: float) -> None:
    case = rms_case(element, seed, spread=spread)
    assert case.wrong(case.typed) == 0
    x, w = (array.astype(np.float32) for array in case.inputs)
    mean = sequential_sum(x * x) * np.float32(1 / 320)
    assert case.wrong(x * (np.float32(1) / np.sqrt(mean + np.float32(1e-5))) * w) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_rms_norm_faults_are_outside(element: ElementType) -> None:
    case = rms_case(element, 6, spread=0.01)
    x, w = (array.astype(np.float64) for array in case.inputs)
    mean = np.mean(x * x, axis=-1, keepdims=True)
    eps = float(np.float32(1e-5))
    assert case.wrong(x / np.sqrt(mean) * w) > 0.4, "no epsilon"
    assert case.wrong(x / np.sqrt(mean + 1e-6) * w) > 0.4, "another epsilon"
    assert case.wrong(x / np.sqrt(mean + eps)) > 0.9, "no weight"
    short = np.sum(x[:, :256] ** 2, axis=-1, keepdims=True) / 320
    assert case.wrong(x / np.sqrt(short + eps) * w) > 0.8, "a part of the sum is missing"
    if element != F32:
        assert case.wrong(truncated(case.exact, element)) > 0.4, "truncated"
        inner = case.rounded(x / np.sqrt(mean + eps)).astype(np.float64)
        assert case.wrong(inner * w) > 0.1, "rounded before the weight"


def layer_case(element: ElementType, seed: int, offset: float = 0) -> Case:
    x, w, b = draw(element, seed, (9, 320), (320,), (320,))
    x = (x.astype(np.float64) + offset).astype(element.dtype)
    return Case(tpu.LayerNormOp(*of_arrays(x, w, b), eps=1e-5), [x, w, b])


@pytest.mark.parametrize("element", FLOATS)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, offset=st.sampled_from([0.0, 1.0, 100.0]))
def test_layer_norm_within(element: ElementType, seed: int, offset: float) -> None:
    case = layer_case(element, seed, offset)
    assert case.wrong(case.typed) == 0
    x, w, b = (array.astype(np.float32) for array in case.inputs)
    centred = x - sequential_sum(x) / np.float32(320)
    variance = sequential_sum(centred * centred) / np.float32(320)
    assert case.wrong(centred / np.sqrt(variance + np.float32(1e-5)) * w + b) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_torch_layer_norm_within(element: ElementType) -> None:
    case = layer_case(element, 7)
    x, w, b = (to_torch(array) for array in case.inputs)
    assert case.wrong(from_torch(F.layer_norm(x, [320], w, b, eps=float(np.float32(1e-5))))) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_layer_norm_faults_are_outside(element: ElementType) -> None:
    case = layer_case(element, 8, 1.0)
    x, w, b = (array.astype(np.float64) for array in case.inputs)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = x.var(axis=-1, keepdims=True)
    assert case.wrong(centred / np.sqrt(variance + 1e-5) * w) > 0.9, "no bias"
    assert case.wrong(x / np.sqrt(variance + 1e-5) * w + b) > 0.5, "no mean"
    if element != BF16:  # half a sample in 640 is below half an ulp of bf16
        unbiased = x.var(axis=-1, keepdims=True, ddof=1)
        assert case.wrong(centred / np.sqrt(unbiased + 1e-5) * w + b) > 0.3, "divided by C - 1"
    if element != F32:
        assert case.wrong(truncated(case.exact, element)) > 0.4, "truncated"


def softmax_case(element: ElementType, seed: int, spread: float = 1) -> Case:
    (x,) = draw(element, seed, (11, 200), spread=spread)
    return Case(tpu.SoftmaxOp(*of_arrays(x)), [x])


@pytest.mark.parametrize("element", FLOATS)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, spread=st.sampled_from([0.01, 1.0, 30.0]))
def test_softmax_within(element: ElementType, seed: int, spread: float) -> None:
    case = softmax_case(element, seed, spread)
    assert case.wrong(case.typed) == 0
    x = case.inputs[0].astype(np.float32)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    assert case.wrong(powers * (np.float32(1) / sequential_sum(powers))) == 0
    assert case.wrong(from_torch(F.softmax(to_torch(case.inputs[0]), dim=-1))) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_softmax_faults_are_outside(element: ElementType) -> None:
    case = softmax_case(element, 9)
    x = case.inputs[0].astype(np.float64)
    powers = np.exp(x)
    assert case.wrong(powers / powers[:, :-8].sum(axis=-1, keepdims=True)) > 0.4, (
        "a part is missing"
    )
    assert case.wrong(np.exp2(x) / np.exp2(x).sum(axis=-1, keepdims=True)) > 0.8, "another base"
    if element != F32:
        assert case.wrong(truncated(case.exact, element)) > 0.3, "truncated"


# Rotary embedding and attention.


def rope_case(element: ElementType, seed: int, *, interleaved: bool) -> Case:
    heads, width = 3, 32
    (x,) = draw(element, seed, (10, heads * width))
    angles = np.arange(10)[:, None] * 10.0 ** -np.linspace(0, 3, width // 2)
    doubled = np.repeat(angles, 2, axis=1) if interleaved else np.tile(angles, 2)
    inputs = [x, np.cos(doubled).astype(np.float32), np.sin(doubled).astype(np.float32)]
    op = tpu.RopeOp(*of_arrays(*inputs), num_heads=heads, rotary_dim=width, interleaved=interleaved)
    return Case(op, inputs)


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize("interleaved", [False, True])
def test_rope(element: ElementType, interleaved: bool) -> None:
    case = rope_case(element, 10, interleaved=interleaved)
    x, cos, sin = case.inputs
    assert case.wrong(case.typed) == 0
    other = tpu.RopeOp(
        *of_arrays(*case.inputs), num_heads=3, rotary_dim=32, interleaved=not interleaved
    )
    assert case.wrong(float64.evaluate(other, case.inputs)[0]) > 0.5, "other pairs"
    assert case.wrong(float64.evaluate(case.op, [x, cos, -sin])[0]) > 0.5, "turned the other way"
    late = [x, np.roll(cos, 1, axis=0), np.roll(sin, 1, axis=0)]
    assert case.wrong(float64.evaluate(case.op, late)[0]) > 0.5, "positions are off by one"
    if element != F32:
        assert case.wrong(truncated(case.exact, element)) > 0.3, "truncated"
        narrow = [x, *(table.astype(element.dtype).astype(np.float32) for table in (cos, sin))]
        assert case.wrong(float64.evaluate(case.op, narrow)[0]) > 0.1, "16-bit tables"


def attention_case(
    element: ElementType, seed: int, *, heads: int = 4, groups: int = 2, masked: bool = True
) -> Case:
    positions, length, width = 12, 40, 16
    q, k, v = draw(
        element,
        seed,
        (positions, heads * width),
        (length, groups * width),
        (length, groups * width),
    )
    hidden = np.triu(np.ones((positions, length)), k=length - positions + 1)
    lowest = float(ml_dtypes.finfo(element.dtype).min)
    mask = np.where(hidden, lowest, 0.0).astype(element.dtype)
    inputs = [q, k, v, mask] if masked else [q, k, v]
    op = tpu.AttentionOp(*of_arrays(*inputs), num_heads=heads, num_kv_heads=groups, scale=0.25)
    return Case(op, inputs)


def online_attention(case: Case, element: ElementType, *, heads: int, groups: int) -> Array:
    """Over blocks of keys with a running maximum; the division comes last, as in FlashAttention."""
    q, k, v, mask = (array.astype(np.float32) for array in case.inputs)
    width = q.shape[1] // heads
    result = np.zeros_like(q)
    for head in range(heads):
        columns = slice(head * width, (head + 1) * width)
        first = head // (heads // groups) * width
        group = slice(first, first + width)
        highest = np.full((len(q), 1), -np.inf, np.float32)
        total, sums = np.zeros((len(q), 1), np.float32), np.zeros((len(q), width), np.float32)
        for block in (slice(0, 16), slice(16, 32), slice(32, 40)):
            scores = q[:, columns] @ k[block, group].T * np.float32(0.25) + mask[:, block]
            raised = np.maximum(highest, scores.max(axis=1, keepdims=True))
            powers = np.exp(scores - raised)
            decay = np.exp(highest - raised)
            total = total * decay + powers.sum(axis=1, keepdims=True)
            sums = sums * decay + round_to(powers, element).astype(np.float32) @ v[block, group]
            highest = raised
        result[:, columns] = sums / total
    return result


@pytest.mark.parametrize("element", FLOATS)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_attention_within(element: ElementType, seed: int) -> None:
    case = attention_case(element, seed)
    assert case.wrong(case.typed) == 0
    assert case.wrong(online_attention(case, element, heads=4, groups=2)) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_torch_attention_within(element: ElementType) -> None:
    case = attention_case(element, 11)
    q, k, v, mask = (to_torch(array) for array in case.inputs)
    split = [x.reshape(1, len(x), -1, 16).transpose(1, 2) for x in (q, k, v)]
    truth = F.scaled_dot_product_attention(*split, attn_mask=mask, scale=0.25, enable_gqa=True)
    assert case.wrong(from_torch(truth[0].transpose(0, 1).reshape(q.shape))) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_attention_faults_are_outside(element: ElementType) -> None:
    case = attention_case(element, 12)
    q, k, v, mask = case.inputs

    def again(inputs: Sequence[Array], **changes: Any) -> Array:
        attributes = {"num_heads": 4, "num_kv_heads": 2, "scale": 0.25} | changes
        op = tpu.AttentionOp(*of_arrays(*inputs), **attributes)
        return float64.evaluate(op, inputs)[0]

    assert case.wrong(again([q, k, v])) > 0.5, "no mask"
    assert case.wrong(again([q, k, v, np.roll(mask, 1, axis=1)])) > 0.3, "the mask is off by one"
    assert case.wrong(again([q, k, v, mask], scale=0.5)) > 0.7, "another scale"
    swapped = [np.roll(array, 16, axis=1) for array in (k, v)]
    assert case.wrong(again([q, *swapped, mask])) > 0.9, "another group"
    off = np.roll(case.exact, 16, axis=1)
    assert case.wrong(off) > 0.9, "heads are off by one"
    late = np.roll(v, 1, axis=0)
    assert case.wrong(again([q, k, late, mask])) > 0.8, "values are off by one"


# Element by element.


ELEMENTWISE = [
    tpu.SiLUOp,
    tpu.TanhOp,
    tpu.SigmoidOp,
    tpu.ExpOp,
    tpu.SqrtOp,
    tpu.RsqrtOp,
    tpu.ReciprocalOp,
    tpu.ErfOp,
    tpu.NegOp,
    tpu.AbsOp,
    tpu.ReluOp,
]


def any_values(element: ElementType, seed: int, count: int = 2000) -> Array:
    """Half of all magnitudes, infinities and NaN; half near 1."""
    rng = np.random.default_rng(seed)
    unsigned = {2: np.uint16, 4: np.uint32}[element.size_bytes]
    bits = rng.integers(0, np.iinfo(unsigned).max, count, dtype=unsigned).view(element.dtype)
    return np.concatenate([bits, (rng.standard_normal(count) * 4).astype(element.dtype)])


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize("op_class", ELEMENTWISE)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_functions_of_any_bits_within(
    element: ElementType, op_class: Callable[[SSAValue[Attribute]], Operation], seed: int
) -> None:
    x = any_values(element, seed)
    case = Case(op_class(*of_arrays(x)), [x])
    assert case.wrong(case.typed) == 0


def sigmoid_f32(x: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-x))


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_gelu_within(element: ElementType, approximate: str, seed: int) -> None:
    x = any_values(element, seed)
    op = tpu.GELUOp(of_arrays(x)[0], approximate)
    assert Case(op, [x]).wrong(Case(op, [x]).typed) == 0
    # The form with a sigmoid, and torch's.
    x = np.linspace(-9, 9, 1001).astype(element.dtype)
    case = Case(tpu.GELUOp(of_arrays(x)[0], approximate), [x])
    truth = F.gelu(to_torch(x), approximate=approximate)
    assert case.wrong(from_torch(truth)) == 0
    if approximate == "tanh":
        wide = x.astype(np.float32)
        inner = np.float32(0.79788456) * (np.float32(0.044715) * wide * wide + np.float32(1)) * wide
        assert case.wrong(wide * sigmoid_f32(2 * inner)) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_silu_within(element: ElementType) -> None:
    x = any_values(element, 13)
    x = x[np.isfinite(x.astype(np.float32))]
    case = Case(tpu.SiLUOp(*of_arrays(x)), [x])
    wide = x.astype(np.float32)
    assert case.wrong(wide * sigmoid_f32(wide)) == 0
    assert case.wrong(from_torch(F.silu(to_torch(x)))) == 0


@pytest.mark.parametrize("element", FLOATS)
def test_activation_faults_are_outside(element: ElementType) -> None:
    x = np.linspace(-3, 3, 1000).astype(element.dtype)
    silu = Case(tpu.SiLUOp(*of_arrays(x)), [x])
    by_erf = Case(tpu.GELUOp(of_arrays(x)[0], "none"), [x])
    by_tanh = Case(tpu.GELUOp(of_arrays(x)[0], "tanh"), [x])
    assert silu.wrong(by_erf.exact) > 0.9
    if element != BF16:
        assert by_erf.wrong(by_tanh.exact) > 0.3
        assert by_tanh.wrong(by_erf.exact) > 0.3
    if element != F32:
        for case in (silu, by_erf, by_tanh):
            assert case.wrong(truncated(case.exact, element)) > 0.3, "truncated"
        sigmoid = case.rounded(1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float64)
        assert silu.wrong(sigmoid * x.astype(np.float64)) > 0.1, "rounded before the product"


BINARY = [tpu.AddOp, tpu.SubOp, tpu.MulOp, tpu.DivOp, tpu.MaxOp, tpu.MinOp]


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize("op_class", BINARY)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_two_operands(
    element: ElementType,
    op_class: Callable[[SSAValue[Attribute], SSAValue[Attribute]], Operation],
    seed: int,
) -> None:
    a, b = any_values(element, seed), any_values(element, seed + 1)
    case = Case(op_class(*of_arrays(a, b)), [a, b])
    assert case.wrong(case.typed) == 0
    near = [array[2000:] for array in (a, b)]
    case = Case(op_class(*of_arrays(*near)), near)
    assert case.wrong(np.roll(case.exact, 1)) > 0.9, "off by one"
    inexact = op_class in (tpu.AddOp, tpu.SubOp, tpu.MulOp, tpu.DivOp)
    if inexact and element != F32:
        assert case.wrong(truncated(case.exact, element)) > 0.1, "truncated"


@pytest.mark.parametrize("element", FLOATS)
def test_constants_and_casts(element: ElementType) -> None:
    (x,) = draw(element, 14, (40, 40))
    for op in (tpu.AddConstOp(of_arrays(x)[0], 0.1), tpu.MulConstOp(of_arrays(x)[0], 0.1)):
        case = Case(op, [x])
        assert case.wrong(case.typed) == 0
        if element == F16:
            with np.errstate(all="ignore"):
                narrow = (
                    x + np.float16(0.1) if isinstance(op, tpu.AddConstOp) else x * np.float16(0.1)
                )
            assert case.wrong(narrow) > 0.05, "a constant of 16 bits"
    for other in FLOATS:
        case = Case(tpu.CastOp(of_arrays(x)[0], other), [x])
        assert case.wrong(case.typed) == 0
        if element == F32 and other != F32:
            assert case.wrong(truncated(case.exact, other)) > 0.4, "truncated"


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max", "min"])
def test_reductions(element: ElementType, mode: str) -> None:
    (x,) = draw(element, 15, (64, 300))
    case = Case(tpu.ReduceOp(of_arrays(x)[0], mode), [x])
    assert case.wrong(case.typed) == 0
    wide = x.astype(np.float32)
    if mode in ("sum", "mean"):
        total = sequential_sum(wide)
        assert case.wrong(total / np.float32(300) if mode == "mean" else total) == 0
        short = wide[:, :-16].sum(axis=-1, keepdims=True)
        assert case.wrong(short / 300 if mode == "mean" else short) > 0.8, "a part is missing"
    else:
        assert bound(case.op, case.inputs, case.exact) is None


# Ops that must be exact, overflow, and what has no bound.


def test_ops_that_move_data_are_exact() -> None:
    (x,) = draw(F16, 16, (6, 8))
    (value,) = of_arrays(x)
    indices = np.array([5, 0], np.int32)
    (rows,) = draw(F16, 17, (2, 8))
    ops = [
        (tpu.ReshapeOp(value, (8, 6)), [x]),
        (tpu.PermuteOp(value, (1, 0)), [x]),
        (tpu.SliceOp(value, offsets=(0, 1), sizes=(6, 7)), [x]),
        (tpu.ConcatOp([value, value], axis=0), [x, x]),
        (tpu.GatherOp(*of_arrays(x, indices)), [x, indices]),
        (tpu.CacheUpdateOp(*of_arrays(x, rows, indices)), [x, rows, indices]),
        (tpu.NegOp(value), [x]),
        (tpu.CastOp(value, F32), [x]),
    ]
    for op, inputs in ops:
        case = Case(op, inputs)
        assert bound(op, inputs, case.exact) is None
        assert case.wrong(case.typed) == 0
        neighbour = np.nextafter(case.typed, np.asarray(np.inf, case.typed.dtype))
        assert case.wrong(neighbour) == 1


def test_overflow() -> None:
    x = np.array([300.0, 200.0, -300.0, 255.9], np.float16)
    case = Case(tpu.MulOp(*of_arrays(x, np.abs(x))), [x, np.abs(x)])
    assert case.typed.tolist()[:3] == [np.inf, 40000, -np.inf]
    assert case.wrong(case.typed) == 0
    wrapped = case.typed.copy()
    wrapped[0] = 24464  # 90000 - 65536
    assert outside(wrapped, case.exact, bound(case.op, case.inputs, case.exact)).tolist()[0]
    assert case.wrong(-case.typed) == 1
    nan = np.full_like(case.typed, np.nan)
    assert outside(nan, case.exact, bound(case.op, case.inputs, case.exact))[1]


def test_nan_must_meet_nan() -> None:
    x = np.array([np.nan, 1.0, np.inf, 2.0], np.float16)
    case = Case(tpu.ExpOp(*of_arrays(x)), [x])
    assert case.wrong(case.typed) == 0
    assert case.wrong(np.nan_to_num(case.typed)) == 0.5
    assert case.wrong(np.full_like(x, np.nan)) == 0.75


def test_sums_that_overflow_f32_on_the_way_have_no_bound() -> None:
    x = np.full((1, 4), 2.0**100, BF16.dtype)
    w = np.array([[2.0**30, 2.0**30, -(2.0**30), -(2.0**30)]], BF16.dtype)
    op = tpu.MatMulOp(*of_arrays(x, w), right_transpose=True)
    limit = bound(op, [x, w], float64.evaluate(op, [x, w])[0])
    assert limit is not None
    assert np.isposinf(limit).all()
    assert Case(op, [x, w]).wrong(Case(op, [x, w]).typed) == 0


def test_weights_have_no_bound() -> None:
    op = tpu.WeightOp("w", (2, 2), F16)
    with pytest.raises(UnsupportedError, match=r"tpu\.Weight has no error bound"):
        bound(op, [], np.zeros((2, 2)))
