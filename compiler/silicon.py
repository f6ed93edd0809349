"""Published measurements of real chips, to stand beside predictions."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class LanguageModelMeasurement:
    """A published row: prefill of `seq_len` padded tokens, and decode, on one BM1684X."""

    model: str
    quant: str
    seq_len: int
    first_token_s: float
    tokens_per_s: float
    source: str


def language_model_measurements() -> tuple[LanguageModelMeasurement, ...]:
    """The rows of `backends/chips/silicon_bm1684x.csv`."""
    text = resources.files("tilewright.backends.chips").joinpath("silicon_bm1684x.csv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return tuple(
        LanguageModelMeasurement(
            row["model"],
            row["quant"],
            int(row["seq_len"]),
            float(row["first_token_s"]),
            float(row["tokens_per_s"]),
            row["source"],
        )
        for row in csv.DictReader(lines)
    )
