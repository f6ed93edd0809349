"""The suite as its users see it: reports, choices of properties, errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import CodeFormat, Scheme, parse_scheme
from tilewright.testing import (
    PROPERTIES,
    PropertyError,
    Quantizer,
    Subject,
    Verdict,
    check_property,
    check_weight_quantizer,
    examine_weight_quantizer,
    quantizer_property,
)
from tilewright.testing.suite.property import Property, require

Array = npt.NDArray[Any]
GUIDE = Path(__file__).parents[3] / "docs" / "testing.md"


def rounding(weight: Array) -> tuple[Array, Array]:
    """A quantizer as people write it: no guard for zeros, ties to even, f32 scales."""
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    return np.round(weight / scale).clip(-127, 127).astype(np.int8), scale


class AsObject:
    """A quantizer with methods."""

    def quantize(self, weight: Array) -> tuple[Array, Array]:
        return rounding(weight)

    def dequantize(self, codes: Array, scale: Array) -> Array:
        return codes * scale.astype(np.float64)


def test_one_line_for_a_test() -> None:
    with pytest.raises(PropertyError) as caught:
        check_weight_quantizer(rounding, "w8a16", examples=40)
    text = str(caught.value)
    assert "zero-channels" in text
    assert "scales-are-positive" in text
    assert "weight = float32[" in text  # the counterexample
    assert caught.traceback[-1].frame.code.name == "raise_failures"
    hidden = [entry for entry in caught.traceback if entry.ishidden(caught)]
    assert [entry.frame.code.name for entry in hidden] == [
        "check_weight_quantizer",
        "raise_failures",
    ]  # so pytest points at the test


def test_a_report_names_what_holds_fails_and_does_not_apply() -> None:
    shown: list[str] = []
    chosen = ["input-is-kept", "zero-channels", "matmul-one-hot", "groups-are-channels"]
    report = examine_weight_quantizer(rounding, "w8a16", examples=40, properties=chosen)
    verdicts = {row.id: row.verdict for row in report}
    assert verdicts == {
        "input-is-kept": Verdict.HOLDS,
        "zero-channels": Verdict.FAILS,
        "matmul-one-hot": Verdict.NOT_APPLICABLE,
        "groups-are-channels": Verdict.NOT_APPLICABLE,
    }
    assert report["matmul-one-hot"].why == "the quantizer has no matmul"
    assert report["groups-are-channels"].why == "the scheme has no groups"
    assert not report.ok
    data = json.loads(report.json())
    assert [row["id"] for row in data["rows"]] == chosen
    assert data["rows"][1]["verdict"] == "fails"
    assert report.markdown().count("\n") == 1 + len(chosen)
    passing = check_weight_quantizer(
        rounding, "w8a16", examples=5, properties=["input-is-kept"], report=shown.append
    )
    assert passing.ok
    assert "1 holds" in shown[0]
    assert "  the quantizer has no matmul: matmul-one-hot\n" in report.text()
    assert report.text().count(report["zero-channels"].why) == 1
    with pytest.raises(KeyError):
        report["determinism"]


def test_counterexamples_are_shrunk() -> None:
    def no_negative(weight: Array) -> tuple[Array, Array]:
        codes, scale = rounding(np.where(weight == 0, np.float32(1e-3), weight))
        return np.abs(codes), scale

    row = examine_weight_quantizer(no_negative, "w8a16", properties=["error-bound"])["error-bound"]
    assert row.verdict is Verdict.FAILS
    (size,) = re.findall(r"float32\[1, (\d+)\]", row.counterexample)
    assert int(size) <= 2


def test_objects_and_wrong_things() -> None:
    report = examine_weight_quantizer(AsObject(), "w8a16", properties=["dequantization"])
    assert report["dequantization"].verdict is not Verdict.NOT_APPLICABLE
    with pytest.raises(OptionError, match="a int is not a quantizer"):
        examine_weight_quantizer(3, "w8a16")  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError, match="no property 'eror-bound'"):
        examine_weight_quantizer(rounding, "w8a16", exclude=["eror-bound"])
    with pytest.raises(OptionError, match="unknown quantization"):
        examine_weight_quantizer(rounding, "w9a16")
    with pytest.raises(OptionError, match="already"):
        quantizer_property("error-bound", lambda subject: st.tuples())(lambda subject: None)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda w: (w[:, :0].astype(np.int8), w[:, :1]), "codes of a weight"),
        (lambda w: (np.zeros(w.shape, np.int8), np.ones((len(w), 7))), "scale has shape"),
        (lambda w: (np.zeros(w.shape, np.int8),), r"\(codes, scale\)"),
        (lambda w: 1 / 0, "raises ZeroDivisionError"),
    ],
)
def test_results_that_do_not_fit(made: Any, why: str) -> None:
    row = examine_weight_quantizer(made, "w8a16", examples=3, properties=["code-range"])
    assert re.search(why, row["code-range"].why)


def test_every_property_is_documented() -> None:
    for name, prop in PROPERTIES.items():
        assert prop.meaning.endswith("."), name
        assert len(prop.catches) > 20, name
    assert len(PROPERTIES) >= 35


def test_the_guide_lists_every_property() -> None:
    _, section = GUIDE.read_text().split("\n## Properties\n")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", section, re.MULTILINE)
    assert rows == [(name, prop.meaning.replace("|", "\\|")) for name, prop in PROPERTIES.items()]


def test_examples_of_the_guide_run(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n# runs\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    exec(compile(code, "docs/testing.md", "exec"), {"__name__": "guide"})
    assert "zero-channels" in capsys.readouterr().out


ours = Subject.of(Quantizer(rounding), Scheme(CodeFormat.I8))


@given(PROPERTIES["input-is-kept"].cases(ours))
@settings(max_examples=20)
def test_one_property_in_a_test_of_my_own(case: tuple[Any, ...]) -> None:
    PROPERTIES["input-is-kept"].check(ours, *case)


def test_a_property_of_ones_own() -> None:
    def few_codes(subject: Subject, weight: Array) -> None:
        """No weight has more than ten codes.

        Catches nothing: it is an example."""
        require(len(np.unique(subject.quantize(weight).codes)) <= 10, "more than ten codes")

    mine = Property("few-codes", few_codes, PROPERTIES["error-bound"].cases)
    int4 = Subject.of(lambda w: (np.zeros(w.shape, np.int8), np.ones((len(w), 1))), "w8a16")
    assert check_property(mine, int4, examples=20).verdict is Verdict.HOLDS
    assert mine.catches == "nothing: it is an example."


def test_a_condition_that_is_never_met_is_no_success() -> None:
    from hypothesis import assume

    def never(subject: Subject, weight: Array) -> None:
        """Nothing.

        Catches nothing."""
        assume(False)

    prop = Property("never", never, PROPERTIES["error-bound"].cases)
    result = check_property(prop, ours, examples=5)
    assert result.verdict is Verdict.NOT_APPLICABLE
    assert result.why == "no case met the property's condition"


def test_importing_the_library_is_light() -> None:
    code = (
        "import sys; import tilewright.testing; "
        "print([m for m in ('numba', 'torch', 'tilewright.passes', 'tilewright.compiler',"
        " 'tilewright.backends.simulator') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_schemes_that_have_no_name_work() -> None:
    scheme = Scheme(CodeFormat.I8, group=5)
    assert parse_scheme("w8a16") != scheme

    def grouped(weight: Array) -> tuple[Array, Array]:
        groups = weight.reshape(-1, 5)
        codes, scale = rounding(np.where(groups == 0, np.float32(1e-3), groups))
        return codes.reshape(weight.shape), scale.reshape(len(weight), -1)

    check_weight_quantizer(grouped, scheme, examples=20, properties=["groups-are-channels"])
