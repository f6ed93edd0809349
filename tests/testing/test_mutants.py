"""Every property finds a fault that was planted for it, and finds none in a quantizer without."""

from __future__ import annotations

import numpy as np
import pytest
from tests.testing.amount import examples
from tests.testing.mutants import MUTANTS, Mutant
from tests.testing.right import Right

from tilewright.dialects.quantization import parse_scheme
from tilewright.testing import (
    PROPERTIES,
    Subject,
    Verdict,
    check_property,
    check_weight_quantizer,
    examine_weight_quantizer,
)

DTYPES = (np.float32, np.float16)
EXAMPLES = 150


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_planted_faults_are_found(mutant: Mutant) -> None:
    subject = Subject.of(mutant.made().quantizer(), mutant.scheme, DTYPES)
    for name in mutant.found_by:
        row = check_property(PROPERTIES[name], subject, examples=EXAMPLES, shrink=False)
        assert row.verdict is Verdict.FAILS, row.id
        assert row.why
        assert row.counterexample


def test_every_property_finds_a_fault() -> None:
    assert {name for mutant in MUTANTS for name in mutant.found_by} == set(PROPERTIES)


@pytest.mark.parametrize(
    "scheme", ["w8a16", "w8a16-g16", "w4a16-g16", "w4a16-channel-absmax", "f8e4m3"]
)
def test_a_right_quantizer_has_every_property(scheme: str) -> None:
    right = Right(parse_scheme(scheme)).quantizer()
    report = check_weight_quantizer(right, scheme, examples=examples(20), dtypes=DTYPES)
    assert {row.verdict for row in report} == {Verdict.HOLDS, Verdict.NOT_APPLICABLE}


def test_every_property_applies_somewhere() -> None:
    held: set[str] = set()
    for scheme in ("w8a16-g16", "w4a16-g16", "w4a16-channel-absmax"):
        right = Right(parse_scheme(scheme)).quantizer()
        report = examine_weight_quantizer(right, scheme, examples=1, dtypes=DTYPES)
        held |= {row.id for row in report if row.verdict is Verdict.HOLDS}
    assert held == set(PROPERTIES)
