"""What is said of rules that make no sense: at which place, and what would be right."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
from tests.passes.rules.support import rule_set

from tilewright.dialects import plugins
from tilewright.dialects.errors import OptionError
from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.source import RuleError, file_source


def problems(text: str) -> list[str]:
    """`line:column: message`, with the hint behind a bar, of all that is wrong."""
    with pytest.raises(RuleError) as caught:
        rule_set(text)
    return [
        problem.place.removeprefix("test.rules:")
        + f": {problem.message}"
        + (f" | {problem.hint}" if problem.hint else "")
        for problem in caught.value.problems
    ]


def in_rule(match: str, rest: str = "replace y with x") -> str:
    return f"rule R {{\nmatch {{\n{match}\n}}\n{rest}\n}}"


MISTAKES = Path(__file__).with_name("mistakes.txt")


def cases(section: str) -> list[tuple[str, str]]:
    """The texts of a section of mistakes.txt, each with its first problem."""
    (text,) = re.findall(rf"^== {section}\n(.*?)(?=^== |\Z)", MISTAKES.read_text(), re.M | re.S)
    found: list[tuple[str, str]] = []
    for block in text.strip().split("\n\n"):
        written, _, said = block.partition("\n  > ")
        found.append((written, said.replace("\n  | ", " | ")))
    return found


@pytest.mark.parametrize(("text", "expected"), cases("syntax"))
def test_syntax(text: str, expected: str):
    assert problems(text) == [expected]


@pytest.mark.parametrize(("match", "expected"), cases("match"))
def test_match(match: str, expected: str):
    assert problems(in_rule(match))[0] == expected


@pytest.mark.parametrize(("rest", "expected"), cases("rest"))
def test_conditions_and_replacements(rest: str, expected: str):
    match = "y = top.RMSNorm(x, weight = w?) {eps: eps}"
    assert problems(in_rule(match, rest))[0] == expected


def test_replacing_an_op_without_a_name():
    expected = "5:9: y is not bound | give the root a name: y = ..."
    assert problems(in_rule("top.Neg(x)")) == [expected]


def test_two_rules_of_one_name():
    text = "rule R { match { y = top.Neg(x) } replace y with x }\n" * 2
    assert problems(text) == ["2:6: there is a rule R already, in line 1"]


def test_imports(monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("acme_helpers")
    vars(module).update(is_small=bool, number=3)
    monkeypatch.setitem(sys.modules, "acme_helpers", module)
    rest = "rule R { match { y = top.Neg(x) } where f(x) replace y with x }"
    assert problems(f"use acme.nothing: f\n{rest}") == [
        "1:5: cannot import acme.nothing: ModuleNotFoundError: No module named 'acme'"
    ]
    assert problems("use acme_helpers: is_smal") == [
        "1:19: acme_helpers has no function is_smal | did you mean is_small?"
    ]
    assert problems("use acme_helpers: number")[0].startswith(
        "1:19: acme_helpers has no function number"
    )
    assert problems("use acme_helpers: rank") == ["1:19: rank is a builtin function"]


def test_a_module_that_raises_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_helpers.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert problems("use broken_helpers: f") == [
        "1:5: cannot import broken_helpers: ZeroDivisionError: division by zero"
    ]


MANY = """use nowhere.at_all: f

rule Broken { match { y = top.Neg(x } replace y with x }
/// Right.
rule Right { match { y = top.Neg(top.Neg(x)) } replace y with x }
rule Wrong {
  match { y = top.Mull(x)
          z = top.Nag(y) }
  replace z with q
}
rule AlsoBroken { match { } replace y with x }
"""


def test_an_op_of_a_plugin_that_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plugins, "left_out", lambda: "plugin acme is left out (no module numbers)")
    assert problems(in_rule("y = acme.Neg(x)")) == [
        "3:5: there is no op acme.Neg | left out: plugin acme is left out (no module numbers)"
    ]
    assert problems(in_rule("y = top.Negg(x)")) == [
        "3:5: there is no op top.Negg | did you mean top.Neg?"
    ]


def test_all_mistakes_of_a_file_are_said_at_once():
    assert [re.findall(r"^\d+:\d+", problem)[0] for problem in problems(MANY)] == [
        "1:5",
        "3:37",
        "7:15",
        "8:15",
        "9:18",
        "11:27",
    ]


def test_the_line_is_shown_with_a_caret():
    text = in_rule("    y = top.MatMul(x, w) {rigth_transpose: t}")
    with pytest.raises(RuleError) as caught:
        rule_set(text)
    assert str(caught.value) == (
        "test.rules:3:27: top.MatMul has no attribute rigth_transpose\n"
        "  why:       y = top.MatMul(x, w) {rigth_transpose: t}\n"
        + " " * 9 + " " * 26 + "^" * 15 + "\n"
        "  hint:  did you mean right_transpose?"
    )  # fmt: skip
    assert isinstance(caught.value, OptionError)


def test_many_mistakes_are_shown_one_below_the_other():
    with pytest.raises(RuleError) as caught:
        rule_set(MANY)
    text = str(caught.value)
    assert (
        "test.rules:7:15: there is no op top.Mull\n"
        "    match { y = top.Mull(x)\n"
        "                ^^^^^^^^\n"
        "  hint: did you mean top.Mul?\n"
    ) in text


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(OptionError, match="cannot read the rules of"):
        file_source(tmp_path / "missing.rules")
    (tmp_path / "bytes.rules").write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="cannot read the rules of"):
        file_source(tmp_path / "bytes.rules")
    (tmp_path / "empty.rules").write_text("// nothing\n")
    assert load_rules(file_source(tmp_path / "empty.rules")).rules == ()
