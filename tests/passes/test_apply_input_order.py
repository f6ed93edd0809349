"""Inputs follow weights that have them in another order; what shares an order shares the gather."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.dialects import top
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.errors import IRError
from tilewright.passes.apply_input_order import apply_input_order

Array = npt.NDArray[Any]

LAYERS = """
func.func private @layer(%x: tensor<3x8xf32>) -> tensor<3x8xf32> {
  %a = top.Weight "a.weight" : tensor<8x8xf32>
  %b = top.Weight "b.weight" : tensor<8x8xf32>
  %c = top.Weight "c.weight" : tensor<8x8xf32>
  %q = top.MatMul %x, %b {right_transpose} : tensor<3x8xf32>, tensor<8x8xf32> -> tensor<3x8xf32>
  %p = top.MatMul %x, %a {right_transpose} : tensor<3x8xf32>, tensor<8x8xf32> -> tensor<3x8xf32>
  %s = top.Add %p, %q : tensor<3x8xf32>, tensor<3x8xf32> -> tensor<3x8xf32>
  %y = top.MatMul %s, %c {right_transpose} : tensor<3x8xf32>, tensor<8x8xf32> -> tensor<3x8xf32>
  func.return %y : tensor<3x8xf32>
}
func.func @main(%x: tensor<3x8xf32>) -> tensor<3x8xf32> {
  %y = top.Call @layer(%x) {scopes = ["0.", "1."]} : (tensor<3x8xf32>) -> tensor<3x8xf32>
  func.return %y : tensor<3x8xf32>
}
"""
RNG = np.random.default_rng(0)
WEIGHTS = {f"{i}.{k}.weight": RNG.standard_normal((8, 8)) for i in "01" for k in "abc"}
X = RNG.standard_normal((3, 8))


def order(seed: int) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).permutation(8).astype(np.int32)


def run(module: ModuleOp, arrays: dict[str, Array]) -> Array:
    def weight(key: str, op: Operation) -> Array:
        return arrays[key]

    inputs = [X]
    return run_function(module, "main", inputs, weights=weight, states={}, semantics="float64")[0]


def reordered(orders: dict[str, npt.NDArray[np.int32]]) -> tuple[ModuleOp, Array]:
    """The module with gathers, and what it computes of weights with permuted columns."""
    module = parse_module(LAYERS, "layers")
    tables = apply_input_order(module, orders)
    verify_module(module)
    moved = {k: w[:, orders[k]] if k in orders else w for k, w in WEIGHTS.items()}
    return module, run(module, {**moved, **tables})


def gathers(module: ModuleOp) -> int:
    return sum(isinstance(op, top.GatherOp) for op in module.walk())


@pytest.mark.parametrize(
    ("orders", "count"),
    [
        ({}, 0),
        ({"0.a.weight": order(1)}, 1),
        ({"0.a.weight": order(1), "0.b.weight": order(1)}, 1),
        ({"0.a.weight": order(1), "0.b.weight": order(2)}, 2),
        ({"0.a.weight": order(1), "1.b.weight": order(1)}, 2),
        ({f"{i}.{k}.weight": order(int(i)) for i in "01" for k in "ab"}, 1),
        ({f"{i}.{k}.weight": order(int(i)) for i in "01" for k in "abc"}, 2),
    ],
)
def test_the_module_computes_the_same(orders: dict[str, npt.NDArray[np.int32]], count: int) -> None:
    module, result = reordered(orders)
    expected = run(parse_module(LAYERS, "layers"), WEIGHTS)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)
    assert gathers(module) == count


def test_layers_without_an_order_keep_their_inputs_as_they_are() -> None:
    tables = apply_input_order(parse_module(LAYERS, "layers"), {"1.c.weight": order(3)})
    assert tables["0.c.input_order"].tolist() == list(range(8))
    assert tables["1.c.input_order"].tolist() == order(3).tolist()


def test_a_weight_that_is_not_the_transposed_operand_of_a_product() -> None:
    text = LAYERS.replace("%x, %a {right_transpose}", "%x, %a")
    with pytest.raises(IRError, match="cannot be put in order"):
        apply_input_order(parse_module(text, "layers"), {"0.a.weight": order(1)})
