"""Perplexity of a compiled language model: how surprised it is by text that it has not seen.

`exp` of the mean of `-ln p(token | tokens before it in its window)`, the definition of
transformers' documentation and of llama.cpp. The text is cut into windows that do not overlap; the
first token of each only conditions the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tilewright.compiler.execution import Execution
from tilewright.compiler.runtime import LanguageModelSession
from tilewright.dialects.errors import OptionError

ExecutionT = TypeVar("ExecutionT", bound=Execution)


@dataclass(frozen=True)
class Perplexity:
    """Sums over the tokens that were predicted."""

    tokens: int
    windows: int
    negative_log_likelihood: float
    """In nats, of all `tokens` together."""
    squared: float
    """The sum of the squares of each token's."""

    @property
    def value(self) -> float:
        """The perplexity; infinite where a probability is 0."""
        mean = self.negative_log_likelihood / self.tokens
        return exp(mean) if mean < 700 else float("inf")

    @property
    def standard_error(self) -> float:
        """Of the value, by the spread of the tokens' surprise (first order: `value * se(mean)`)."""
        mean = self.negative_log_likelihood / self.tokens
        variance = max(0.0, self.squared / self.tokens - mean * mean)
        return self.value * (variance / self.tokens) ** 0.5


def negative_log_likelihoods(
    logits: npt.NDArray[np.float32], token_ids: Sequence[int]
) -> npt.NDArray[np.float64]:
    """`-ln softmax(logits[i])[token_ids[i]]` for each row of `logits` `[N, V]`, in float64."""
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1)
    log_sums = highest + np.log(np.exp(wide - highest[:, None]).sum(axis=1))
    return log_sums - wide[np.arange(len(token_ids)), list(token_ids)]


def windows_of(samples: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """The samples in pieces of at most `length` tokens; a piece of one token predicts nothing.

    Raises `OptionError` where nothing is left.
    """
    pieces = [
        list(sample[start : start + length])
        for sample in samples
        for start in range(0, len(sample), length)
    ]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise OptionError(
            "there are no two tokens in a row",
            why="perplexity is of tokens that follow others",
        )
    return pieces


def measure_perplexity(
    model: LanguageModelSession[ExecutionT],
    samples: Sequence[Sequence[int]],
    *,
    on_window: Callable[[int, int, Perplexity], None] | None = None,
) -> Perplexity:
    """Run every window through `score` of a compiled model.

    `on_window(index, count, so_far)` hears of each window, from 1. Raises `OptionError` for a
    program without `score`, for token ids out of range, and where there is nothing to predict.
    """
    windows = windows_of(samples, model.seq)
    total = Perplexity(0, 0, 0.0, 0.0)
    for index, window in enumerate(windows, 1):
        losses = negative_log_likelihoods(model.score(window)[:-1], window[1:])
        total = Perplexity(
            total.tokens + len(losses),
            total.windows + 1,
            total.negative_log_likelihood + float(losses.sum()),
            total.squared + float((losses**2).sum()),
        )
        if on_window is not None:
            on_window(index, len(windows), total)
    return total
