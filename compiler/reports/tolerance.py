"""How much worse a newer artifact may be: `snr=0.5dB,cosine=1e-4,perplexity=1%`.

| figure | limit | of what |
| --- | --- | --- |
| `snr` | dB lost | the signal-to-noise ratio of every op and output |
| `cosine` | lost | the cosine of every op and output |
| `output-snr`, `output-cosine` | the same | the functions' outputs alone |
| `perplexity` | % gained | of the text of `--data` |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tilewright.compiler.reports.figures import ChannelSums
from tilewright.compiler.reports.model_error import ModelErrors
from tilewright.dialects.errors import OptionError

UNITS: Mapping[str, str] = {
    "snr": "dB",
    "cosine": "",
    "output-snr": "dB",
    "output-cosine": "",
    "perplexity": "%",
}
"""The unit that each figure's limit must have."""
EXAMPLE = "snr=0.5dB,cosine=1e-4,perplexity=1%"
CLEAN_DB = 120.0
"""SNRs above this are taken to be this: differences of f32 sums."""
_PART = re.compile(
    r"(?P<figure>[a-z-]+)=(?P<number>[0-9.]+(?:[eE][-+]?[0-9]+)?)(?P<unit>[a-zA-Z%]*)"
)


@dataclass(frozen=True)
class Tolerance:
    """The limits that are checked, by figure."""

    limits: Mapping[str, float]

    @staticmethod
    def parse(text: str) -> Tolerance:
        """Read `figure=limit[unit]`, by commas. Raises `OptionError`."""
        limits: dict[str, float] = {}
        for part in (each.strip() for each in text.split(",")):
            found = _PART.fullmatch(part)
            figure = "" if found is None else found["figure"]
            if found is None or figure not in UNITS:
                raise _wrong(text, f"{part!r} is not a limit, from 0 up, of {', '.join(UNITS)}")
            if figure in limits:
                raise _wrong(text, f"{figure} is said twice")
            if found["unit"] != UNITS[figure]:
                wanted, given = (unit or "no unit" for unit in (UNITS[figure], found["unit"]))
                raise _wrong(text, f"a limit of {figure} is in {wanted}, not in {given}")
            try:
                limits[figure] = float(found["number"])
            except ValueError as error:
                raise _wrong(text, f"{found['number']!r} is not a number") from error
        return Tolerance(limits)


def _wrong(text: str, why: str) -> OptionError:
    return OptionError(f"--tolerance {text!r} is not understood", why=why, hint=EXAMPLE)


@dataclass(frozen=True)
class Change:
    """A figure of both artifacts, and how much worse it has become (below 0: better)."""

    figure: str
    function: str
    name: str
    op: str
    old_scheme: str
    new_scheme: str
    old: float
    new: float
    worse_by: float
    limit: float

    @property
    def is_regression(self) -> bool:
        """Whether it is beyond its limit."""
        return self.worse_by > self.limit

    def to_json(self) -> dict[str, object]:
        """A row of `tw compare --against --json` (docs/json.md)."""
        values = {
            k: v if not isinstance(v, float) or math.isfinite(v) else None
            for k, v in vars(self).items()
        }
        return {**values, "regression": self.is_regression}


def changes(old: ModelErrors, new: ModelErrors, tolerance: Tolerance) -> list[Change]:
    """Every figure that has a limit, of all ops and outputs that both artifacts have; what has
    become worst first, in units of its limit."""
    found: list[Change] = []
    for key, row in new.rows.items():
        before = old.rows.get(key)
        if before is None:
            continue
        for figure in ("snr", "cosine"):
            if figure in tolerance.limits:
                limit = tolerance.limits[figure]
                values = _figures(figure, before.sums, row.sums)
                names = (key.function, key.name, row.op, before.scheme, row.scheme)
                found.append(Change(figure, *names, *values, limit))
    for (function, name), sums in new.outputs.items():
        before_sums = old.outputs.get((function, name))
        if before_sums is None:
            continue
        for figure in ("snr", "cosine", "output-snr", "output-cosine"):
            if figure in tolerance.limits:
                limit = tolerance.limits[figure]
                values = _figures(figure.removeprefix("output-"), before_sums, sums)
                found.append(Change(figure, function, name, "output", "", "", *values, limit))
    return sorted(found, key=_excess, reverse=True)


def perplexity_change(old: float, new: float, limit: float) -> Change:
    """The change of the perplexity in percent."""
    worse = 100 * (new / old - 1) if math.isfinite(old) else (0.0 if old == new else -math.inf)
    return Change("perplexity", "score", "perplexity", "", "", "", old, new, worse, limit)


def _excess(change: Change) -> float:
    return change.worse_by / change.limit if change.limit else change.worse_by * 1e30


def _figures(figure: str, old: ChannelSums, new: ChannelSums) -> tuple[float, float, float]:
    value: Callable[[ChannelSums], float] = _snr if figure == "snr" else _cosine
    before, after = value(old), value(new)
    return before, after, before - after


def _snr(sums: ChannelSums) -> float:
    return max(min(sums.snr_db, CLEAN_DB), -CLEAN_DB)


def _cosine(sums: ChannelSums) -> float:
    return -1.0 if sums.bad else sums.cosine
