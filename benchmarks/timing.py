"""What the benchmark scripts share: paired rounds, medians, peak memory."""

from __future__ import annotations

import resource
from collections.abc import Callable
from statistics import median
from time import perf_counter


def seconds(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = perf_counter()
    run()
    return perf_counter() - start


def paired(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[float, float, float]:
    """Median seconds of both, taken in turn, and the median of the ratios first / second round by
    round.
    """
    pairs = [(seconds(first), seconds(second)) for _ in range(rounds)]
    return (
        median(a for a, _ in pairs),
        median(b for _, b in pairs),
        median(a / b for a, b in pairs),
    )


def peak_rss_bytes() -> int:
    """The largest resident set that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(what: str, value: float, limit: float, unit: str = "") -> None:
    """A line with a figure, its limit and whether it holds."""
    verdict = "holds" if value <= limit else "MISSED"
    print(f"{what:58s} {value:12,.3f} {unit:6s} limit {limit:12,.3f}  {verdict}")
