"""Least error within a budget: against every combination there is, and against a lower bound."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.compiler.quantization.allocation import Choice, allocate

CHOICES = st.builds(Choice, st.integers(0, 30), st.integers(0, 1000).map(lambda error: error / 8))
ITEMS = st.lists(st.lists(CHOICES, min_size=1, max_size=4), max_size=5)


def best(items: list[list[Choice]], budget: int) -> float | None:
    """The least error over all combinations; errors are eighths, so that sums are exact."""
    return min(
        (
            sum(choice.error for choice in combination)
            for combination in product(*items)
            if sum(choice.cost for choice in combination) <= budget
        ),
        default=None,
    )


@settings(deadline=None)
@given(ITEMS, st.integers(0, 120))
def test_it_is_the_best_of_all_combinations(items: list[list[Choice]], budget: int) -> None:
    chosen = allocate(items, budget)
    if chosen is None:
        assert best(items, budget) is None
        return
    picked = [item[index] for item, index in zip(items, chosen, strict=True)]
    assert sum(choice.cost for choice in picked) <= budget
    assert sum(choice.error for choice in picked) == best(items, budget)


def lower_bound(items: list[list[Choice]], budget: int) -> float:
    """By Lagrangian duality: `min error + m * (cost - budget)` is not above the optimum for any
    m >= 0; the best of many m."""
    bounds: list[float] = []
    for multiplier in np.geomspace(1e-22, 1e-2, 800):
        least = sum(min(c.error + multiplier * c.cost for c in item) for item in items)
        bounds.append(float(least - multiplier * budget))
    return max(bounds)


@pytest.mark.parametrize("points", [20_000, 500])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_thinned_frontiers_stay_within_the_budget_and_near_the_best(
    share: float, points: int
) -> None:
    """120 tensors of real sizes: far too many combinations to count."""
    rng = np.random.default_rng(7)
    items: list[list[Choice]] = []
    for _ in range(120):
        size, noise = int(rng.integers(10**6, 10**8)), float(rng.lognormal())
        bits = [4.25, 4.5, 4.75, 8.25, 16]
        errors = [noise * 10 ** (-each / 2) * float(rng.uniform(0.8, 1.2)) for each in bits]
        items.append([Choice(int(size * b / 8), e) for b, e in zip(bits, errors, strict=True)])
    low = sum(min(choice.cost for choice in item) for item in items)
    high = sum(max(choice.cost for choice in item) for item in items)
    budget = int(low + share * (high - low))
    chosen = allocate(items, budget, points=points)
    assert chosen is not None
    picked = [item[index] for item, index in zip(items, chosen, strict=True)]
    assert sum(choice.cost for choice in picked) <= budget
    error, bound = sum(choice.error for choice in picked), lower_bound(items, budget)
    assert bound <= error <= 1.05 * bound


def test_nothing_is_cheap_enough() -> None:
    assert allocate([[Choice(3, 0.0)], [Choice(4, 0.0), Choice(5, 0.0)]], 6) is None
    assert allocate([[Choice(3, 0.0)], [Choice(4, 0.0), Choice(5, 0.0)]], 7) == [0, 0]
    assert allocate([], 0) == []
