"""Folds keep the function of a model, and are found only where they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import TINY_CHATGLM, TINY_LLAMA, model_of, random_weights
from tests.passes.tuning.memory import MemoryWeights

from tilewright.backends.reference.executor import run_function
from tilewright.dialects.context import make_context, parse_module
from tilewright.passes.registry import PASSES
from tilewright.passes.tuning.data import TuningData
from tilewright.passes.tuning.folds import Fold, find_folds
from tilewright.passes.tuning.layers import linear_layers
from tilewright.passes.tuning.rescaling import apply_fold

Array = npt.NDArray[Any]
SEQ = 8


def outputs(module: Any, weights: dict[str, Array]) -> list[Array]:
    """Prefill, then decode on the caches that it has left, in float64."""
    rng = np.random.default_rng(5)
    states: dict[str, Array] = {}
    mask = np.triu(np.full((SEQ, SEQ), -1e4, np.float32), 1)
    ids = rng.integers(0, 100, SEQ).astype(np.int32)
    positions = np.arange(SEQ, dtype=np.int32)

    def run(name: str, inputs: list[Array]) -> list[Array]:
        return run_function(
            module,
            name,
            inputs,
            weights=lambda key, op: weights[key],
            states=states,
            semantics="float64",
        )

    first = run("prefill", [ids, positions, mask, np.array([SEQ - 2], np.int32)])
    second = run("decode", [ids[:1], positions[-1:], mask[-1:]])
    return [*first, *second]


def data_on(weights: dict[str, Array]) -> TuningData:
    return TuningData(MemoryWeights(dict(weights)), lambda key: None, lambda key: "w4a16-channel")


@pytest.mark.parametrize("config", [TINY_CHATGLM, TINY_LLAMA], ids=["chatglm", "llama"])
@pytest.mark.parametrize("passes", [(), ("fuse-silu", "fuse-swiglu")], ids=["plain", "fused"])
def test_every_fold_of_a_model_keeps_its_function(
    config: dict[str, Any], passes: tuple[str, ...]
) -> None:
    """Norms, gate and up in one matrix or two, shared key and value heads, caches, biases: with
    weights in float64 and factors from 1/30 to 30 the logits agree to 1e-12."""
    model = model_of(config, SEQ)
    module = model.trace()
    for name in passes:
        PASSES[name]()().apply(make_context(), module)
    weights = {key: array.astype(np.float64) for key, array in random_weights(model).items()}
    expected = outputs(module, weights)
    folds = find_folds(module)
    kinds = [fold.kind for fold in folds]
    layers = model.summary.layers
    assert [kinds.count(kind) for kind in ("norm", "attention", "product")] == [
        2 * layers + 1,
        layers,
        layers,
    ]
    data, rng = data_on(weights), np.random.default_rng(6)
    for fold in folds:
        factor = np.exp(rng.uniform(-3.4, 3.4, fold.classes))
        apply_fold(fold, factor, linear_layers(module, data), data)
    assert isinstance(data.weights, MemoryWeights)
    changed = [key for key in weights if not np.array_equal(weights[key], data.weights.arrays[key])]
    assert len(changed) > 5 * layers
    for made, wanted in zip(outputs(module, data.weights.arrays), expected, strict=True):
        assert np.max(np.abs(made - wanted)) < 1e-12 * np.max(np.abs(wanted))


def test_in_f32_each_weight_is_rounded_once() -> None:
    model = model_of(TINY_LLAMA, SEQ)
    module, weights = model.trace(), random_weights(model)
    fold = find_folds(module)[0]
    data = data_on(weights)
    factor = np.exp(np.random.default_rng(7).uniform(-1, 1, fold.classes))
    apply_fold(fold, factor, linear_layers(module, data), data)
    key = fold.consumers[0]
    exact = weights[key].astype(np.float64) * factor
    made = data.weights.read(key)
    assert made.dtype == np.float32
    assert np.all(np.abs(made - exact) <= np.abs(exact) * 2.0**-24)
    np.testing.assert_array_equal(data.input_scales[key], factor)


FUNCTION = """
func.func @f(%x: tensor<4x8xf32>) -> {results} {{
  %g = top.Weight "g" : tensor<8xf32>
  %h = top.RMSNorm %x weight %g {{eps = 1.0e-05 : f32}} :
    tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  %w = top.Weight "w" : tensor<6x8xf32>
  %y = top.MatMul %h, %w {{right_transpose}} :
    tensor<4x8xf32>, tensor<6x8xf32> -> tensor<4x6xf32>
  {body}
}}
"""


def folds_of(results: str, body: str, more: str = "") -> list[Fold]:
    return find_folds(parse_module(FUNCTION.format(results=results, body=body) + more, "test"))


def test_a_norm_before_a_layer() -> None:
    (fold,) = folds_of("tensor<4x6xf32>", "func.return %y : tensor<4x6xf32>")
    assert (fold.kind, fold.consumers, fold.producers[0].key) == ("norm", ("w",), "g")


@pytest.mark.parametrize(
    "body",
    [
        "func.return %y, %h : tensor<4x6xf32>, tensor<4x8xf32>",
        """%z = top.Add %h, %x : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
        func.return %y, %z : tensor<4x6xf32>, tensor<4x8xf32>""",
        """%z = top.Mul %x, %g : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
        func.return %y, %z : tensor<4x6xf32>, tensor<4x8xf32>""",
        """%z = top.MatMul %y, %w : tensor<4x6xf32>, tensor<6x8xf32> -> tensor<4x8xf32>
        func.return %y, %z : tensor<4x6xf32>, tensor<4x8xf32>""",
    ],
    ids=["returned", "added", "the weight of the norm read elsewhere", "the matrix read elsewhere"],
)
def test_nothing_else_may_read_what_changes(body: str) -> None:
    assert folds_of("(tensor<4x6xf32>, tensor<4x8xf32>)", body) == []


def test_nor_may_another_function() -> None:
    body = "func.return %y : tensor<4x6xf32>"
    other = """
    func.func @other(%i: tensor<2xi32>) -> tensor<2x8xf32> {
      %t = top.Weight "w" : tensor<6x8xf32>
      %r = top.Gather %t, %i : tensor<6x8xf32>, tensor<2xi32> -> tensor<2x8xf32>
      func.return %r : tensor<2x8xf32>
    }
    """
    assert folds_of("tensor<4x6xf32>", body, other) == []


def test_slices_that_overlap_are_no_rows_of_their_own() -> None:
    text = """
    func.func @f(%x: tensor<4x8xf32>) -> tensor<4x6xf32> {{
      %w = top.Weight "w" : tensor<12x8xf32>
      %h = top.MatMul %x, %w {{right_transpose}} :
        tensor<4x8xf32>, tensor<12x8xf32> -> tensor<4x12xf32>
      %a = top.Slice %h {{offsets = array<i64: 0, {first}>}} : tensor<4x12xf32> -> tensor<4x6xf32>
      %b = top.Slice %h {{offsets = array<i64: 0, 6>}} : tensor<4x12xf32> -> tensor<4x6xf32>
      %s = top.SiLU %a : tensor<4x6xf32> -> tensor<4x6xf32>
      %m = top.Mul %s, %b : tensor<4x6xf32>, tensor<4x6xf32> -> tensor<4x6xf32>
      %d = top.Weight "d" : tensor<6x6xf32>
      %y = top.MatMul %m, %d : tensor<4x6xf32>, tensor<6x6xf32> -> tensor<4x6xf32>
      func.return %y : tensor<4x6xf32>
    }}
    """
    (fold,) = find_folds(parse_module(text.format(first=0), "test"))
    assert (fold.kind, fold.producers[0].start) == ("product", 6)
    assert find_folds(parse_module(text.format(first=3), "test")) == []
