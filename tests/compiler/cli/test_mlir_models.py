"""Models given as IR with a safetensors file beside it: compiled, run and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file
from tests.compiler.cli.harness import Tw, names_in

MODEL = """
func.func private @block(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %up = top.Weight "up" : tensor<96x64xf32>
  %down = top.Weight "down" : tensor<64x96xf32>
  %h = top.MatMul %x, %up {right_transpose} :
    tensor<4x64xf32>, tensor<96x64xf32> -> tensor<4x96xf32>
  %a = top.SiLU %h : tensor<4x96xf32> -> tensor<4x96xf32>
  %d = top.MatMul %a, %down {right_transpose} :
    tensor<4x96xf32>, tensor<64x96xf32> -> tensor<4x64xf32>
  %y = top.Add %x, %d : tensor<4x64xf32>, tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}
func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = top.Call @block(%x) {scopes = ["first."]} : (tensor<4x64xf32>) -> tensor<4x64xf32>
  %z = top.Call @block(%y) {scopes = ["second."]} : (tensor<4x64xf32>) -> tensor<4x64xf32>
  func.return %z : tensor<4x64xf32>
}
func.func @activation(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = top.GELU %x approximate tanh : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}
"""
TOLERANCE = {"f32": 1e-5, "f16": 5e-3, "bf16": 4e-2, "w8a16": 3e-2}
"""Of the largest output."""

Array = npt.NDArray[np.float64]


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(7)
    shapes = {"up": (96, 64), "down": (64, 96)}
    arrays = {
        f"{scope}.{name}": (rng.standard_normal(shape) / shape[1] ** 0.5).astype(np.float32)
        for scope in ("first", "second")
        for name, shape in shapes.items()
    }
    (tmp_path / "model.mlir").write_text(MODEL)
    save_file(arrays, tmp_path / "model.safetensors")
    return arrays


def expected(x: Array, weights: dict[str, npt.NDArray[np.float32]]) -> Array:
    for scope in ("first", "second"):
        h = x @ weights[f"{scope}.up"].T.astype(np.float64)
        x = x + (h / (1 + np.exp(-h))) @ weights[f"{scope}.down"].T.astype(np.float64)
    return x


@pytest.mark.parametrize("quant", ["f32", "f16", "bf16", "w8a16"])
def test_compile_run_compare(
    tw: Tw, tmp_path: Path, weights: dict[str, npt.NDArray[np.float32]], quant: str
) -> None:
    artifact = tmp_path / "model.twm"
    compiled = tw(
        "compile", tmp_path / "model.mlir", "--quant", quant, "-q", "-o", artifact, "--json"
    ).json
    assert set(compiled["launches"]) == {"main", "activation"}
    x = np.random.default_rng(8).standard_normal((4, 64))
    np.savez(tmp_path / "in.npz", x=x)
    arguments = ("run", artifact, "--function", "main", "--inputs", tmp_path / "in.npz")
    document = tw(*arguments, "-o", tmp_path / "out.npz", "--json").json
    assert set(document) == {"function", "backend", "cycles", "seconds", "outputs"}
    dtype = {"f32": "float32", "bf16": "bfloat16"}.get(quant, "float16")
    (name,) = document["outputs"]
    assert document["outputs"][name] == {"shape": [4, 64], "dtype": dtype}
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs.files == [name]
        result = outputs[name]
    exact = expected(x, weights)
    assert np.abs(result - exact).max() < TOLERANCE[quant] * np.abs(exact).max()
    profiled = {p["function"]: p["cycles"] for p in tw("profile", artifact, "--json").json}
    assert document["cycles"] == profiled["main"]
    assert f"main: {document['cycles']:,} cycles" in tw.text(*arguments)
    compared = tw("compare", artifact, "--json").json
    assert compared["ok"]
    assert len(compared["ops"]) == 9
    assert {op["function"] for op in compared["ops"]} == {"main", "activation"}
    only = tw.text("compare", artifact, "--function", "activation", "--seed", 3)
    assert only.endswith("1 of 1 ops within their error bound of float64\n")


def test_it_is_no_language_model(
    tw: Tw, tmp_path: Path, weights: dict[str, npt.NDArray[np.float32]]
) -> None:
    artifact = tmp_path / "model.twm"
    tw.text("compile", tmp_path / "model.mlir", "-q", "-o", artifact)
    result = tw("run", artifact, "--prompt-ids", "1")
    assert result.code == 2
    assert "not a language model" in result.err
    assert "--function NAME --inputs FILE.npz" in result.err


def test_a_model_without_weights_needs_no_file(tw: Tw, tmp_path: Path) -> None:
    source = tmp_path / "gelu.mlir"
    source.write_text(MODEL[MODEL.index("func.func @activation") :])
    tw.text("compile", source, "--quant", "f16", "-q", "-o", tmp_path / "gelu.twm")
    assert tw("compare", tmp_path / "gelu.twm", "--json").json["ok"]
    assert names_in(tmp_path) == ["gelu.mlir", "gelu.twm"]
