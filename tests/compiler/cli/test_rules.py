"""`tw rules`: lists, shows and checks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.compiler.cli.harness import Tw

PAGE = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
RIGHT = """
/// Twice is once.
rule ReluOfRelu benefit 2 {
  match { y = top.Relu(top.Relu(x)) }
  replace y with top.Relu(x)
}
"""
WRONG = """
rule SwappedOperands {
  match { y = top.Neg(top.Sub(a, b)) }
  where shape(a) == shape(b)
  replace y with top.Sub(a, b)
}
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.rules").write_text(RIGHT)
    (tmp_path / "both.rules").write_text(RIGHT + WRONG)
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from tilewright.passes.rules.rule_pass import RulePass\n"
        "@dataclass(frozen=True)\n"
        "class MinePass(RulePass):\n"
        "    name = 'mine'\n"
        "    rules_file = 'mine.rules'\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_right_rules(tw: Tw, files: Path) -> None:
    for source in ("mine.rules", "mine.py"):
        result = tw("rules", "check", source, "--examples", "5")
        assert result.code == 0, result.err
        assert re.search(r"^ReluOfRelu +top.Relu +right +5 +5$", result.out, re.MULTILINE)
        assert "1 of 1 rules are right, on 5 instances" in result.out


def test_nothing_is_left_behind(tw: Tw, files: Path) -> None:
    before = sorted(files.iterdir())
    tw("rules", "check", "both.rules", "--examples", "5")
    assert sorted(files.iterdir()) == before


def test_a_wrong_rule_ends_with_13_and_its_counterexample(tw: Tw, files: Path) -> None:
    result = tw("rules", "check", "both.rules", "--examples", "20")
    assert result.code == 13
    assert "1 of 2 rules is not right" in result.err
    assert "both.rules:8:1" in result.err
    assert "SwappedOperands is wrong" in result.out
    assert "smallest instance: a f32[1], b f32[1]" in result.out
    (again,) = re.findall(r"again: tw (.*)", result.out)
    assert again == "rules check both.rules --examples 20 --seed 0 --rule SwappedOperands"
    counterexample = result.out.partition("SwappedOperands is wrong\n")[2].partition("\n\n")[0]
    assert counterexample in tw(*again.split()).out
    assert tw("rules", "check", "both.rules", "--rule", "ReluOfRelu", "--examples", "5").code == 0


def test_the_counterexample_in_the_documentation(tw: Tw, files: Path) -> None:
    blocks = re.findall(r"^```rules\n(.*?)^```", PAGE, re.M | re.S)
    (rule,) = (block for block in blocks if "rule DropsTheBias" in block)
    (shown,) = re.findall(r"^```\n(fuse.rules:2:1: .*?)^```", PAGE, re.M | re.S)
    (files / "fuse.rules").write_text(rule)
    assert shown in tw("rules", "check", "fuse.rules").out


def test_json_is_the_same_for_the_same_seed(tw: Tw, files: Path) -> None:
    first, second = (
        tw("rules", "check", "both.rules", "--json", "--examples", "10", "--seed", "3")
        for _ in range(2)
    )
    assert first.out == second.out
    right, wrong = json.loads(first.out)
    assert (right["verdict"], right["applied"]) == ("right", 10)
    assert wrong["verdict"] == "wrong"
    found = wrong["counterexample"]
    assert found["shapes"]["a"] == {"shape": [1], "element": "f32"}
    assert found["difference"]["before"] == -found["difference"]["after"]
    assert found["difference"]["bound"] < 1e-9


def test_list_and_show(tw: Tw, files: Path) -> None:
    listed = tw("rules", "mine.rules")
    assert re.search(r"ReluOfRelu +mine.rules +top.Relu +2 +Twice is once.", listed.out)
    assert tw("rules", "list", "mine.rules").out == listed.out
    names = {row["name"] for row in tw("rules", "list", "--json").json}
    assert {"AddBiasAfterMatMul", "LowerMatMulToW8A16"} <= names
    shown = tw("rules", "show", "AddBiasAfterMatMul")
    assert "of fuse-bias, benefit 1" in shown.out
    assert "replace y {" in shown.out
    assert "int8 codes" in tw("rules", "show", "LowerMatMulToW8A16").out


def test_show_looks_in_files(tw: Tw, files: Path) -> None:
    for source in ("both.rules", "mine.py"):
        shown = tw("rules", "show", source, "ReluOfRelu")
        assert shown.code == 0
        assert "replace y with top.Relu(x)" in shown.out


def test_a_pipeline_is_its_passes(tw: Tw) -> None:
    """The rules of `compile` are the lowerings."""
    listed = tw("rules", "list", "simplify", "--json").json
    passes = {row["of"] for row in listed}
    assert {"fuse-bias", "simplify-arithmetic"} <= passes
    assert "convert-top-to-tpu" not in passes
    assert {row["of"] for row in tw("rules", "list", "compile", "--json").json} == {
        "convert-top-to-tpu"
    }
    checked = tw("rules", "check", "simplify", "--rule", "AddBiasAfterMatMul", "--examples", "5")
    assert checked.code == 0, checked.err
    assert "1 of 1 rules are right" in checked.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check"], "takes a *.rules file"),
        (["check", "nothing"], "there are no rules called nothing"),
        (["check", "double-buffer"], "is not made of rules"),
        (["check", "missing.rules"], "cannot read"),
        (["check", "missing.py"], "cannot load"),
        (["check", "mine.rules", "--rule", "Other"], "there is no rule Other"),
        (["check", "kernels"], "no pass of the pipeline kernels is made of rules"),
        (["show", "Other"], "there is no rule Other"),
        (["show", "mine.rules", "ReluOfrelu"], "did you mean ReluOfRelu?"),
        (["show"], "takes the name of one rule"),
    ],
)
def test_words_that_make_no_sense(tw: Tw, files: Path, words: list[str], message: str) -> None:
    result = tw("rules", *words)
    assert result.code == 2
    assert message in result.err
