"""What `--tolerance` says, and what is beyond it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tilewright.compiler.reports.figures import ChannelSums
from tilewright.compiler.reports.model_error import ModelErrors, OpError
from tilewright.compiler.reports.reference_runs import OpKey
from tilewright.compiler.reports.tolerance import Tolerance, changes, perplexity_change
from tilewright.dialects.errors import OptionError


def test_limits() -> None:
    text = "snr=0.5dB, cosine=1e-4,output-snr=3dB,output-cosine=0,perplexity=1.5%"
    assert Tolerance.parse(text).limits == {
        "snr": 0.5,
        "cosine": 1e-4,
        "output-snr": 3,
        "output-cosine": 0,
        "perplexity": 1.5,
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not a limit"),
        ("snr", "'snr' is not a limit"),
        ("speed=1%", "'speed=1%' is not a limit"),
        ("snr=-1dB", "'snr=-1dB' is not a limit, from 0 up,"),
        ("snr=0.5", "a limit of snr is in dB, not in no unit"),
        ("snr=1%", "a limit of snr is in dB, not in %"),
        ("cosine=1dB", "a limit of cosine is in no unit, not in dB"),
        ("snr=1.2.3dB", "'1.2.3' is not a number"),
        ("snr=1dB,snr=2dB", "snr is said twice"),
    ],
)
def test_what_is_no_limit(text: str, why: str) -> None:
    with pytest.raises(OptionError) as raised:
        Tolerance.parse(text)
    assert raised.value.why is not None
    assert why in raised.value.why
    assert raised.value.hint == "snr=0.5dB,cosine=1e-4,perplexity=1%"


def errors(noise: dict[str, float]) -> ModelErrors:
    exact = np.random.default_rng(0).standard_normal((10, 4))
    other = np.random.default_rng(1).standard_normal((10, 4))
    made = ModelErrors()
    for order, (name, size) in enumerate(noise.items()):
        key = OpKey("main", name, "MatMul", 0)
        sums = ChannelSums.of(exact, exact + size * other)
        made.rows[key] = OpError(key, "tpu.MatMul", "w8a16", "", order, sums)
    return made


def test_the_worst_comes_first_and_what_is_better_is_no_regression() -> None:
    old = errors({"a": 0.01, "b": 0.01, "c": 0.0, "gone": 0.1})
    new = errors({"a": 0.0105, "b": 0.02, "c": 0.0, "new": 0.1})
    found = changes(old, new, Tolerance.parse("snr=0.5dB"))
    assert [(c.name, c.is_regression) for c in found] == [("b", True), ("a", False), ("c", False)]
    assert found[0].worse_by == pytest.approx(20 * math.log10(2))
    assert found[1].worse_by == pytest.approx(20 * math.log10(1.05))
    back = changes(new, old, Tolerance.parse("snr=0dB,cosine=0"))
    assert not any(change.is_regression for change in back)


def test_values_that_are_no_longer_finite_are_a_regression() -> None:
    old, new = errors({"a": 0.1}), errors({"a": 0.1})
    (row,) = new.rows.values()
    row.sums = ChannelSums.of(np.ones((2, 2)), np.array([[1, np.nan], [1, 1]]))
    found = changes(old, new, Tolerance.parse("snr=50dB,cosine=0.1"))
    assert [change.is_regression for change in found] == [True, True]


def test_perplexity_in_percent() -> None:
    assert perplexity_change(8.0, 8.4, 4).is_regression
    assert perplexity_change(8.0, 8.4, 4).worse_by == pytest.approx(5)
    assert not perplexity_change(8.0, 8.4, 6).is_regression
    assert not perplexity_change(math.inf, 8.0, 1).is_regression
    assert perplexity_change(8.0, math.inf, 1).is_regression
