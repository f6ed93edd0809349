"""Perplexity of compiled models: the formula against torch, `score` against `prefill`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiler.cli.harness import SEQ, TINY
from torch.nn import functional

from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.cli.run_verb import language_model_of
from tilewright.compiler.compile import compile_to_artifact
from tilewright.compiler.importers.synthetic import write_checkpoint
from tilewright.compiler.perplexity import (
    Perplexity,
    measure_perplexity,
    negative_log_likelihoods,
    windows_of,
)
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.runtime import LanguageModelSession
from tilewright.dialects.errors import OptionError


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(2, 30), st.integers(0, 2**32 - 1), st.floats(0.1, 1e4))
def test_the_surprise_of_a_token_is_that_of_torch(
    rows: int, vocabulary: int, seed: int, spread: float
) -> None:
    generator = np.random.default_rng(seed)
    logits = (generator.standard_normal((rows, vocabulary)) * spread).astype(np.float32)
    ids = generator.integers(0, vocabulary, rows)
    ours = negative_log_likelihoods(logits, ids.tolist())
    theirs = functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(ids), reduction="none"
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-10)


def test_value_and_standard_error() -> None:
    losses = np.array([0.5, 1.0, 3.0])
    total = Perplexity(3, 1, float(losses.sum()), float((losses**2).sum()))
    assert total.value == pytest.approx(math.exp(1.5))
    assert total.standard_error == pytest.approx(math.exp(1.5) * losses.std() / math.sqrt(3))
    assert Perplexity(1, 1, 1e6, 1e12).value == math.inf


def test_windows_lose_nothing_but_single_tokens() -> None:
    assert windows_of([[1, 2, 3, 4, 5], [6]], 2) == [[1, 2], [3, 4]]
    with pytest.raises(OptionError, match="no two tokens in a row"):
        windows_of([[1], [2]], 8)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    write_checkpoint(folder / "tiny", TINY, dtype="f16", seed=3)
    options = CompileOptions("w8a16", top_passes="add-score-function")
    compile_to_artifact(folder / "tiny", folder / "tiny.twm", options, seq=SEQ)
    return folder / "tiny.twm"


def session(path: Path) -> LanguageModelSession:
    return language_model_of(open_artifact(path), path)


def test_every_row_of_score_is_what_prefill_gives(scored: Path) -> None:
    ids = [5, 3, 9, 17, 3]
    rows = session(scored).score(ids)
    assert rows.shape[0] == len(ids)
    for count in range(1, len(ids) + 1):
        logits = session(scored).prefill(ids[:count])
        # One row takes another tiling than many: sums are rounded in another order.
        np.testing.assert_allclose(rows[count - 1], logits, rtol=0, atol=2e-3)


def test_perplexity_is_that_of_the_decoded_logits(scored: Path) -> None:
    ids = [5, 3, 9, 17, 3, 8]
    measured = measure_perplexity(session(scored), [ids])
    model = session(scored)
    logits = [model.prefill(ids[:1])]
    logits += [model.decode(ids[i], i) for i in range(1, len(ids) - 1)]
    losses = negative_log_likelihoods(np.stack(logits), ids[1:])
    assert measured.tokens == len(ids) - 1
    assert measured.value == pytest.approx(math.exp(losses.mean()), rel=1e-3)
