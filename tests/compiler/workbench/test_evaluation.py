"""When two values agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.backends.reference.balls import Ball
from tilewright.compiler.workbench.evaluation import (
    LOOSE,
    Difference,
    Outcome,
    SignatureError,
    difference,
    first_difference,
)


def ball(*values: float, radius: float = 0.0) -> Ball:
    array = np.array(values, np.float64)
    return Ball(array, np.full(array.shape, radius))


@settings(deadline=None)
@given(
    x=st.floats(-1e6, 1e6),
    y=st.floats(-1e6, 1e6),
    one=st.floats(0, 1e6),
    other=st.floats(0, 1e6),
)
def test_floats_agree_within_both_radii(x: float, y: float, one: float, other: float) -> None:
    found = difference("v", ball(x, radius=one), ball(y, radius=other))
    assert (found is None) == (abs(x - y) <= one + other)


def test_the_worst_element_is_named() -> None:
    before, after = ball(1, 2, 3, 4, radius=0.1), ball(1.05, 2.5, 1, 4)
    found = difference("output 0", before, after)
    assert found == Difference("output 0", (2,), 3.0, 1.0, 0.1, 2, 4)
    assert "output 0[2] is 3 before and 1 after" in str(found)
    assert "2 of 4" in str(found)


@pytest.mark.parametrize(
    ("before", "after", "agree"),
    [
        (np.nan, np.nan, True),
        (np.nan, 1.0, False),
        (1.0, np.nan, False),
        (np.inf, np.inf, True),
        (np.inf, -np.inf, False),
        (np.inf, 1.0, False),
        (1.0, np.inf, False),
    ],
)
def test_what_is_not_finite(before: float, after: float, agree: bool) -> None:
    assert (difference("v", ball(before, radius=9.0), ball(after)) is None) == agree


@pytest.mark.parametrize("after", [np.nan, np.inf, 1e300])
def test_what_may_overflow_is_not_judged(after: float) -> None:
    assert difference("v", ball(1.0, radius=np.inf), ball(after, radius=0)) is None
    assert difference("v", ball(1.0), ball(after, radius=np.inf)) is None


def test_lost_radii_do_not_hide_a_mistake() -> None:
    """Where radii say nothing, a millionth of the largest value is the bound."""
    before = ball(4.0, 1.0, radius=np.inf)
    assert difference("v", before, ball(4.0 + 1e-9, 1.0), loose=LOOSE) is None
    found = difference("v", before, ball(4.0, 1.0 + 1e-5), loose=LOOSE)
    assert found is not None
    assert (found.index, found.bound) == ((1,), 4 * LOOSE)
    assert first_difference(Outcome((before,), {}), Outcome((ball(4, 1.1),), {})) is not None
    assert difference("v", ball(0.0, radius=np.inf), ball(0.0), loose=LOOSE) is None
    assert difference("v", before, ball(4.0, np.nan), loose=LOOSE) is not None


def test_the_radius_of_what_is_undefined_excuses_nothing() -> None:
    assert difference("v", ball(1.0), ball(np.nan, radius=np.nan)) is not None


def test_integers_are_equal() -> None:
    before = Ball.exact(np.array([1, 2], np.int32))
    assert difference("v", before, before) is None
    found = difference("v", before, Ball.exact(np.array([1, 3], np.int32)))
    assert found is not None
    with pytest.raises(SignatureError, match="holds int32 before and float64 after"):
        difference("v", before, ball(1, 2))


def test_signatures() -> None:
    one, two = Outcome((ball(1),), {}), Outcome((ball(1), ball(2)), {})
    with pytest.raises(SignatureError, match="output 1"):
        first_difference(one, two)
    with pytest.raises(SignatureError, match="state 'k'"):
        first_difference(one, Outcome((ball(1),), {"k": ball(1)}))
    with pytest.raises(SignatureError, match=r"\[1\] before and \[2\] after"):
        first_difference(one, Outcome((ball(1, 2),), {}))
    found = first_difference(one, Outcome((ball(3),), {}))
    assert found is not None
    assert found.what == "output 0"
