"""Marks on weights: exactly those that were asked for, in as few functions as that needs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from tilewright.dialects import top
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.scopes import functions_of, walk_calls
from tilewright.passes.specialize_weights import specialize_weights

MODEL = """
func.func private @mlp(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %w = top.Weight "mlp.w" : tensor<4x4xf32>
  %y = top.MatMul %x, %w : tensor<2x4xf32>, tensor<4x4xf32> -> tensor<2x4xf32>
  func.return %y : tensor<2x4xf32>
}
func.func private @layer(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %w = top.Weight "attn.w" : tensor<4x4xf32>
  %y = top.MatMul %x, %w : tensor<2x4xf32>, tensor<4x4xf32> -> tensor<2x4xf32>
  %z = top.Call @mlp(%y) {scopes = [""]} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %z : tensor<2x4xf32>
}
func.func @prefill(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %y = top.Call @layer(%x) {scopes = ["l.0.", "l.1.", "l.2.", "l.3."]} :
    (tensor<2x4xf32>) -> tensor<2x4xf32>
  %h = top.Weight "head" : tensor<4x4xf32>
  %z = top.MatMul %y, %h : tensor<2x4xf32>, tensor<4x4xf32> -> tensor<2x4xf32>
  func.return %z : tensor<2x4xf32>
}
func.func @decode(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %y = top.Call @layer(%x) {scopes = ["l.0.", "l.1.", "l.2.", "l.3."]} :
    (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %y : tensor<2x4xf32>
}
"""
KEYS = [*(f"l.{n}.{name}" for n in range(4) for name in ("attn.w", "mlp.w")), "head"]
ATTRIBUTES = ("top.quant", "top.scale")
MARKS = st.dictionaries(
    st.sampled_from(KEYS),
    st.dictionaries(st.sampled_from(ATTRIBUTES), st.sampled_from(("f16", "w8a16"))),
)


def specialized(marks: dict[str, dict[str, str]]) -> ModuleOp:
    module = parse_module(MODEL, "test.mlir")
    specialize_weights(module, marks)
    verify_module(module)
    return module


def weights(module: ModuleOp, function: str) -> list[tuple[str, dict[str, str]]]:
    """The resolved keys in the order in which they are read, and their marks."""
    return [
        (
            scope + op.key.data,
            {n: getattr(a, "data", "") for n, a in op.attributes.items() if n in ATTRIBUTES},
        )
        for op, scope in walk_calls(module, function)
        if isinstance(op, top.WeightOp)
    ]


@settings(deadline=None)
@given(MARKS)
def test_weights_have_their_marks_and_no_others(marks: dict[str, dict[str, str]]) -> None:
    plain, module = parse_module(MODEL, "test.mlir"), specialized(marks)
    for function in ("prefill", "decode"):
        expected = [(key, marks.get(key, {})) for key, _ in weights(plain, function)]
        assert weights(module, function) == expected


@settings(deadline=None)
@given(MARKS)
def test_there_is_a_function_for_each_pattern(marks: dict[str, dict[str, str]]) -> None:
    """Not for each layer."""

    def pattern(layer: int, *names: str) -> tuple[tuple[tuple[str, str], ...], ...]:
        return tuple(tuple(sorted(marks.get(f"l.{layer}.{n}", {}).items())) for n in names)

    layers = {pattern(layer, "attn.w", "mlp.w") for layer in range(4)}
    parts = {pattern(layer, "mlp.w") for layer in range(4)}
    functions = functions_of(specialized(marks))
    assert len(functions) == 2 + len(layers) + len(parts)


@pytest.mark.parametrize("marked", [1, 2])
def test_chains_are_split_where_the_variant_changes(marked: int) -> None:
    module = specialized({f"l.{marked}.mlp.w": {"top.quant": "w8a16"}})
    calls = [
        (op.callee.string_value(), op.scope_names)
        for op in functions_of(module)["decode"].walk()
        if isinstance(op, top.CallOp)
    ]
    assert [scope for _, scopes in calls for scope in scopes] == [f"l.{n}." for n in range(4)]
    callees = [callee for callee, _ in calls]
    assert callees == ["layer", "layer_variant_1", "layer"]
    assert all(a != b for a, b in itertools.pairwise(callees))


def test_an_only_clone_takes_over_the_name() -> None:
    every = {f"l.{n}.mlp.w": {"top.quant": "w8a16"} for n in range(4)}
    assert set(functions_of(specialized(every))) == {"mlp", "layer", "prefill", "decode"}
    mixed = {**every, "l.2.attn.w": {"top.quant": "f16"}}
    names = {"mlp", "layer_variant_1", "layer_variant_2", "prefill", "decode"}
    assert set(functions_of(specialized(mixed))) == names


def test_keys_that_no_function_reads_change_nothing() -> None:
    plain = str(parse_module(MODEL, "test.mlir"))
    assert str(specialized({"l.9.mlp.w": {"top.quant": "f16"}})) == plain
    assert str(specialized({"head": {}})) == plain
