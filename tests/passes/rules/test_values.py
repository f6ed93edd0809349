"""Attributes are compared as the chip holds them: in f32."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.passes.rules.values import same_constant, to_f32

LARGEST = float(np.finfo(np.float32).max)
FIRST_INFINITE = 2.0**128 - 2.0**103
"""Half way between the largest f32 and what would come next: it rounds to infinity."""


@given(st.floats())
@settings(deadline=None)
def test_rounds_as_numpy_does(number: float) -> None:
    with np.errstate(over="ignore"):
        assert np.array_equal(to_f32(number), np.float32(number), equal_nan=True)


@pytest.mark.parametrize("number", [LARGEST, np.nextafter(FIRST_INFINITE, 0), FIRST_INFINITE])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rounds_the_largest_numbers_as_numpy_does(number: float, sign: float) -> None:
    with np.errstate(over="ignore"):
        assert to_f32(sign * number) == float(np.float32(sign * number))


def test_a_constant_is_what_its_attribute_holds() -> None:
    assert same_constant(to_f32(0.1), 0.1)
    assert not same_constant(to_f32(0.1), 0.1000001)
