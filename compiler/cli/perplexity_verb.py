"""`tw perplexity`: how well a compiled language model predicts text."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.calibration.data import check_vocabulary, read_tokens
from tilewright.compiler.cli.output import log, print_json
from tilewright.compiler.cli.run_verb import vocabulary_of
from tilewright.compiler.execution import CompiledModel
from tilewright.compiler.execution.registry import find_backend
from tilewright.compiler.perplexity import Perplexity, measure_perplexity
from tilewright.compiler.runtime import SCORE, LanguageModelSession
from tilewright.dialects.errors import OptionError


def run_perplexity(model: Path, data: Path, *, backend: str, quiet: bool, json: bool) -> None:
    """Score the windows of a token file; print the perplexity and its standard error."""
    executor = find_backend(backend)
    artifact = open_artifact(model)
    vocabulary = vocabulary_of(artifact, model)
    names = [function.name for function in artifact.program.functions]
    if SCORE not in names:
        raise OptionError(
            f"{model} has no function {SCORE!r}",
            why=f"perplexity needs the logits of every position; it has {', '.join(names)}",
            hint="compile it with --top-passes add-score-function",
        )
    samples = read_tokens(data)
    check_vocabulary(samples, vocabulary)
    session = LanguageModelSession(executor.open(CompiledModel.of_artifact(artifact)), vocabulary)
    start = perf_counter()

    def progress(index: int, count: int, total: Perplexity) -> None:
        if not quiet and (index % 16 == 0 or index == count):
            seconds = perf_counter() - start
            log(f"[{index:4d}/{count:4d}] perplexity {total.value:.4f} after {seconds:.1f} s")

    ids = [sample.ids.tolist() for sample in samples]
    result = measure_perplexity(session, ids, on_window=progress)
    if json:
        print_json(
            {
                "model": artifact.manifest.model.get("name"),
                "quant": artifact.manifest.options.get("quant"),
                "backend": backend,
                "data": data.name,
                "perplexity": result.value,
                "standard_error": result.standard_error,
                "tokens": result.tokens,
                "windows": result.windows,
                "negative_log_likelihood": result.negative_log_likelihood,
                "simulation_s": perf_counter() - start,
            }
        )
        return
    print(
        f"perplexity {result.value:.4f} +- {result.standard_error:.4f} over {result.tokens:,} "
        f"tokens in {result.windows} windows of at most {session.seq}"
    )
