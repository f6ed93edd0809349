"""The executor: calls under scopes, states, and the memory that it holds."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.parser import Parser

from tilewright.backends.reference.executor import run_function
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import element_by_name
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.graph import shape_of
from tilewright.dialects.tpu import WeightForm, WeightOp

Array = NDArray[Any]

pytestmark = pytest.mark.filterwarnings("error")

LAYERS = """
func.func private @mlp(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  %w = top.Weight "w" : tensor<8x8xf32>
  %y = top.MatMul %x, %w {right_transpose} :
    tensor<2x8xf32>, tensor<8x8xf32> -> tensor<2x8xf32>
  %z = top.SiLU %y : tensor<2x8xf32> -> tensor<2x8xf32>
  func.return %z : tensor<2x8xf32>
}
func.func private @layer(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  %y = top.Call @mlp(%x) {scopes = ["mlp."]} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %z = top.Add %x, %y : tensor<2x8xf32>, tensor<2x8xf32> -> tensor<2x8xf32>
  func.return %z : tensor<2x8xf32>
}
func.func @main(%x: tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %a = top.Call @layer(%x) {scopes = ["layers.0."]} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %b = top.Call @layer(%a) {scopes = ["layers.1."]} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  func.return %b, %a : tensor<2x8xf32>, tensor<2x8xf32>
}
"""

CACHE = """
func.func private @write(%cache: tensor<4x2x{T}>, %rows: tensor<1x2x{T}>, %at: tensor<1xi32>)
    -> tensor<4x2x{T}> {
  %new = {D}.CacheUpdate %cache, %rows at %at :
    tensor<4x2x{T}>, tensor<1x2x{T}>, tensor<1xi32> -> tensor<4x2x{T}>
  func.return %new : tensor<4x2x{T}>
}
func.func private @layer(%rows: tensor<1x2x{T}>, %at: tensor<1xi32>) -> tensor<4x2x{T}> {
  %cache = {D}.State "k_cache" : tensor<4x2x{T}>
  %new = {D}.Call @write(%cache, %rows, %at) {scopes = [""]} :
    (tensor<4x2x{T}>, tensor<1x2x{T}>, tensor<1xi32>) -> tensor<4x2x{T}>
  %twice = {D}.MulConst %new {value = 2.0 : f32} : tensor<4x2x{T}> -> tensor<4x2x{T}>
  func.return %twice : tensor<4x2x{T}>
}
func.func @decode(%rows: tensor<1x2x{T}>, %at: tensor<1xi32>)
    -> (tensor<4x2x{T}>, tensor<4x2x{T}>) {
  %a = {D}.Call @layer(%rows, %at) {scopes = ["0."]} :
    (tensor<1x2x{T}>, tensor<1xi32>) -> tensor<4x2x{T}>
  %b = {D}.Call @layer(%rows, %at) {scopes = ["1."]} :
    (tensor<1x2x{T}>, tensor<1xi32>) -> tensor<4x2x{T}>
  func.return %a, %b : tensor<4x2x{T}>, tensor<4x2x{T}>
}
"""

QUANTIZED = """
func.func @main(%ids: tensor<3xi32>) -> tensor<3x4xf32> {
  %codes = tpu.Weight codes "embedding" : tensor<5x8xi8>
  %scale = tpu.Weight scale "embedding" : tensor<5x1xf16>
  %x = tpu.W8A16Gather %codes scale %scale, %ids :
    tensor<5x8xi8>, tensor<5x1xf16>, tensor<3xi32> -> tensor<3x8xf16>
  %w = tpu.Weight dense "head" : tensor<8x4xf16>
  %y = tpu.MatMul %x, %w : tensor<3x8xf16>, tensor<8x4xf16> -> tensor<3x4xf32>
  func.return %y : tensor<3x4xf32>
}
"""


def parse(text: str) -> ModuleOp:
    module = Parser(make_context(), text).parse_module()
    module.verify()
    return module


def cache_module(dialect: str, element: str) -> ModuleOp:
    return parse(CACHE.replace("{D}", dialect).replace("{T}", element))


def no_weights(key: str, op: Operation) -> Array:
    raise AssertionError(f"{key} is not asked for")


def layer_weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {f"layers.{i}.mlp.w": rng.standard_normal((8, 8)).astype(np.float32) for i in range(2)}


def test_calls_resolve_keys_under_their_scopes() -> None:
    weights = layer_weights()
    asked: list[str] = []

    def read(key: str, op: Operation) -> Array:
        asked.append(key)
        return weights[key]

    x = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    last, first = run_function(
        parse(LAYERS), "main", [x], weights=read, states={}, semantics="float64"
    )
    assert asked == ["layers.0.mlp.w", "layers.1.mlp.w"]
    assert last.dtype == np.float64
    truth = torch.from_numpy(x).double()
    outputs: list[Array] = []
    for key in asked:
        truth = truth + F.silu(F.linear(truth, torch.from_numpy(weights[key]).double()))
        outputs.append(truth.numpy())
    np.testing.assert_allclose(first, outputs[0], rtol=1e-12)
    np.testing.assert_allclose(last, outputs[1], rtol=1e-12)


def test_every_op_is_observed_with_its_scope() -> None:
    weights = layer_weights()
    seen: list[tuple[str, str]] = []

    def observe(
        op: Operation, scope: str, inputs: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        seen.append((op.name, scope))
        assert [array.shape for array in inputs] == [shape_of(value) for value in op.operands]
        assert outputs[0].dtype == np.float32

    x = np.ones((2, 8), np.float32)
    run_function(
        parse(LAYERS),
        "main",
        [x],
        weights=lambda key, op: weights[key],
        states={},
        semantics="typed",
        on_op=observe,
    )
    assert seen == [
        ("top.MatMul", "layers.0.mlp."),
        ("top.SiLU", "layers.0.mlp."),
        ("top.Add", "layers.0."),
        ("top.MatMul", "layers.1.mlp."),
        ("top.SiLU", "layers.1.mlp."),
        ("top.Add", "layers.1."),
    ]


@pytest.mark.parametrize("semantics", ["float64", "typed"])
@pytest.mark.parametrize(("dialect", "element"), [("top", "f32"), ("tpu", "f16"), ("tpu", "bf16")])
def test_states_live_from_run_to_run(semantics: Any, dialect: str, element: str) -> None:
    module = cache_module(dialect, element)
    states: dict[str, Array] = {}

    def decode(value: float, position: int) -> list[Array]:
        rows = np.full((1, 2), value, np.float32)
        if semantics == "typed":
            rows = rows.astype(element_by_name(element).dtype)
        at = np.array([position], np.int32)
        return run_function(
            module, "decode", [rows, at], weights=no_weights, states=states, semantics=semantics
        )

    a, b = decode(1.5, 2)
    assert sorted(states) == ["0.k_cache", "1.k_cache"]
    key_cache = states["0.k_cache"]
    assert key_cache.dtype == a.dtype
    assert key_cache[2].tolist() == [1.5, 1.5]
    # What nothing has written is undefined.
    assert np.isnan(key_cache[[0, 1, 3]].astype(np.float32)).all()
    for row in (0, 1, 3):
        decode(row, row)
    assert states["0.k_cache"] is key_cache
    states["1.k_cache"][:] = 0
    a, b = decode(7, 3)
    assert a[:, 0].tolist() == [0, 2, 3, 14]
    assert b[:, 0].tolist() == [0, 0, 0, 14]


def test_given_states_are_widened_for_float64() -> None:
    states: dict[str, Array] = {f"{i}.k_cache": np.ones((4, 2), np.float16) for i in range(2)}
    module = cache_module("tpu", "f16")
    rows, at = np.full((1, 2), 1 / 3), np.array([0], np.int32)
    run_function(
        module, "decode", [rows, at], weights=no_weights, states=states, semantics="float64"
    )
    assert states["0.k_cache"].dtype == np.float64
    assert states["0.k_cache"][:, 0].tolist() == [1 / 3, 1, 1, 1]


def test_an_update_of_no_state_leaves_its_operand() -> None:
    module = cache_module("top", "f32")
    cache, rows = np.zeros((4, 2), np.float32), np.ones((1, 2), np.float32)
    inputs = [cache, rows, np.array([1], np.int32)]
    (new,) = run_function(module, "write", inputs, weights=no_weights, states={}, semantics="typed")
    assert new[1].tolist() == [1, 1]
    assert not cache.any()


def test_quantized_weights_come_in_their_forms() -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(-127, 128, (5, 8)).astype(np.int8)
    scale = (rng.random((5, 1)) / 100).astype(np.float16)
    head = rng.standard_normal((8, 4)).astype(np.float16)

    def weights(key: str, op: Operation) -> Array:
        assert isinstance(op, WeightOp)
        return {WeightForm.CODES: codes, WeightForm.SCALE: scale, WeightForm.DENSE: head}[
            op.form.data
        ]

    ids = np.array([4, 0, 4], np.int32)
    rows = (codes * scale.astype(np.float32)).astype(np.float16)[ids]
    truth = rows.astype(np.float64) @ head.astype(np.float64)
    module = parse(QUANTIZED)
    for semantics in ("float64", "typed"):
        (result,) = run_function(
            module, "main", [ids], weights=weights, states={}, semantics=semantics
        )
        assert result.dtype == (np.float64 if semantics == "float64" else np.float32)
        np.testing.assert_allclose(result, truth, rtol=1e-12 if semantics == "float64" else 1e-5)


def test_dead_values_are_freed() -> None:
    links = 20
    ops = [f"%{i + 1} = top.Exp %{i} : tensor<64xf32> -> tensor<64xf32>" for i in range(1, links)]
    text = "\n".join(
        [
            "func.func @main(%0: tensor<64xf32>) -> tensor<64xf32> {",
            "%1 = top.Neg %0 : tensor<64xf32> -> tensor<64xf32>",
            *ops,
            f"func.return %{links} : tensor<64xf32>",
            "}",
        ]
    )
    alive: list[weakref.ref[Any]] = []
    most = 0

    def observe(
        op: Operation, scope: str, inputs: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        nonlocal most
        alive.append(weakref.ref(outputs[0]))
        most = max(most, sum(reference() is not None for reference in alive))

    run_function(
        parse(text),
        "main",
        [np.zeros(64, np.float32)],
        weights=no_weights,
        states={},
        semantics="typed",
        on_op=observe,
    )
    assert len(alive) == links
    assert most == 2


def run_layers(
    *, name: str = "main", inputs: Sequence[Array] | None = None, weight: Array | None = None
) -> list[Array]:
    x = np.ones((2, 8), np.float32)
    w = np.ones((8, 8), np.float32) if weight is None else weight
    return run_function(
        parse(LAYERS),
        name,
        [x] if inputs is None else inputs,
        weights=lambda key, op: w,
        states={},
        semantics="typed",
    )


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(IRError, match="there is no function @mian"):
        run_layers(name="mian")
    with pytest.raises(OptionError, match="@main takes 1 inputs, not 0"):
        run_layers(inputs=[])
    with pytest.raises(OptionError, match=r"input 0 of @main is float32\[8\], not f32\[2, 8\]"):
        run_layers(inputs=[np.ones(8, np.float32)])
    with pytest.raises(
        OptionError, match=r"weight 'layers\.0\.mlp\.w' is float16\[8, 8\], not f32"
    ):
        run_layers(weight=np.ones((8, 8), np.float16))
    with pytest.raises(OptionError, match="unknown semantics 'f64'"):
        run_function(parse(LAYERS), "main", [], weights=no_weights, states={}, semantics="f64")  # pyright: ignore[reportArgumentType]


def test_states_must_fit() -> None:
    inputs = [np.ones((1, 2), np.float16), np.array([0], np.int32)]
    states: dict[str, Array] = {"0.k_cache": np.ones((4, 3), np.float16)}
    with pytest.raises(
        OptionError, match=r"state '0\.k_cache' is float16\[4, 3\], not float16\[4, 2\]"
    ):
        run_function(
            cache_module("tpu", "f16"),
            "decode",
            inputs,
            weights=no_weights,
            states=states,
            semantics="typed",
        )


def test_an_index_outside_names_the_op() -> None:
    def weights(key: str, op: Operation) -> Array:
        codes = isinstance(op, WeightOp) and op.form.data == WeightForm.CODES
        return np.ones(shape_of(op.results[0]), np.int8 if codes else np.float16)

    ids = np.array([0, 5, 1], np.int32)
    with pytest.raises(OptionError, match="index 5 is outside of the 5 rows") as raised:
        run_function(parse(QUANTIZED), "main", [ids], weights=weights, states={}, semantics="typed")
    assert raised.value.where is not None
    assert "tpu.W8A16Gather" in raised.value.where


def test_recursion_is_refused() -> None:
    text = """
    func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
      %y = top.Call @main(%x) {scopes = [""]} : (tensor<2xf32>) -> tensor<2xf32>
      func.return %y : tensor<2xf32>
    }
    """
    with pytest.raises(IRError, match="@main calls itself"):
        run_function(
            parse(text),
            "main",
            [np.ones(2, np.float32)],
            weights=no_weights,
            states={},
            semantics="typed",
        )
