"""`tw compare --source` and `--against`: errors against the float model, planted regressions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.compiler.cli.harness import ROOT, SEQ, TINY, Models, Tw, assert_refused

from tilewright.compiler.calibration import token_data
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.importers.synthetic import write_checkpoint
from tilewright.compiler.reports.artifact_runs import Inputs, OpenModel
from tilewright.compiler.reports.figures import ChannelSums
from tilewright.compiler.reports.float_runs import FloatRuns, scored
from tilewright.compiler.reports.reference_runs import program_reference, source_reference

PROMPTS = [[1, 2, 3, 4, 5], [100, 101, 7, 9], [7] * 16]
LAYER = "transformer.encoder.layers.1.mlp.dense_4h_to_h"
SCORE = ("--top-passes", "add-score-function")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.jsonl"
    path.write_text("\n".join(json.dumps(prompt) for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def documented_fields(verb: str) -> set[str]:
    """The fields that docs/json.md gives for a verb with an option."""
    text = (ROOT / "docs" / "json.md").read_text()
    paragraph = next(p for p in text.split("\n\n") if p.startswith(f"`tw {verb}`"))
    return set(re.findall(r"`([a-z][a-z0-9_]*)`", paragraph))


def fields(rows: list[dict[str, object]]) -> set[str]:
    return {name for row in rows for name in row}


def compiled(tw: Tw, models: Models, path: Path, *options: object) -> Path:
    """The model compiled with `options`, once."""
    if not path.exists():
        given = ("compile", models.checkpoint, "--seq", SEQ, "-o", path, "-q")
        result = tw(*given, *options)
        assert result.code == 0, result.err
    return path


@pytest.fixture
def w8a16(tw: Tw, models: Models, folder: Path) -> Path:
    return compiled(tw, models, folder / "w8a16.twm", "--quant", "w8a16", *SCORE)


@pytest.fixture
def planted(tw: Tw, models: Models, folder: Path) -> Path:
    """One layer in int4."""
    rule = f"{LAYER}=w4a16-channel-absmax"
    options = ("--quant", "w8a16", *SCORE, "--quant-rule", rule)
    return compiled(tw, models, folder / "planted.twm", *options)


def test_errors_against_the_float_model(
    tw: Tw, models: Models, w8a16: Path, tokens: Path, tmp_path: Path
) -> None:
    """The output's figures are those of logits that are computed here."""
    start = ("compare", w8a16, "--source", models.checkpoint, "--data", tokens)
    document = tw(*start, "--json").json
    assert fields(document["errors"]) <= documented_fields("compare --source")
    assert fields(document["outputs"]) <= documented_fields("compare --source")
    assert set(document) <= documented_fields("compare --source")
    assert document["ok"]
    assert len(document["ops"]) == len(document["errors"]), "of the first run alone"
    errors = document["errors"]
    assert [e["snr_db"] for e in errors if e["snr_db"]] == sorted(
        e["snr_db"] for e in errors if e["snr_db"]
    )
    layers = [e for e in errors if e["scheme"] == "w8a16"]
    assert len(layers) == 8
    assert sum(e["share"] for e in errors if e["share"]) == pytest.approx(1)
    for layer in layers:
        assert layer["own_snr_db"] >= layer["snr_db"] - 1
        assert layer["predicted_snr_db"] == pytest.approx(layer["snr_db"], abs=6)
    model = OpenModel.of(w8a16)
    source = open_source(models.checkpoint, SEQ)
    exact: list[np.ndarray] = []
    made = [model.language_model().score(prompt) for prompt in PROMPTS]

    float_model, data = scored(source, token_data(source, PROMPTS))
    with float_model.open_weights() as weights:
        runs = FloatRuns(float_model, data, weights)
        exact = [
            runs.run(sample)[0][: len(prompt)]
            for sample, prompt in zip(data.samples, PROMPTS, strict=True)
        ]
    sums = ChannelSums.of(np.concatenate(exact), np.concatenate(made))
    (output,) = document["outputs"]
    assert output["snr_db"] == pytest.approx(sums.snr_db, abs=1e-6)
    assert output["cosine"] == pytest.approx(sums.cosine)


def test_the_worst_layer_is_the_planted_one(
    tw: Tw, models: Models, planted: Path, tokens: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    start = ("compare", planted, "--source", models.checkpoint, "--data", tokens)
    text = tw.text(*start, "--sort", "share", "--html", page)
    first = text.splitlines()[2].split()
    assert first[:4] == ["score", LAYER, "tpu.W4A16MatMul", "w4a16-channel-absmax"]
    assert float(first[8]) > 90, "percent of the error"
    assert "ops within their error bound of float64" in text
    html = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    assert LAYER in {row["name"] for row in json.loads(found[1])["rows"]}
    assert set(re.findall(r"https?://[^\"']*", html)) == {"http://www.w3.org/2000/svg"}


def test_prefill_and_decode_of_a_prompt(tw: Tw, models: Models, w8a16: Path) -> None:
    start = ("compare", w8a16, "--source", models.checkpoint, "--prompt-ids", "5,6,7", "--json")
    document = tw(*start, "--sort", "order").json
    assert [e["function"] for e in document["outputs"]] == ["prefill", "decode"]
    assert all(each["cosine"] > 0.999 for each in document["outputs"])
    names = [(e["function"], e["name"]) for e in document["errors"]]
    assert ("decode", LAYER) in names
    assert all(e["snr_db"] is None or e["snr_db"] > 20 for e in document["errors"])


def test_an_artifact_in_float64_is_its_own_reference(models: Models, w8a16: Path) -> None:
    """Dequantized weights in the artifact's own module: near to what the machine computes."""
    model = OpenModel.of(w8a16)
    (prefill, _) = Inputs([1, 2, 3]).runs(model)
    own = program_reference(model.session, model.module, "it").run("prefill", prefill.inputs)
    made = model.session.run("prefill", prefill.inputs)["logits"]
    assert ChannelSums.of(own.outputs[0], made).snr_db > 50
    source = open_source(models.checkpoint, SEQ)
    with source.open_weights() as weights:
        exact = source_reference(source, weights).run("prefill", prefill.inputs)
    assert exact.values.keys() >= {k for k, v in own.values.items() if v.dtype.kind == "f"}
    assert ChannelSums.of(exact.outputs[0], own.outputs[0]).snr_db < 50


def test_a_planted_regression_is_found(
    tw: Tw, models: Models, w8a16: Path, planted: Path, tokens: Path
) -> None:
    start = ("compare", planted, "--against", w8a16, "--data", tokens)
    for more in ((), ("--source", models.checkpoint)):
        result = tw(*start, *more, "--json")
        assert result.code == 8
        assert "[TW008]" in result.err
        document = json.loads(result.out)
        assert not document["ok"]
        assert set(document) | fields(document["changes"]) == documented_fields("compare --against")
        changes = [c for c in document["changes"] if c["figure"] == "snr"]
        changed = [c for c in changes if c["old_scheme"] != c["new_scheme"]]
        assert [c["name"] for c in changed] == [LAYER]
        assert changed[0]["regression"]
        assert changed[0]["worse_by"] > 10
        before = [c for c in changes if ".layers.0." in c["name"]]
        assert before
        assert not any(c["regression"] for c in before), "it comes before the fault"
    result = tw(*start, "--tolerance", "output-snr=0.5dB")
    assert result.code == 8
    assert "logits (output) in score" in result.err


def test_what_is_as_good_or_better_is_no_regression(
    tw: Tw, models: Models, w8a16: Path, planted: Path, tokens: Path
) -> None:
    tolerance = ("--tolerance", "snr=0dB,cosine=0,perplexity=0%")
    text = tw.text("compare", w8a16, "--against", w8a16, "--data", tokens, *tolerance)
    assert re.fullmatch(r"none of \d+ figures has become worse\n", text)
    with_source = ("--source", models.checkpoint, "--tolerance", "snr=0.5dB,cosine=1e-4")
    assert tw("compare", w8a16, "--against", planted, "--data", tokens, *with_source).code == 0


def test_perplexity_beyond_the_tolerance(tw: Tw, w8a16: Path, planted: Path, tokens: Path) -> None:
    start = ("--data", tokens, "--json", "--tolerance", "perplexity=0%")
    figures = [
        json.loads(tw("compare", a, "--against", b, *start).out)["changes"][0]
        for a, b in ((w8a16, planted), (planted, w8a16))
    ]
    assert figures[0]["old"] == figures[1]["new"]
    assert sorted(f["regression"] for f in figures) == [False, True]
    perplexity = tw("perplexity", w8a16, "--data", tokens, "-q", "--json").json["perplexity"]
    assert figures[0]["new"] == pytest.approx(perplexity)


def test_what_is_refused(
    tw: Tw, models: Models, w8a16: Path, tokens: Path, folder: Path, tmp_path: Path
) -> None:
    against = ("compare", w8a16, "--against", w8a16)
    other = folder / "short.twm"
    result = tw("compile", models.checkpoint, "--seq", SEQ // 2, "-o", other, "-q", *SCORE)
    assert result.code == 0
    wrong = tw("compare", other, "--against", w8a16)
    assert_refused(wrong, 2, "not of one model in one size", f"seq is {SEQ // 2} in", f"{SEQ} in")
    assert_refused(tw(*against, "--tolerance", "snr=3"), 2, "a limit of snr is in dB")
    assert_refused(tw(*against, "--tolerance", "perplexity=1%"), 2, "needs text", "--data")
    assert_refused(tw(*against, "--html", tmp_path / "x.html"), 2, "--html is not for --against")
    assert_refused(tw("compare", w8a16, "--data", tokens), 2, "--source CHECKPOINT or --against")
    source = ("compare", w8a16, "--source", models.checkpoint)
    assert_refused(tw(*source, "--sort", "size"), 2, "--sort 'size'", "snr, share, order")
    assert_refused(tw(*source, "--samples", 0), 2, "--samples is 0")
    assert_refused(tw(*source, "--function", "main"), 2, "has no function 'main'")
    tokens.write_text("[1, 2, 5000]")
    assert_refused(tw(*source, "--data", tokens), 3, "token id 5000 is out of range")
    assert_refused(tw("compare", w8a16, "--source", tmp_path), 3)
    plain = ("compare", models.w8a16, "--against", models.w8a16, "--data", tokens)
    tokens.write_text("[1, 2]")
    limit = ("--tolerance", "perplexity=1%")
    assert_refused(tw(*plain, *limit), 2, "has no function 'score'", "add-score-function")


def test_other_weights_of_the_same_shape_are_refused(tw: Tw, w8a16: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", TINY, dtype="f16", seed=4)
    result = tw("compare", w8a16, "--source", tmp_path / "other")
    assert_refused(result, 2, "is not what the artifact was compiled from", "fingerprint")
