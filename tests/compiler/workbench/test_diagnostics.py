"""Comments that expect errors, against the errors that come."""

from __future__ import annotations

import pytest

from tilewright.compiler.workbench.diagnostics import (
    Diagnostic,
    diagnostic_of,
    expected_in,
    mismatches,
)
from tilewright.dialects.errors import IRError, OptionError

TEXT = """
// expected-error@+3 {{plus}}
// expected-error@below {{below}}
// expected-note@above {{above}}
op // expected-warning {{here}}
op
// expected-error @-1 {{minus}}
// expected-error@unknown {{nowhere}}
// expected-error-re@above {{1.{{[0-9]+}} s}}
"""


def test_places() -> None:
    assert [(e.kind, e.text, e.line) for e in expected_in(TEXT, "t")] == [
        ("error", "plus", 5),
        ("error", "below", 5 + 1),
        ("note", "above", 1),
        ("warning", "here", 5),
        ("error", "minus", 6),
        ("error", "nowhere", None),
        ("error", "1.{{[0-9]+}} s", 6),
    ]


def test_a_line_with_a_comment_of_its_own_is_not_below() -> None:
    """As in MLIR: several comments may stand above the line that they speak of."""
    text = "// expected-error@below {{a}}\n// expected-error@below {{b}}\nop"
    assert [e.line for e in expected_in(text, "t")] == [3, 3]


def test_patterns() -> None:
    *_, pattern = expected_in(TEXT, "t")
    assert pattern.matches("took 1.25 s")
    assert not pattern.matches("took 1x25 s")
    assert not pattern.matches("took 1. s")
    with pytest.raises(OptionError, match="is no pattern") as caught:
        expected_in("\n// expected-error-re {{ {{(}} }}", "t")
    assert caught.value.where == "t:2"


EXPECTED = "op\n// expected-error@-1 {{no such}}"


@pytest.mark.parametrize(
    ("came", "wrong"),
    [
        ([Diagnostic(1, "there is no such op")], []),
        ([], ["t:2: expected error 'no such' on line 1 has not come"]),
        (
            [Diagnostic(2, "no such op")],
            [
                "t:2: unexpected error: no such op",
                "t:2: expected error 'no such' on line 1 has not come",
            ],
        ),
        (
            [Diagnostic(1, "no such op"), Diagnostic(1, "no such op")],
            ["t:1: unexpected error: no such op"],
        ),
        (
            [Diagnostic(None, "no such op")],
            [
                "t: unexpected error: no such op",
                "t:2: expected error 'no such' on line 1 has not come",
            ],
        ),
    ],
)
def test_mismatches(came: list[Diagnostic], wrong: list[str]) -> None:
    assert list(mismatches(expected_in(EXPECTED, "t"), came, "t")) == wrong


def test_other_kinds_never_come() -> None:
    expected = expected_in("op // expected-remark {{x}}", "t")
    (wrong,) = mismatches(expected, [], "t")
    assert wrong == "t:1: expected remark 'x' on line 1 has not come"
    assert len(list(mismatches(expected, [Diagnostic(1, "x")], "t"))) == 2


def test_the_line_of_an_error() -> None:
    error = IRError("is illegal", where="top.Add (a/b.mlir:12:3) in @f", why="because\nof")
    assert diagnostic_of(error, "a/b.mlir").line == 12
    assert diagnostic_of(error, "b.mlir").line is None
    assert diagnostic_of(error, "a/b.mlir").message.endswith("why: because of")
