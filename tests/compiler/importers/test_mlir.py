"""Models as text with their weights beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.compiler import dsl
from tilewright.compiler.importers.mlir import load_mlir, save_mlir
from tilewright.dialects.context import print_module
from tilewright.dialects.errors import IRError, ModelReadError

BLOCK = """
func.func private @layer(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %w = top.Weight "w" : tensor<4x4xf32>
  %y = top.MatMul %x, %w : tensor<2x4xf32>, tensor<4x4xf32> -> tensor<2x4xf32>
  func.return %y : tensor<2x4xf32>
}
func.func @main(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %y = top.Call @layer(%x) {scopes = ["a."]} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %z = top.Call @layer(%y) {scopes = ["b."]} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %z : tensor<2x4xf32>
}
"""


def write(folder: Path, text: str, **weights: Any) -> Path:
    path = folder / "block.mlir"
    path.write_text(text)
    if weights:
        save_file(weights, folder / "block.safetensors")
    return path


def test_weights_are_found_by_resolved_key(tmp_path: Path) -> None:
    a, b = (np.arange(16, dtype=np.float32).reshape(4, 4) + i for i in range(2))
    model = load_mlir(write(tmp_path, BLOCK, **{"a.w": a, "b.w": b}))
    assert model.name == "block"
    assert model.shapes == {"a.w": (4, 4), "b.w": (4, 4)}
    x = np.ones((2, 4), np.float32)
    with model.open_weights() as container:

        def weights(key: str, op: Operation) -> Any:
            return container.read(key)

        result = run_function(
            model.module, "main", [x], weights=weights, states={}, semantics="float64"
        )
    np.testing.assert_array_equal(result[0], x @ a @ b)


def test_the_text_of_a_traced_module_reads_back(tmp_path: Path) -> None:
    norm = dsl.RMSNorm(4, eps=1e-5)

    @dsl.function(x=dsl.f32(2, 4))
    def main(x: dsl.Tensor) -> dsl.Tensor:
        return dsl.silu(norm(x)) * 2.0

    module = dsl.trace(main)
    model = load_mlir(write(tmp_path, str(module)))
    assert str(model.module) == str(module)
    assert model.shapes == {"weight": (4,)}
    assert model.tables() == {}


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path, BLOCK, **{"a.w": np.zeros((4, 4), np.float32)})
    with pytest.raises(ModelReadError, match=r"1 missing: b\.w"):
        load_mlir(path).open_weights()


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError):
        load_mlir(write(tmp_path, BLOCK)).open_weights()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("func.func", ModelReadError, "block.mlir"),
        (BLOCK.replace("@layer(%y)", "@other(%y)"), IRError, "no function @other"),
        (BLOCK.replace('"b."', '"b"'), IRError, "does not end in a dot"),
        (BLOCK.replace("top.", "tpu.").replace('Weight "', 'Weight dense "'), IRError, "tpu."),
    ],
)
def test_text_that_is_no_model(
    text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        load_mlir(write(tmp_path, text))


def test_one_weight_of_two_shapes(tmp_path: Path) -> None:
    text = """
    func.func @main(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
      %a = top.Weight "w" : tensor<4xf32>
      %b = top.Weight "w" : tensor<1x4xf32>
      %y = top.Add %x, %a : tensor<2x4xf32>, tensor<4xf32> -> tensor<2x4xf32>
      %z = top.Add %y, %b : tensor<2x4xf32>, tensor<1x4xf32> -> tensor<2x4xf32>
      func.return %z : tensor<2x4xf32>
    }
    """
    with pytest.raises(IRError, match=r"weight 'w' is read as \[4\] and as \[1, 4\]"):
        load_mlir(write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match="cannot be read"):
        load_mlir(tmp_path / "none.mlir")


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    layer = dsl.Linear(8, 4)
    module = dsl.trace(dsl.function(x=dsl.f32(2, 8))(layer.forward))
    weights = {"weight": np.arange(32, dtype=np.float32).reshape(4, 8)}
    save_mlir(tmp_path / "m.mlir", module, weights)
    model = load_mlir(tmp_path / "m.mlir")
    assert print_module(model.module) == print_module(module)
    assert model.shapes == {"weight": (4, 8)}
    assert np.array_equal(load_file(model.weights)["weight"], weights["weight"])


@pytest.mark.parametrize(
    ("weights", "what"),
    [({}, "'weight' is missing"), ({"weight": np.zeros((8, 4), np.float32)}, "has shape")],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, weights: dict[str, npt.NDArray[np.float32]], what: str
) -> None:
    module = dsl.trace(dsl.function(x=dsl.f32(2, 8))(dsl.Linear(8, 4).forward))
    with pytest.raises(ModelReadError, match=what):
        save_mlir(tmp_path / "m.mlir", module, weights)
    assert not list(tmp_path.iterdir())
