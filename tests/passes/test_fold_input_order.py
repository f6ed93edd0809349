"""Orders of inputs that rows of weights take over: where they may, and where a gather stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.dialects.context import parse_module
from tilewright.passes.apply_input_order import apply_input_order
from tilewright.passes.fold_input_order import fold_input_order

Array = npt.NDArray[Any]

SEPARATE = """
  %g = top.MatMul %x, %gate {right_transpose} : tensor<3x4xf32>, tensor<8x4xf32> -> tensor<3x8xf32>
  %u = top.MatMul %x, %up {right_transpose} : tensor<3x4xf32>, tensor<8x4xf32> -> tensor<3x8xf32>
"""
FUSED = """
  %w = top.Weight "fused" : tensor<16x4xf32>
  %f = top.MatMul %x, %w {right_transpose} : tensor<3x4xf32>, tensor<16x4xf32> -> tensor<3x16xf32>
  %g = top.Slice %f {offsets = array<i64: 0, 0>} : tensor<3x16xf32> -> tensor<3x8xf32>
  %u = top.Slice %f {offsets = array<i64: 0, 8>} : tensor<3x16xf32> -> tensor<3x8xf32>
"""
END = """
  %a = top.SiLU %g : tensor<3x8xf32> -> tensor<3x8xf32>
  %h = top.Mul %a, %u : tensor<3x8xf32>, tensor<3x8xf32> -> tensor<3x8xf32>
  %y = top.MatMul %h, %down {right_transpose} :
    tensor<3x8xf32>, tensor<4x8xf32> -> tensor<3x4xf32>
"""
SHAPES = {"gate": (8, 4), "up": (8, 4), "down": (4, 8), "fused": (16, 4)}
ORDERS = {"down": np.array([3, 1, 4, 0, 5, 2, 6, 7], np.int32)}


def text(products: str, end: str = END, result: str = "y", shape: str = "3x4") -> str:
    weights = "".join(
        f'  %{key} = top.Weight "{key}" : tensor<{SHAPES[key][0]}x{SHAPES[key][1]}xf32>\n'
        for key in ("gate", "up", "down")
    )
    return (
        f"func.func @main(%x: tensor<3x4xf32>) -> tensor<{shape}xf32> {{\n{weights}{products}{end}"
        f"  func.return %{result} : tensor<{shape}xf32>\n}}"
    )


def run(module: Any, arrays: dict[str, Array]) -> Array:
    def weight(key: str, op: Operation) -> Array:
        return arrays[key]

    x = np.random.default_rng(1).standard_normal((3, 4))
    return run_function(module, "main", [x], weights=weight, states={}, semantics="float64")[0]


@pytest.mark.parametrize(
    ("products", "moved"), [(SEPARATE, {"gate", "up"}), (FUSED, {"fused"})], ids=["two", "one"]
)
def test_rows_take_the_order_over(products: str, moved: set[str]) -> None:
    rng = np.random.default_rng(0)
    weights = {key: rng.standard_normal(shape) for key, shape in SHAPES.items()}
    module = parse_module(text(products), "mlp")
    expected = run(module, weights)
    folded = fold_input_order(module, ORDERS, SHAPES)
    assert set(folded.rows) == moved
    assert not folded.left
    changed = {**weights, "down": weights["down"][:, ORDERS["down"]]}
    for key, rows in folded.rows.items():
        changed[key] = weights[key][rows]
    np.testing.assert_allclose(run(module, changed), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("source", "movable"),
    [
        (text(SEPARATE), {"gate"}),
        (text(SEPARATE.replace("%x, %up", "%x, %gate")), set(SHAPES)),
        (text(SEPARATE, END, "g", "3x8"), set(SHAPES)),
        (text(FUSED, END, "f", "3x16"), set(SHAPES)),
        (text(SEPARATE, END.replace("%a, %u ", "%a, %a ")), set(SHAPES)),
        (text(FUSED.replace("i64: 0, 8", "i64: 0, 4")), set(SHAPES)),
        (text(SEPARATE, END.replace("top.SiLU", "top.Softmax")), set(SHAPES)),
    ],
    ids=[
        "not-movable",
        "read-twice",
        "other-use",
        "whole",
        "squared",
        "overlap",
        "not-elementwise",
    ],
)
def test_a_gather_stays(source: str, movable: set[str]) -> None:
    module = parse_module(source, "mlp")
    folded = fold_input_order(module, ORDERS, movable)
    assert not folded.rows
    assert folded.left.keys() == ORDERS.keys()
    assert apply_input_order(module, folded.left)
