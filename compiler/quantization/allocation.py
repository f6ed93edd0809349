"""Least total error within a budget: one choice for each item (the multiple-choice knapsack).

The choices made so far are kept as a frontier of sums `(cost, error)` of which none is both dearer
and worse than another. An item is added by adding each of its choices to each point; the points
that cannot end within the budget fall away. The answer is exact as long as frontiers have no more
than `POINTS` points, which a few items never reach; longer ones are thinned evenly over their
costs, so that the answer is still within the budget and nearly the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

POINTS = 20_000
"""How many points of a frontier are kept."""


@dataclass(frozen=True)
class Choice:
    """One way to store an item."""

    cost: int
    """In units of the budget: bits, bytes or cycles."""
    error: float
    """What is added to the total error."""


@dataclass(frozen=True)
class _Step:
    """The frontier with one item more, and how each of its points came about."""

    costs: npt.NDArray[np.int64]
    errors: npt.NDArray[np.float64]
    parents: npt.NDArray[Any]
    choices: npt.NDArray[Any]


def allocate(
    items: Sequence[Sequence[Choice]], budget: int, *, points: int = POINTS
) -> list[int] | None:
    """For each item the index of its choice, such that the costs sum up to at most `budget` and
    the errors to the least; none if even the cheapest choices cost more."""
    least = [min(choice.cost for choice in item) for item in items]
    steps = [_Step(np.zeros(1, np.int64), np.zeros(1), np.zeros(1, int), np.zeros(1, int))]
    if sum(least) > budget:
        return None
    for number, item in enumerate(items):
        room = budget - sum(least[number + 1 :])
        steps.append(_thinned(_extended(steps[-1], item, room), points))
    point = int(np.argmin(steps[-1].errors))
    chosen: list[int] = []
    for step in reversed(steps[1:]):
        chosen.append(int(step.choices[point]))
        point = int(step.parents[point])
    return chosen[::-1]


def _extended(before: _Step, item: Sequence[Choice], room: int) -> _Step:
    """The frontier of what costs at most `room`, by ascending costs and descending errors."""
    costs = (before.costs[:, None] + np.array([each.cost for each in item])[None]).ravel()
    errors = (before.errors[:, None] + np.array([each.error for each in item])[None]).ravel()
    order = np.lexsort((errors, costs))
    order = order[costs[order] <= room]
    best_so_far = np.minimum.accumulate(errors[order])
    better = np.concatenate(([True], errors[order][1:] < best_so_far[:-1]))
    kept = order[better]
    return _Step(costs[kept], errors[kept], kept // len(item), kept % len(item))


def _thinned(step: _Step, points: int) -> _Step:
    """At most `points` points, evenly over the costs; the cheapest and the best stay."""
    if len(step.costs) <= points:
        return step
    wanted = np.linspace(step.costs[0], step.costs[-1], points)
    kept = np.unique(np.searchsorted(step.costs, wanted, side="right") - 1)
    return _Step(step.costs[kept], step.errors[kept], step.parents[kept], step.choices[kept])
