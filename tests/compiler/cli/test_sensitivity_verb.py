"""`tw sensitivity`: the table, the JSON, the page, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.compiler.cli.harness import ROOT, SEQ, Models, Tw, assert_refused

from tilewright.compiler.weights.container import open_checkpoint
from tilewright.compiler.weights.saving import save_arrays

PROMPTS = [[1, 2, 3, 4, 5], [100, 101, 7, 9], [7] * 16]
DOWN = "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.jsonl"
    path.write_text("\n".join(json.dumps(prompt) for prompt in PROMPTS))
    return path


def test_the_report(tw: Tw, models: Models, tokens: Path) -> None:
    arguments = ("sensitivity", models.checkpoint, "--data", tokens, "--seq", SEQ, "-q")
    document = tw(*arguments, "--schemes", "w8a16,w4a16,int8", "--json").json
    text = (ROOT / "docs" / "json.md").read_text()
    paragraph = next(p for p in text.split("\n\n") if p.startswith("`tw sensitivity`"))
    said = set(re.findall(r"`([a-z][a-z0-9_]*)`", paragraph))
    inner = {"input", "kl_nats", "why"}
    assert set(document) | set(document["layers"][0]) | inner == said
    assert (document["samples"], document["tokens"]) == (3, 25)
    rows = document["layers"]
    # 9 layers; groups of 64 do not divide 96 inputs of 2 of them, and the head is not int8.
    assert len(rows) == 9 + 7 + 8
    refused = {(each["key"], each["scheme"]) for each in document["not_possible"]}
    assert (DOWN, "w4a16") in refused
    assert len(refused) == 3
    assert [r["snr_db"] for r in rows] == sorted(r["snr_db"] for r in rows)
    for scheme in ("w8a16", "w4a16", "int8"):
        assert sum(r["share"] for r in rows if r["scheme"] == scheme) == pytest.approx(1)
    for row in rows:
        assert row["rows"] == 25, "the head, too, sees all tokens"
        assert row["predicted_snr_db"] == pytest.approx(row["snr_db"], abs=3)
        assert row["worst_channel_snr_db"] <= row["snr_db"] + 1e-9
        assert row["end_to_end"] is None
    (down,) = [r for r in rows if r["key"] == DOWN and r["scheme"] == "w8a16"]
    assert down["bits_per_weight"] == pytest.approx(8 + 16 / 96)


def test_no_table_where_no_layer_can_have_the_scheme(tw: Tw, models: Models, tokens: Path) -> None:
    arguments = ("sensitivity", models.checkpoint, "--data", tokens, "--seq", SEQ, "-q")
    lines = tw.text(*arguments, "--schemes", "w4a16-g512").splitlines()
    assert lines
    assert all(line.startswith("not possible in w4a16-g512: ") for line in lines)


def test_the_table_and_the_page(tw: Tw, models: Models, tokens: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("sensitivity", models.checkpoint, "--data", tokens, "--seq", SEQ, "-q")
    text = tw.text(*arguments, "--schemes", "w8a16,w4a16", "--top", 4, "--html", page)
    header, _, *lines = text.splitlines()
    assert header.startswith("layer ")
    assert lines[4] == "(the 4 worst of 16)"
    assert (
        "not possible in w4a16: transformer.encoder.layers.*.mlp.dense_4h_to_h.weight (2): " in text
    )
    html = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    data = json.loads(found[1])
    assert len(data["rows"]) == 16
    assert {row["name"] for row in data["rows"]} >= {DOWN}
    assert all(sum(count for _, count in row["channels"]) > 0 for row in data["rows"])
    assert sorted({row["order"] for row in data["rows"]}) == list(range(9))
    # Nothing is loaded: the only address is the name of SVG.
    assert set(re.findall(r"https?://[^\"']*", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|<link|@import|url\(|fetch\(", html)
    tw.text(*arguments, "--schemes", "w8a16,w4a16", "--html", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == html


def test_end_to_end_is_the_model_with_one_layer_changed(
    tw: Tw, models: Models, tokens: Path
) -> None:
    arguments = ("sensitivity", models.checkpoint, "--data", tokens, "--seq", SEQ, "-q", "--json")
    rows = tw(*arguments, "--schemes", "w8a16,w4a16-channel-absmax", "--end-to-end").json["layers"]
    figures = {(row["key"], row["scheme"]): row["end_to_end"] for row in rows}
    for key in {row["key"] for row in rows}:
        fine, coarse = figures[key, "w8a16"], figures[key, "w4a16-channel-absmax"]
        # Sixteen times the step: 24 dB, 250 times the divergence.
        assert fine["snr_db"] - coarse["snr_db"] == pytest.approx(25, abs=6)
        assert 20 < coarse["kl_nats"] / fine["kl_nats"] < 3000
    head = next(row for row in rows if row["key"].endswith("output_layer.weight"))
    assert head["end_to_end"]["snr_db"] == pytest.approx(head["snr_db"], abs=0.01)


def test_an_outlier_column_is_named(tw: Tw, models: Models, tokens: Path, tmp_path: Path) -> None:
    """Planted as in docs/quantization.md: a norm's channel divided, the next columns multiplied."""
    folder = tmp_path / "outliers"
    folder.mkdir()
    (folder / "config.json").write_text((models.checkpoint / "config.json").read_text())
    layer = "transformer.encoder.layers.1."
    with open_checkpoint(models.checkpoint) as source:
        keys = source.keys()
        arrays = {key: source.read(key).copy() for key in keys}
    arrays[layer + "input_layernorm.weight"][11] /= 32
    arrays[layer + "self_attention.query_key_value.weight"][:, 11] *= 32
    save_arrays(folder / "model.safetensors", arrays)
    arguments = ("sensitivity", folder, "--data", tokens, "--seq", SEQ, "-q", "--json")
    worst = tw(*arguments, "--schemes", "w8a16").json["layers"][0]
    assert worst["key"] == layer + "self_attention.query_key_value.weight"
    assert worst["range_inputs"][0]["input"] == 11
    assert worst["range_inputs"][0]["share"] > 0.8
    assert worst["gaussian_weight_snr_db"] - worst["predicted_weight_snr_db"] > 3


def test_second_moments_of_a_calibration_stand_for_data(
    tw: Tw, models: Models, tokens: Path, tmp_path: Path
) -> None:
    calibration = tmp_path / "m.calib.json"
    common = ("--data", tokens, "--seq", SEQ, "-q")
    tw("calibrate", models.checkpoint, *common, "--hessian", "-o", calibration)
    arguments = ("sensitivity", models.checkpoint, "--schemes", "w8a16", "--json", "--seq", SEQ)
    with_data = tw(*arguments, "--data", tokens, "-q").json["layers"]
    without = tw(*arguments, "--calibration", calibration, "-q").json["layers"]
    measured = {row["key"]: row["snr_db"] for row in with_data}
    for row in without:
        if not row["key"].endswith("output_layer.weight"):  # which saw the last tokens only
            assert row["snr_db"] == pytest.approx(measured[row["key"]], abs=1e-3)


def test_what_is_refused(tw: Tw, models: Models, tokens: Path, tmp_path: Path) -> None:
    start = ("sensitivity", models.checkpoint, "--seq", SEQ, "-q")
    assert_refused(tw(*start), 2, "no inputs to measure", "--data")
    data = (*start, "--data", tokens)
    assert_refused(tw(*data, "--schemes", "w9a16"), 2, "unknown quantization 'w9a16'")
    assert_refused(tw(*data, "--schemes", ","), 2, "no schemes")
    assert_refused(tw(*data, "--act", "f32"), 2, "16-bit activations")
    assert_refused(tw(*data, "--top", 0), 2, "--top is 0")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("[1, 2, 999]")
    assert_refused(tw(*start, "--data", bad), 3, "token id 999 is out of range")
    calibration = tmp_path / "m.calib.json"
    tw("calibrate", models.checkpoint, "--data", tokens, "--seq", SEQ, "-q", "-o", calibration)
    given = (*start, "--calibration", calibration)
    assert_refused(tw(*given), 2, "no second moments", "--hessian")
    assert_refused(tw(*given, "--schemes", "int8"), 2, "int8 needs --data")
    assert_refused(tw(*given, "--end-to-end"), 2, "--end-to-end needs --data")


def test_a_model_of_top_ir(tw: Tw, tmp_path: Path) -> None:
    (tmp_path / "m.mlir").write_text("""
        func.func @main(%x: tensor<2x32xf32>) -> tensor<2x16xf32> {
          %w = top.Weight "w" : tensor<32x16xf32>
          %y = top.MatMul %x, %w : tensor<2x32xf32>, tensor<32x16xf32> -> tensor<2x16xf32>
          func.return %y : tensor<2x16xf32>
        }
    """)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 16)).astype(np.float32)
    x = rng.standard_normal((5, 2, 32)).astype(np.float32)
    save_arrays(tmp_path / "m.safetensors", {"w": weight})
    np.savez(tmp_path / "x.npz", x=x)
    (row,) = tw(
        *("sensitivity", tmp_path / "m.mlir", "--data", tmp_path / "x.npz", "-q", "--json"),
        *("--schemes", "w8a16", "--end-to-end"),
    ).json["layers"]
    assert (row["channels"], row["depth"], row["rows"]) == (16, 32, 10)
    assert row["end_to_end"]["snr_db"] == pytest.approx(row["snr_db"], abs=0.01)
    assert row["end_to_end"]["kl_nats"] is None
    artifact = tmp_path / "m.twm"
    tw("compile", tmp_path / "m.mlir", "--quant", "w8a16", "-o", artifact, "-q")
    start = ("compare", artifact, "--source", tmp_path / "m.mlir", "--data", tmp_path / "x.npz")
    (error,) = tw(*start, "--json").json["errors"]
    # Inputs and dequantized weights are f16 on the machine.
    assert error["snr_db"] == pytest.approx(row["snr_db"], abs=0.5)
    assert error["share"] == 1
