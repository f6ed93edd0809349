"""`tw calibrate`: from a token file to ranges, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.compiler.cli.harness import SEQ, Models, Tw, assert_refused, names_in

from tilewright.compiler.calibration import load_calibration

PROMPTS = [[1, 2, 3, 4, 5], [100, 101], [7] * 20]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.jsonl"
    path.write_text("\n".join(json.dumps(prompt) for prompt in PROMPTS))
    return path


def test_calibrate(tw: Tw, models: Models, tokens: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.calib.json"
    arguments = ("calibrate", models.checkpoint, "--data", tokens, "--seq", SEQ, "-o", output)
    document = tw(*arguments, "--method", "kl", "--json").json
    calibration = load_calibration(output)
    assert document["calibration"] == str(output)
    assert document["digest"] == calibration.digest
    assert document["method"] == {"name": "kl", "percentile": None}
    assert (document["samples"], document["tokens"]) == (4, 27), "the longest is cut in two"
    assert document["data"]["name"] == "tokens.jsonl"
    assert document["seconds"] > 0
    assert document["peak_memory_bytes"] > 1e6
    assert len(document["layers"]) == 9
    for layer in document["layers"]:
        found = calibration.ranges[layer["key"]]
        assert layer["input_absmax"] == found.input_absmax
        assert layer["count"] == 27
    assert names_in(tmp_path) == ["m.calib.json", "tokens.jsonl"]


def test_the_table_and_the_progress(tw: Tw, models: Models, tokens: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.calib.json"
    arguments = ("calibrate", models.checkpoint, "--data", tokens, "--seq", SEQ, "-o", output)
    result = tw(*arguments)
    assert [line[:11] for line in result.err.splitlines()] == [
        f"[{i:4d}/   4]" for i in range(1, 5)
    ]
    header, _, *rows, summary = result.out.splitlines()
    assert header.split() == ["layer", "input", "seen", "output", "seen", "rows"]
    widths = [float(row.split()[1]) for row in rows]
    assert len(rows) == 9
    assert widths == sorted(widths, reverse=True)
    assert summary.startswith(f"{output}: minmax, 4 samples, 27 tokens, 9 layers, ")
    assert summary.endswith("of memory at the peak")
    text = tw.text(*arguments, "-q", "--samples", 2, "--method", "percentile", "--percentile", 99)
    assert f"{output}: percentile 99, 2 samples, 7 tokens" in text


def test_statistics_for_better_rounding(
    tw: Tw, models: Models, tokens: Path, tmp_path: Path
) -> None:
    for option, part in (("--statistics", None), ("--hessian", (64, 64))):
        output = tmp_path / f"{option[2:]}.calib.json"
        arguments = ("calibrate", models.checkpoint, "--data", tokens, "--seq", SEQ, "-o", output)
        tw.text(*arguments, option, "-q")
        statistics = load_calibration(output).statistics("transformer.output_layer.weight")
        assert statistics is not None
        assert statistics.absmax.shape == (64,)
        assert (None if statistics.hessian is None else statistics.hessian.shape) == part
        assert output.with_suffix(".safetensors").is_file()


def test_layers_that_stay_at_zero_are_told(tw: Tw, tmp_path: Path) -> None:
    (tmp_path / "m.mlir").write_text("""
        func.func @main(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
          %w = top.Weight "w" : tensor<4x4xf32>
          %y = top.MatMul %x, %w : tensor<2x4xf32>, tensor<4x4xf32> -> tensor<2x4xf32>
          func.return %y : tensor<2x4xf32>
        }""")
    from safetensors.numpy import save_file

    save_file({"w": np.zeros((4, 4), np.float32)}, tmp_path / "m.safetensors")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4)))
    arguments = ("--data", tmp_path / "x.npz", "-q", "-o", tmp_path / "m.calib.json", "--json")
    result = tw("calibrate", tmp_path / "m.mlir", *arguments)
    assert result.err == "warning: the output of w was 0 throughout; its range is 1\n"
    (layer,) = result.json["layers"]
    assert (layer["output_absmax"], layer["output_largest"]) == (1.0, 0.0)
    assert result.json["tokens"] == 2


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--method", "mean"), 2, "unknown method of calibration 'mean'"),
        (("--percentile", "99"), 2, "a percentile does not go with the method 'minmax'"),
        (("--method", "percentile", "--percentile", "0"), 2, "a percentile of 0"),
        (("--samples", "0"), 2, "--samples is 0"),
        (("--function", "decode"), 2, "token ids are run through prefill"),
        (("-o", "m.calib"), 2, "is written to a .json file"),
        (("-o", "no/m.calib.json"), 10, "the folder of the output does not exist"),
        (("--data", "no.txt"), 3, "the data cannot be read"),
        (("--seq", "100"), 2, "100 positions are more than the model's 64"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tw: Tw,
    models: Models,
    tokens: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--data", tokens, "--seq", SEQ, "-o", "m.calib.json")
    assert_refused(tw("calibrate", models.checkpoint, *given, *options), code, said)
    assert names_in(tmp_path) == ["tokens.jsonl"]


def test_a_token_that_the_model_does_not_know(
    tw: Tw, models: Models, tokens: Path, tmp_path: Path
) -> None:
    tokens.write_text("[1, 2]\n[3, 4, 128]\n")
    arguments = ("--data", tokens, "--seq", SEQ, "-o", tmp_path / "m.calib.json")
    assert_refused(
        tw("calibrate", models.checkpoint, *arguments),
        3,
        "token id 128 is out of range",
        f"line 2 of {tokens}, index 2",
        "the vocabulary has 128 tokens",
    )
    assert names_in(tmp_path) == ["tokens.jsonl"]
