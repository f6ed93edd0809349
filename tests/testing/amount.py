"""How many examples a test draws: so many, or 100 times as many at night."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> int:
    """`count`, for a profile of 100 examples."""
    return max(1, count * settings().max_examples // 100)
