"""Every op of the DSL against torch or numpy, and the shapes it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as nn
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.compiler import dsl
from tilewright.dialects.element_types import I32
from tilewright.dialects.errors import IRError, UnsupportedError

Array = npt.NDArray[Any]


def no_weights(key: str, op: Operation) -> Array:
    raise KeyError(key)


def run(body: Callable[..., Any], *inputs: Array) -> list[Array]:
    """What `body` computes in float64; its arguments are called `a`, `b`, `c` as far as needed."""
    types = {
        name: dsl.i32(*x.shape) if x.dtype == np.int32 else dsl.f32(*x.shape)
        for name, x in zip("abc", inputs, strict=False)
    }
    module = dsl.trace(dsl.function(**types)(body))
    return run_function(
        module, body.__name__, inputs, weights=no_weights, states={}, semantics="float64"
    )


def random(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


A, ROW, COLUMN = random(3, 7), random(7), random(3, 1)
POSITIVE = np.abs(A) + 0.5

UNARY: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (dsl.silu, nn.silu),
    (dsl.gelu, nn.gelu),
    (lambda a: dsl.gelu(a, approximate="tanh"), lambda x: nn.gelu(x, approximate="tanh")),
    (dsl.tanh, torch.tanh),
    (dsl.sigmoid, torch.sigmoid),
    (dsl.exp, torch.exp),
    (dsl.sqrt, torch.sqrt),
    (dsl.rsqrt, torch.rsqrt),
    (dsl.reciprocal, torch.reciprocal),
    (dsl.absolute, torch.abs),
    (dsl.erf, torch.erf),
    (dsl.relu, torch.relu),
    (dsl.softmax, lambda x: torch.softmax(x, -1)),
    (lambda a: -a, torch.neg),
    (lambda a: a + 2, lambda x: x + 2),
    (lambda a: 2 + a, lambda x: 2 + x),
    (lambda a: a - 2, lambda x: x - 2),
    (lambda a: 2 - a, lambda x: 2 - x),
    (lambda a: a * 2.5, lambda x: x * 2.5),
    (lambda a: 2.5 * a, lambda x: 2.5 * x),
    (lambda a: a / 4, lambda x: x / 4),
    (lambda a: 4 / a, lambda x: 4 / x),
    (lambda a: dsl.reduce(a, "sum"), lambda x: x.sum(-1, keepdim=True)),
    (lambda a: dsl.reduce(a, "mean"), lambda x: x.mean(-1, keepdim=True)),
    (lambda a: dsl.reduce(a, "max"), lambda x: x.max(-1, keepdim=True).values),
    (lambda a: dsl.reduce(a, "min"), lambda x: x.min(-1, keepdim=True).values),
    (lambda a: a.reshape(7, -1), lambda x: x.reshape(7, -1)),
    (lambda a: a.permute(1, 0), lambda x: x.permute(1, 0)),
    (lambda a: a[1:, 2:5], lambda x: x[1:, 2:5]),
    (lambda a: a[..., -3:], lambda x: x[..., -3:]),
    (lambda a: a[:2], lambda x: x[:2]),
    (lambda a: dsl.concat([a, a[:, :2]], axis=-1), lambda x: torch.cat([x, x[:, :2]], -1)),
]


@pytest.mark.parametrize(("ours", "theirs"), UNARY)
def test_ops_of_one_tensor(ours: Callable[[Any], Any], theirs: Callable[[Any], Any]) -> None:
    def body(a: dsl.Tensor) -> dsl.Tensor:
        return ours(a)

    expected = theirs(torch.from_numpy(POSITIVE).double()).numpy()
    np.testing.assert_allclose(run(body, POSITIVE)[0], expected, rtol=1e-7)


BINARY: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b,
    lambda a, b: b + a,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: b * a,
    lambda a, b: a / b,
]


@pytest.mark.parametrize("b", [A[::-1].copy(), ROW, ROW[None], COLUMN])
@pytest.mark.parametrize("operator", BINARY)
def test_operators_broadcast(operator: Callable[[Any, Any], Any], b: Array) -> None:
    def body(a: dsl.Tensor, b: dsl.Tensor) -> dsl.Tensor:
        return operator(a, b)

    expected = operator(A.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(run(body, A, b)[0], expected, rtol=1e-12)


def test_maximum_and_minimum() -> None:
    def body(a: dsl.Tensor, b: dsl.Tensor) -> tuple[dsl.Tensor, dsl.Tensor]:
        return dsl.maximum(a, b), dsl.minimum(b, a)

    largest, smallest = run(body, A, ROW)
    np.testing.assert_array_equal(largest, np.maximum(A, ROW))
    np.testing.assert_array_equal(smallest, np.minimum(A, ROW))


def test_products() -> None:
    def body(
        a: dsl.Tensor, b: dsl.Tensor, c: dsl.Tensor
    ) -> tuple[dsl.Tensor, dsl.Tensor, dsl.Tensor]:
        return a @ b, dsl.linear(a, c, b[0:1].reshape(5)), a @ b + c[:, 0:1].reshape(5)

    a, b, c = random(3, 7), random(7, 5), random(5, 7)
    plain, linear, biased = run(body, a, b, c)
    wide = [x.astype(np.float64) for x in (a, b, c)]
    np.testing.assert_allclose(plain, wide[0] @ wide[1], rtol=1e-9)
    np.testing.assert_allclose(linear, wide[0] @ wide[2].T + wide[1][0], rtol=1e-9)
    np.testing.assert_allclose(biased, wide[0] @ wide[1] + wide[2][:, 0], rtol=1e-9)


@pytest.mark.parametrize("transpose", [False, True])
def test_batch_matmul(transpose: bool) -> None:
    def body(a: dsl.Tensor, b: dsl.Tensor) -> dsl.Tensor:
        return dsl.batch_matmul(a, b, right_transpose=transpose)

    a, b = random(2, 3, 4), random(2, 5, 4) if transpose else random(2, 4, 5)
    right = b.swapaxes(1, 2) if transpose else b
    expected = a.astype(np.float64) @ right
    np.testing.assert_allclose(run(body, a, b)[0], expected, rtol=1e-9)


def test_normalizations() -> None:
    def body(
        a: dsl.Tensor, b: dsl.Tensor, c: dsl.Tensor
    ) -> tuple[dsl.Tensor, dsl.Tensor, dsl.Tensor]:
        rms = dsl.rms_norm(a, b, eps=1e-5)
        return rms, dsl.layer_norm(a, b, c, eps=1e-5), dsl.layer_norm(a, eps=1e-5)

    rms, layer, plain = run(body, A, ROW, ROW + 1)
    x, w, b = (torch.from_numpy(v).double() for v in (A, ROW, ROW + 1))
    np.testing.assert_allclose(rms, nn.rms_norm(x, (7,), w, 1e-5), rtol=1e-6)
    np.testing.assert_allclose(layer, nn.layer_norm(x, (7,), w, b, 1e-5), rtol=1e-6)
    np.testing.assert_allclose(plain, nn.layer_norm(x, (7,), eps=1e-5), rtol=1e-6)


def test_attention_scales_by_the_head_size() -> None:
    def body(a: dsl.Tensor, b: dsl.Tensor, c: dsl.Tensor) -> dsl.Tensor:
        return dsl.attention(a, b, b, c, num_heads=4, num_kv_heads=2)

    q, k, mask = random(3, 12), random(5, 6), random(3, 5)
    heads = torch.from_numpy(q).double().reshape(3, 4, 3).transpose(0, 1)
    keys = torch.from_numpy(k).double().reshape(5, 2, 3).transpose(0, 1).repeat_interleave(2, 0)
    expected = nn.scaled_dot_product_attention(heads, keys, keys, torch.from_numpy(mask).double())
    np.testing.assert_allclose(
        run(body, q, k, mask)[0], expected.transpose(0, 1).reshape(3, 12), rtol=1e-6
    )


def test_lookups_and_casts() -> None:
    def body(a: dsl.Tensor, b: dsl.Tensor) -> tuple[dsl.Tensor, dsl.Tensor]:
        return dsl.gather(a, b), dsl.cast(b)

    indices = np.array([2, 0, 2], np.int32)
    rows, numbers = run(body, A, indices)
    np.testing.assert_array_equal(rows, A[indices])
    np.testing.assert_array_equal(numbers, [2.0, 0.0, 2.0])


WRONG: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("top.MatMul of f32[3, 7], f32[7]", lambda a, b: a @ b),
    ("top.MatMul of f32[3, 7], f32[3, 7]", lambda a, b: a @ a),
    ("top.Sub of f32[7], f32[3, 7]", lambda a, b: b - a),
    ("top.Add of f32[3, 7], f32[3, 2]", lambda a, b: a + a[:, :2]),
    ("top.Reshape of f32[3, 7]", lambda a, b: a.reshape(2, -1)),
    ("reshape of f32[3, 7] to [-1, -1]", lambda a, b: a.reshape(-1, -1)),
    ("top.Permute of f32[3, 7]", lambda a, b: a.permute(0, 0)),
    ("index None:8 into f32[3, 7] is out of range", lambda a, b: a[:, :8]),
    ("index 3:3 into f32[3, 7] selects nothing", lambda a, b: a[:, 3:3]),
    ("index 1 into f32[3, 7]", lambda a, b: a[1]),
    ("index slice(None, None, 2) into f32[3, 7]", lambda a, b: a[:, ::2]),
    ("3 indices into f32[3, 7]", lambda a, b: a[:, :, :]),
    ("concat of nothing", lambda a, b: dsl.concat([])),
    ("concat of f32[3, 7] along axis 2", lambda a, b: dsl.concat([a], axis=2)),
    ("an op of f32[3, 7], f32[7]", lambda a, b: dsl.concat([a, b])),
    ("top.Gather of f32[3, 7], f32[7]", lambda a, b: dsl.gather(a, b)),
    ("top.RMSNorm of f32[3, 7], f32[3]", lambda a, b: dsl.rms_norm(a, b[:3], eps=1e-5)),
    ("top.RMSNorm of f32[3, 7]", lambda a, b: dsl.rms_norm(a, eps=-1.0)),
    ("division by the number 0", lambda a, b: a / 0),
    ("top.Attention of", lambda a, b: dsl.attention(a, a, a, num_heads=0)),
    ("top.SiLU of i32[7]", lambda a, b: dsl.silu(dsl.cast(b, I32))),
]


@pytest.mark.parametrize(("message", "body"), WRONG)
def test_operands_that_do_not_go_together(message: str, body: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        dsl.trace(dsl.function(a=dsl.f32(3, 7), b=dsl.f32(7))(body))
    assert message in str(caught.value)
    assert f"test_ops.py:{body.__code__.co_firstlineno}:" in (caught.value.where or "")


def test_ops_outside_of_a_trace_are_refused() -> None:
    with pytest.raises(IRError, match="nothing is being traced"):
        dsl.relu(dsl.Parameter(3))


@pytest.mark.parametrize("make", [dsl.f32, dsl.i32, dsl.Parameter, dsl.State])
@pytest.mark.parametrize("shape", [(), (3, 0), (-1,)])
def test_shapes_are_static_and_not_empty(make: Callable[..., Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedError, match="sizes start at 1"):
        make(*shape)
