"""What is observed, against the same computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.calibration.models import (
    LAYER_KEYS,
    TINY_CHATGLM,
    TINY_LLAMA,
    flow,
    hessian_of,
    language_model,
    layers_model,
    statistics_of,
)
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.calibration import (
    METHODS,
    Calibration,
    calibrate,
    load_data,
    run,
    token_data,
)
from tilewright.compiler.calibration.methods import MethodName
from tilewright.compiler.calibration.samples import input_names
from tilewright.compiler.cli.run_verb import npz_bytes
from tilewright.compiler.importers.mlir import load_mlir, save_mlir
from tilewright.compiler.language_model import ImportedModel
from tilewright.dialects.context import parse_module
from tilewright.dialects.errors import FitError, ModelReadError, UnsupportedError

RNG = np.random.default_rng(3)
X = RNG.standard_normal((5, 4, 8)).astype(np.float32)
PROMPTS = [[7, 3, 3, 40], [1], [9, 8, 7, 6, 5, 4, 3, 2, 1], [49, 0]]


def data_file(folder: Path, x: npt.NDArray[np.float32], name: str = "x.npz") -> Path:
    np.savez(folder / name, x=x, bias=np.zeros((len(x), 8), np.float32))
    return folder / name


def calibrated(
    model: ImportedModel, path: Path, method: MethodName = "minmax", *, hessian: bool = False
) -> Calibration:
    return calibrate(model, load_data(path, model), method, hessian=hessian)


def test_ranges_and_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    model, weights = layers_model(tmp_path)
    calibration = calibrated(model, data_file(tmp_path, X), hessian=True)
    assert (calibration.samples, calibration.tokens) == (5, 20)
    assert list(calibration.ranges) == LAYER_KEYS
    for key, (x, y) in flow(X.reshape(-1, 8), weights).items():
        layer, statistics = calibration.ranges[key], statistics_of(calibration, key)
        assert layer.count == 20
        assert layer.input_absmax == layer.input_largest == pytest.approx(np.abs(x).max(), rel=1e-5)
        assert layer.output_absmax == pytest.approx(np.abs(y).max(), rel=1e-5)
        np.testing.assert_allclose(statistics.absmax, np.abs(x).max(axis=0), rtol=1e-4)
        np.testing.assert_allclose(statistics.mean_abs, np.abs(x).mean(axis=0), rtol=1e-5)
        scale = np.abs(x).max() ** 2
        hessian = hessian_of(calibration, key)
        np.testing.assert_allclose(hessian, x.T @ x / 20, rtol=1e-4, atol=1e-6 * scale)


def test_layers_that_read_one_tensor_share_its_statistics(tmp_path: Path) -> None:
    model, _ = layers_model(tmp_path)
    calibration = calibrated(model, data_file(tmp_path, X))
    assert calibration.statistics("a.up") is calibration.statistics("a.gate")
    assert calibration.statistics("a.up") is not calibration.statistics("b.up")
    assert calibration.statistics("a.other") is None


def test_a_weight_of_several_layers_has_the_range_of_all(tmp_path: Path) -> None:
    """Both calls read the same weights: rows of both count."""
    _, weights = layers_model(tmp_path)
    text = (tmp_path / "layers.mlir").read_text().replace('"b."', '"a."')
    save_mlir(tmp_path / "shared.mlir", parse_module(text, "shared.mlir"), weights)
    shared = load_mlir(tmp_path / "shared.mlir")
    calibration = calibrated(shared, data_file(tmp_path, X), hessian=True)
    twice = {**weights, **{key.replace("a.", "b."): weights[key] for key in LAYER_KEYS[:3]}}
    values = flow(X.reshape(-1, 8), twice)
    for key in LAYER_KEYS[:3]:
        x = np.concatenate([values[key][0], values[key.replace("a.", "b.")][0]])
        statistics = statistics_of(calibration, key)
        assert calibration.ranges[key].count == 40
        assert calibration.ranges[key].input_absmax == pytest.approx(np.abs(x).max(), rel=1e-4)
        np.testing.assert_allclose(statistics.mean_abs, np.abs(x).mean(axis=0), rtol=1e-4)
        scale = np.abs(x).max() ** 2
        hessian = hessian_of(calibration, key)
        np.testing.assert_allclose(hessian, x.T @ x / 40, rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_samples_does_not_matter(tmp_path: Path, method: MethodName) -> None:
    model, _ = layers_model(tmp_path)
    there = calibrated(model, data_file(tmp_path, X), method)
    back = calibrated(model, data_file(tmp_path, X[::-1], "back.npz"), method)
    assert there.ranges == back.ranges
    assert there.digest != back.digest, "another file of data"


@pytest.mark.parametrize("config", [TINY_CHATGLM, TINY_LLAMA], ids=["chatglm", "llama"])
def test_padding_does_not_count(tmp_path: Path, config: dict[str, object]) -> None:
    """Padded to 12 positions, a prompt gives what it gives in a model of its own length."""
    padded_model = language_model(tmp_path, 12, config)
    for prompt in PROMPTS:
        exact_model = language_model(tmp_path, len(prompt), config)
        padded = calibrate(padded_model, token_data(padded_model, [prompt]), hessian=True)
        exact = calibrate(exact_model, token_data(exact_model, [prompt]), hessian=True)
        assert padded.tokens == exact.tokens == len(prompt)
        assert list(padded.ranges) == list(exact.ranges)
        for key, layer in exact.ranges.items():
            found = padded.ranges[key]
            assert found.count == layer.count
            assert found.input_absmax == pytest.approx(layer.input_absmax, rel=1e-4)
            assert found.output_absmax == pytest.approx(layer.output_absmax, rel=1e-4)
            np.testing.assert_allclose(
                hessian_of(padded, key), hessian_of(exact, key), rtol=1e-3, atol=1e-4
            )
        assert padded.fingerprint == exact.fingerprint, "it does not depend on --seq"


def test_every_layer_of_a_language_model_is_reached(tmp_path: Path) -> None:
    model = language_model(tmp_path, 12)
    calibration = calibrate(model, token_data(model, PROMPTS), "kl")
    assert (calibration.samples, calibration.tokens) == (4, 16)
    assert len(calibration.ranges) == 2 * 4 + 1
    assert "transformer.output_layer.weight" in calibration.ranges
    assert {layer.count for layer in calibration.ranges.values()} == {16}, "the head's, too"


@pytest.mark.parametrize("config", [TINY_CHATGLM, TINY_LLAMA], ids=["chatglm", "llama"])
def test_that_the_head_sees_every_row_changes_no_other_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object]
) -> None:
    """To the bit: ranges and second moments are those of the prefill."""
    model = language_model(tmp_path, 12, config)
    data = token_data(model, PROMPTS)
    every = calibrate(model, data, "mse", hessian=True)

    def prefill(model: ImportedModel, function: str) -> tuple[ModuleOp, str, list[str]]:
        return model.module, function, input_names(model, function)

    monkeypatch.setattr(run, "_observed_function", prefill)
    last = calibrate(model, data, "mse", hessian=True)
    (head,) = (key for key, layer in last.ranges.items() if layer.count == len(PROMPTS))
    assert last.ranges.keys() == every.ranges.keys()
    for key in last.ranges.keys() - {head}:
        assert last.ranges[key] == every.ranges[key]
        np.testing.assert_array_equal(hessian_of(last, key), hessian_of(every, key))
    assert every.ranges[head].count == 16
    assert every.ranges[head].output_absmax > last.ranges[head].output_absmax
    assert np.linalg.matrix_rank(hessian_of(last, head), tol=1e-3) == len(PROMPTS)
    assert np.linalg.matrix_rank(hessian_of(every, head), tol=1e-3) > 2 * len(PROMPTS)


def test_inputs_of_prefill_say_how_many_rows_are_tokens(tmp_path: Path) -> None:
    model = language_model(tmp_path, 12)
    tokens = token_data(model, [PROMPTS[0]])
    (tmp_path / "prefill.npz").write_bytes(npz_bytes(tokens.samples[0].inputs))
    calibration = calibrated(model, tmp_path / "prefill.npz")
    assert calibration.ranges == calibrate(model, tokens).ranges
    assert calibration.tokens == 4


def test_a_dead_tensor_has_range_one(tmp_path: Path) -> None:
    model, _ = layers_model(tmp_path)
    layer = calibrated(model, data_file(tmp_path, np.zeros_like(X))).ranges["a.up"]
    assert (layer.input_absmax, layer.input_largest) == (1.0, 0.0)


def test_infinity_inside_the_model_is_refused(tmp_path: Path) -> None:
    model, _ = layers_model(tmp_path)
    x = X.copy()
    x[3, 2] = 3e38
    with pytest.raises(
        ModelReadError, match=r"the output of 'a\.(up|gate)' is not finite"
    ) as error:
        calibrated(model, data_file(tmp_path, x))
    assert "sample 3 of" in (error.value.where or "")
    assert "row 2, channel" in (error.value.where or "")


def test_no_linear_layers_and_no_samples_are_refused(tmp_path: Path) -> None:
    text = """func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
      %y = top.Tanh %x : tensor<4x8xf32> -> tensor<4x8xf32>
      func.return %y : tensor<4x8xf32>
    }"""
    (tmp_path / "m.mlir").write_text(text)
    model = load_mlir(tmp_path / "m.mlir")
    np.savez(tmp_path / "x.npz", x=X[0])
    with pytest.raises(UnsupportedError, match="no linear layers"):
        calibrated(model, tmp_path / "x.npz")
    layers, _ = layers_model(tmp_path)
    nothing = load_data(data_file(tmp_path, X), layers)
    with pytest.raises(ModelReadError, match="no samples"):
        calibrate(layers, type(nothing)(nothing.function, (), nothing.record))


def test_second_moments_that_do_not_fit(tmp_path: Path) -> None:
    text = """func.func @main(%x: tensor<1x1999999xf32>) -> tensor<1x1xf32> {
      %w = top.Weight "w" : tensor<1x1999999xf32>
      %y = top.MatMul %x, %w {right_transpose} :
        tensor<1x1999999xf32>, tensor<1x1999999xf32> -> tensor<1x1xf32>
      func.return %y : tensor<1x1xf32>
    }"""
    weights = {"w": np.zeros((1, 1999999), np.float32)}
    save_mlir(tmp_path / "m.mlir", parse_module(text, "m.mlir"), weights)
    model = load_mlir(tmp_path / "m.mlir")
    np.savez(tmp_path / "x.npz", x=weights["w"])
    with pytest.raises(FitError, match="do not fit the memory"):
        calibrated(model, tmp_path / "x.npz", hessian=True)


BIASED = """
func.func @main(%x: tensor<4x8xf32>, %given: tensor<8xf32>) -> tensor<4x8xf32> {
  %a = top.Weight "a" : tensor<8x8xf32>
  %b = top.Weight "b" : tensor<8x8xf32>
  %known = top.Weight "b.bias" : tensor<8xf32>
  %y = top.MatMul %x, %a bias %given {right_transpose} :
    tensor<4x8xf32>, tensor<8x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  %z = top.MatMul %y, %b bias %known {right_transpose} :
    tensor<4x8xf32>, tensor<8x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  func.return %z : tensor<4x8xf32>
}
"""


def test_the_range_of_outputs_is_of_what_becomes_int8(tmp_path: Path) -> None:
    """A bias that is a weight is in it; any other is added to the dequantized product."""
    rng = np.random.default_rng(8)
    weights = {key: rng.standard_normal((8, 8)).astype(np.float32) for key in "ab"}
    weights["b.bias"] = np.full(8, 500, np.float32)
    save_mlir(tmp_path / "m.mlir", parse_module(BIASED, "m.mlir"), weights)
    model = load_mlir(tmp_path / "m.mlir")
    given = np.full((len(X), 8), 100, np.float32)
    np.savez(tmp_path / "x.npz", x=X, given=given)
    ranges = calibrated(model, tmp_path / "x.npz").ranges
    product = X.reshape(-1, 8).astype(np.float64) @ weights["a"].T
    last = (product + 100) @ weights["b"].T + 500
    assert ranges["a"].output_absmax == pytest.approx(np.abs(product).max(), rel=1e-4)
    assert ranges["b"].output_absmax == pytest.approx(np.abs(last).max(), rel=1e-4)
