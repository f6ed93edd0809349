"""`tw perplexity`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compiler.cli.harness import SEQ, Models, Tw, assert_refused

from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.cli.run_verb import language_model_of
from tilewright.compiler.compile import compile_to_artifact
from tilewright.compiler.perplexity import measure_perplexity
from tilewright.compiler.pipeline import CompileOptions

SAMPLES = [[5, 3, 9, 17, 3, 8], [1, 2]]


@pytest.fixture(scope="module")
def scored(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifact = tmp_path_factory.mktemp("scored") / "tiny.twm"
    options = CompileOptions("w8a16", top_passes="add-score-function")
    compile_to_artifact(models.checkpoint, artifact, options, seq=SEQ)
    return artifact


def test_the_verb(scored: Path, tw: Tw, tmp_path: Path) -> None:
    data = tmp_path / "text.jsonl"
    data.write_text("[5, 3, 9, 17, 3, 8]\n[1, 2]\n")
    document = tw("perplexity", scored, "--data", data, "-q", "--json").json
    assert (document["tokens"], document["windows"]) == (6, 2)
    expected = measure_perplexity(language_model_of(open_artifact(scored), scored), SAMPLES)
    assert document["perplexity"] == expected.value
    assert f"perplexity {expected.value:.4f}" in tw.text("perplexity", scored, "--data", data, "-q")


def test_an_artifact_without_score_is_refused(models: Models, tw: Tw, tmp_path: Path) -> None:
    data = tmp_path / "text.txt"
    data.write_text("5 3 9\n")
    result = tw("perplexity", models.w8a16, "--data", data)
    assert_refused(result, 2, "no function 'score'", "add-score-function")


def test_tokens_out_of_the_vocabulary_are_refused(scored: Path, tw: Tw, tmp_path: Path) -> None:
    data = tmp_path / "text.txt"
    data.write_text("5 3 99999\n")
    result = tw("perplexity", scored, "--data", data)
    assert_refused(result, 3, "token id 99999 is out of range", "line 1")
