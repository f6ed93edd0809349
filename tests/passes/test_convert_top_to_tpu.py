"""`convert-top-to-tpu` beyond its lit file: numbers, casts, specialization, options, locations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.dialects import graph, top, tpu
from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.graph import storage_of
from tilewright.dialects.scopes import functions_of, op_name, source_of, walk_calls
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.specialize_weights import specialize_weights

Array = npt.NDArray[Any]

MODEL = """
func.func private @block(%x: tensor<5x24xf32>, %cos: tensor<5x12xf32>, %sin: tensor<5x12xf32>)
    -> tensor<5x24xf32> {
  %norm = top.Weight "norm.weight" : tensor<24xf32>
  %h = top.RMSNorm %x weight %norm {eps = 1.000000e-05 : f32} :
    tensor<5x24xf32>, tensor<24xf32> -> tensor<5x24xf32>
  %w = top.Weight "up.weight" : tensor<40x24xf32>
  %b = top.Weight "up.bias" : tensor<40xf32>
  %u = top.MatMul %h, %w bias %b {right_transpose} :
    tensor<5x24xf32>, tensor<40x24xf32>, tensor<40xf32> -> tensor<5x40xf32>
  %s = top.SiLU %u : tensor<5x40xf32> -> tensor<5x40xf32>
  %v = top.Weight "down.weight" : tensor<40x24xf32>
  %d = top.MatMul %s, %v : tensor<5x40xf32>, tensor<40x24xf32> -> tensor<5x24xf32>
  %r = top.Rope %d cos %cos sin %sin
    {num_heads = 2 : i64, rotary_dim = 8 : i64, interleaved = false} :
    tensor<5x24xf32>, tensor<5x12xf32>, tensor<5x12xf32> -> tensor<5x24xf32>
  %y = top.Add %x, %r : tensor<5x24xf32>, tensor<5x24xf32> -> tensor<5x24xf32>
  func.return %y : tensor<5x24xf32>
}
func.func @main(%ids: tensor<5xi32>) -> tensor<5x30xf32> {
  %e = top.Weight "embed.weight" : tensor<30x24xf32>
  %x = top.Gather %e, %ids {top.role = "embedding"} :
    tensor<30x24xf32>, tensor<5xi32> -> tensor<5x24xf32>
  %cos = top.Weight "cos" : tensor<5x12xf32>
  %sin = top.Weight "sin" : tensor<5x12xf32>
  %0 = top.Call @block(%x, %cos, %sin) {scopes = ["layers.0."]} :
    (tensor<5x24xf32>, tensor<5x12xf32>, tensor<5x12xf32>) -> tensor<5x24xf32>
  %1 = top.Call @block(%0, %cos, %sin) {scopes = ["layers.1."]} :
    (tensor<5x24xf32>, tensor<5x12xf32>, tensor<5x12xf32>) -> tensor<5x24xf32>
  %2 = top.Call @block(%1, %cos, %sin) {scopes = ["layers.2."]} :
    (tensor<5x24xf32>, tensor<5x12xf32>, tensor<5x12xf32>) -> tensor<5x24xf32>
  %y = top.MatMul %2, %e {right_transpose, top.role = "head"} :
    tensor<5x24xf32>, tensor<30x24xf32> -> tensor<5x30xf32>
  func.return %y : tensor<5x30xf32>
}
"""
IDS = np.array([3, 29, 0, 3, 11], np.int32)


def convert(text: str, f32_scales: frozenset[str] = frozenset(), **options: Any) -> ModuleOp:
    """The verified tpu module of top IR text."""
    module = parse_module(text, "test.mlir")
    verify_module(module)
    specialize_weights(module, {key: {"top.scale": "f32"} for key in f32_scales})
    verify_module(module)
    ConvertTopToTpuPass(**options).apply(make_context(), module)
    verify_module(module)
    assert not [op for op in module.walk() if isinstance(op, top.TopOp)]
    return module


def source(key: str, shape: tuple[int, ...]) -> Array:
    """The values of a weight of the container."""
    generator = np.random.default_rng(sum(key.encode()))
    return generator.standard_normal(shape).astype(np.float32)


def quantized(values: Array) -> tuple[Array, Array]:
    """Codes and scales of `[N, K]`; the scales are powers of two, exact in every type."""
    scale = np.exp2(np.ceil(np.log2(np.abs(values).max(axis=1, keepdims=True) / 127)))
    return np.round(values / scale), scale


def run(module: ModuleOp, quantize: frozenset[str]) -> Array:
    """`main` of a top or tpu module in float64, with the weights `quantize` rounded to int8."""

    def weights(key: str, op: Operation) -> Array:
        assert isinstance(op, graph.Weight)
        shape = graph.shape_of(op.result)
        form = str(op.form.data) if isinstance(op, tpu.WeightOp) else "dense"
        name = key.rpartition(".")[0].rpartition(".")[2]
        if form == "dense":
            values = source(key, shape)
            if name not in quantize or values.ndim == 1:
                return values
            channels = values.T if name == "down" else values
            codes, scale = quantized(channels)
            return (codes * scale).T if name == "down" else codes * scale
        assert isinstance(op, tpu.WeightOp)
        stored = {"up": (40, 24), "down": (40, 24), "embed": (30, 24)}[name]
        values = source(key, stored)
        codes, scale = quantized(values.T if op.transposed is not None else values)
        return codes.astype(np.int8) if form == "codes" else scale

    return run_function(module, "main", [IDS], weights=weights, states={}, semantics="float64")[0]


@pytest.mark.parametrize("quant", ["f32", "f16", "bf16"])
def test_storage_types_do_not_change_what_is_computed(quant: str) -> None:
    before = run(parse_module(MODEL, "test.mlir"), frozenset())
    np.testing.assert_array_equal(run(convert(MODEL, quant=quant), frozenset()), before)


@pytest.mark.parametrize("act", ["f16", "bf16"])
@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, {"up", "down"}),
        ({"quant_head": True, "quant_embedding": True}, {"up", "down", "embed"}),
    ],
)
def test_quantized_layers_compute_with_the_rounded_weights(
    options: dict[str, Any], weights: set[str], act: str
) -> None:
    """Odd shapes, both orders of the matrix: the codes must meet their scales and their columns."""
    before = run(parse_module(MODEL, "test.mlir"), frozenset(weights))
    after = run(convert(MODEL, quant="w8a16", act=act, **options), frozenset(weights))
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_a_shared_matrix_may_be_quantized_for_one_use_only() -> None:
    module = convert(MODEL, quant="w8a16", quant_head=True)
    forms = [
        str(op.form.data)
        for op in functions_of(module)["main"].walk()
        if isinstance(op, tpu.WeightOp) and op.key.data == "embed.weight"
    ]
    assert forms == ["dense", "codes", "scale"]


def scale_types(module: ModuleOp) -> dict[str, ElementType]:
    """The scales' types by resolved key."""
    return {
        scope + op.key.data: storage_of(op.result)
        for op, scope in walk_calls(module, "main")
        if isinstance(op, tpu.WeightOp) and op.form.data == tpu.WeightForm.SCALE
    }


def test_layers_with_other_scale_types_get_a_function_of_their_own() -> None:
    marked = frozenset({"layers.1.up.weight", "layers.2.up.weight", "elsewhere.weight"})
    module = convert(MODEL, marked)
    types = scale_types(module)
    assert {key for key, element in types.items() if element == F32} == marked & set(types)
    assert len(types) == 6
    assert len(functions_of(module)) == 3


def test_functions_that_nothing_calls_any_more_are_removed() -> None:
    keys = frozenset(f"layers.{i}.{name}.weight" for i in range(3) for name in ("up", "down"))
    module = convert(MODEL, keys, act="bf16")
    assert set(scale_types(module).values()) == {F32}
    assert len(functions_of(module)) == 2


def test_scales_have_the_activation_type() -> None:
    assert set(scale_types(convert(MODEL)).values()) == {F16}
    assert set(scale_types(convert(MODEL, act="bf16")).values()) == {BF16}


def test_specialization_goes_through_nested_calls() -> None:
    text = """
    func.func private @inner(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
      %w = top.Weight "w" : tensor<8x8xf32>
      %y = top.MatMul %x, %w : tensor<2x8xf32>, tensor<8x8xf32> -> tensor<2x8xf32>
      func.return %y : tensor<2x8xf32>
    }
    func.func private @outer(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
      %y = top.Call @inner(%x) {scopes = ["a."]} : (tensor<2x8xf32>) -> tensor<2x8xf32>
      %z = top.Call @inner(%y) {scopes = ["b."]} : (tensor<2x8xf32>) -> tensor<2x8xf32>
      func.return %z : tensor<2x8xf32>
    }
    func.func @main(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
      %y = top.Call @outer(%x) {scopes = ["0."]} : (tensor<2x8xf32>) -> tensor<2x8xf32>
      %z = top.Call @outer(%y) {scopes = ["1."]} : (tensor<2x8xf32>) -> tensor<2x8xf32>
      func.return %z : tensor<2x8xf32>
    }
    """
    types = scale_types(convert(text, frozenset({"1.b.w"})))
    assert types == {"0.a.w": F16, "0.b.w": F16, "1.a.w": F16, "1.b.w": F32}


def test_a_table_that_is_also_computed_with_is_cast_for_it() -> None:
    text = """
    func.func @main(%x: tensor<5x12xf32>, %cos: tensor<5x12xf32>) -> tensor<5x12xf32> {
      %y = top.Rope %x cos %cos sin %cos
        {num_heads = 1 : i64, rotary_dim = 4 : i64, interleaved = true} :
        tensor<5x12xf32>, tensor<5x12xf32>, tensor<5x12xf32> -> tensor<5x12xf32>
      %z = top.Mul %y, %cos : tensor<5x12xf32>, tensor<5x12xf32> -> tensor<5x12xf32>
      %a = top.Add %z, %cos : tensor<5x12xf32>, tensor<5x12xf32> -> tensor<5x12xf32>
      func.return %a : tensor<5x12xf32>
    }
    """
    module = convert(text, quant="f16")
    main = functions_of(module)["main"]
    assert [storage_of(argument) for argument in main.body.block.args] == [F16, F32]
    names = [op.name for op in main.body.block.ops]
    assert names == ["tpu.Rope", "tpu.Cast", "tpu.Mul", "tpu.Add", "func.return"]


def test_a_computed_table_is_cast_to_f32() -> None:
    text = """
    func.func @main(%x: tensor<5x12xf32>) -> tensor<5x12xf32> {
      %c = top.Tanh %x : tensor<5x12xf32> -> tensor<5x12xf32>
      %y = top.Rope %x cos %c sin %c
        {num_heads = 1 : i64, rotary_dim = 4 : i64, interleaved = true} :
        tensor<5x12xf32>, tensor<5x12xf32>, tensor<5x12xf32> -> tensor<5x12xf32>
      func.return %y : tensor<5x12xf32>
    }
    """
    main = functions_of(convert(text, quant="bf16"))["main"]
    names = [op.name for op in main.body.block.ops]
    assert names == ["tpu.Tanh", "tpu.Cast", "tpu.Rope", "func.return"]


def test_locations_and_names_are_kept_and_roles_are_not() -> None:
    text = """
    func.func @main(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
      %w = top.Weight "w" : tensor<8x8xf32> loc("w"("m.py":1:2))
      %logits = top.MatMul %x, %w {top.role = "head"} :
        tensor<2x8xf32>, tensor<8x8xf32> -> tensor<2x8xf32> loc("head"("m.py":3:4))
      func.return %logits : tensor<2x8xf32>
    }
    """
    module = convert(text, quant="w8a16", quant_head=True)
    ops = list(functions_of(module)["main"].body.block.ops)
    assert [(op_name(op), source_of(op)) for op in ops[:3]] == [
        ("w", "m.py:1"),
        ("w", "m.py:1"),
        ("head", "m.py:3"),
    ]
    assert ops[2].results[0].name_hint == "logits"
    assert not ops[2].attributes


@pytest.mark.parametrize("options", [{"quant": "int3"}, {"quant": "w8a16", "act": "f32"}])
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        convert(MODEL, **options)
