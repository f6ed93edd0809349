"""The first bad pass and its first bad step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiler.workbench.failing_passes import registered
from tests.compiler.workbench.models import mixture

from tilewright.compiler.workbench.bisect import Bisection, bisect, first_bad_step
from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.dialects import top


@settings(deadline=None)
@given(steps=st.integers(0, 500), bad=st.integers(0, 501))
def test_halves(steps: int, bad: int) -> None:
    """The first n that fails, with few runs; nothing where none or all fail."""
    asked: list[int] = []

    def fails(limit: int) -> bool:
        asked.append(limit)
        return limit >= bad

    found = first_bad_step(fails, steps)
    assert found == (bad if 0 < bad <= steps else None)
    assert len(asked) <= 2 + steps.bit_length()
    assert len(set(asked)) == len(asked)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_what_is_found_is_a_step_that_makes_the_difference(outcomes: list[bool]) -> None:
    found = first_bad_step(lambda limit: outcomes[limit], len(outcomes) - 1)
    if found is None:
        assert outcomes[0] or not outcomes[-1]
    else:
        assert outcomes[found]
        assert not outcomes[found - 1]


def bisected(pipeline: str) -> Bisection | None:
    with registered():
        return bisect(mixture(), passes_from_text(pipeline))


@pytest.mark.parametrize(
    ("kind", "failure", "detail"),
    [
        ("crash", "exception", "KeyError in failing_passes.py:_visit"),
        ("refuse", "refusal", "UnsupportedError: this pass has no Sub"),
        ("break", "illegal IR", "operand # of top.Sub is used where it is not defined"),
        ("miscompile", "miscompilation", "miscompilation"),
    ],
)
def test_kinds_of_failure(kind: str, failure: str, detail: str) -> None:
    """Each ends at the first Sub of equal types."""
    found = bisected(f"stepwise{{kind=none}},stepwise{{kind={kind}}},compile")
    assert found is not None
    assert (found.failure.kind, found.failure.detail) == (failure, detail)
    assert (found.failure.pass_name, found.failure.pass_number) == ("stepwise", 2)
    assert found.step is not None
    assert (found.step.pattern, found.step.before.count("top.Sub")) == ("Touch", 1)
    assert found.step.op.startswith("top.Sub")
    assert found.failure.step == found.step.number
    ops = [op for op in mixture().walk() if isinstance(op, top.TopOp)]
    first = next(
        number
        for number, op in enumerate(ops, start=1)
        if isinstance(op, top.SubOp) and op.a.type == op.b.type
    )
    assert found.step.number == first
    assert found.steps == (first if kind in ("crash", "refuse") else len(ops))


def test_a_pass_that_does_not_say_its_steps() -> None:
    found = bisected("silent")
    assert found is not None
    assert found.failure.kind == "miscompilation"
    assert (found.step, found.steps) == (None, 0)


def test_nothing_fails() -> None:
    assert bisected("compile") is None
