"""docs/rules.md says what is: its rules can be read, its tables are those of the language."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from tests.passes.rules.support import function, names, ops, rewrite, rule_set

from tilewright.dialects.context import make_context
from tilewright.passes.registry import find_pass
from tilewright.passes.rules.rule_pass import RulePass
from tilewright.passes.rules.source import RuleError
from tilewright.passes.rules.values import FUNCTIONS

PAGE = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
X = "tensor<4x8xf32>"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


RULES = {block: rule_set(block) for block in blocks("rules")}


def block_of(name: str) -> str:
    (found,) = (
        text
        for text, found in RULES.items()
        if name in [rule.name for rule in (*found.rules, *found.lowerings)]
    )
    return found


def test_every_block_holds_rules():
    assert len(RULES) >= 5
    for found in RULES.values():
        assert len(found.rules) + len(found.lowerings) > 0


def test_the_first_rule():
    module = function(
        f"""%b = top.Weight "b" : tensor<8xf32>
        %m = top.MatMul %x, %w {{right_transpose}} : {X}, tensor<8x8xf32> -> {X}
        %y = top.Add %m, %b : {X}, tensor<8xf32> -> {X}""",
        f"%x: {X}, %w: tensor<8x8xf32>",
    )
    assert rewrite(block_of("AddBiasAfterMatMul"), module) == 1
    assert names(module) == ["Weight", "MatMul"]


def test_the_conditions():
    for second, expected in (("0.5", ["MulConst"]), ("0.1", ["MulConst"] * 2)):
        module = function(
            f"%a = top.MulConst %x {{value = 0.3 : f32}} : {X} -> {X}\n"
            f"%y = top.MulConst %a {{value = {second} : f32}} : {X} -> {X}"
        )
        rewrite(block_of("MulConstOfMulConst"), module)
        assert names(module) == expected


def test_the_import():
    module = function(f"%a = top.Relu %x : {X} -> {X}\n%y = top.Relu %a : {X} -> {X}")
    assert rewrite(block_of("OfEvenSizes"), module) == 1


def test_the_statements():
    module = function(
        f"%a = top.Concat %x, %x {{axis = 0 : i64}} : {X}, {X} -> tensor<8x8xf32>\n"
        "%y = top.Relu %a : tensor<8x8xf32> -> tensor<8x8xf32>"
    )
    assert rewrite(block_of("ReluBeforeConcat"), module) == 1
    assert names(module) == ["Relu", "Relu", "Concat"]


def test_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (text,) = (block for block in blocks("python") if "RulePass)" in block)
    (tmp_path / "documented_pass.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    found = importlib.import_module("documented_pass").DropDoubleNegationPass
    assert issubclass(found, RulePass)
    module = function(f"%a = top.Neg %x : {X} -> {X}\n%y = top.Neg %a : {X} -> {X}")
    found().apply(make_context(), module)
    assert ops(module) == []


def test_the_test_of_rules():
    (text,) = (block for block in blocks("python") if "check_rule" in block)
    module = ModuleType("documented_test")
    exec(compile(text, "rules.md", "exec"), vars(module))
    test = vars(module)["test_rule"]
    (mark,) = test.pytestmark
    name, rules = mark.args
    assert (name, [rule.name for rule in rules]) == ("rule", names_of("fuse-bias"))
    test(rules[0])


def names_of(pass_name: str) -> list[str]:
    found = find_pass(pass_name)
    assert issubclass(found, RulePass)
    return [rule.name for rule in found.rules().rules]


def test_the_table_of_functions():
    rows = [
        f"| `{name}({', '.join('ab'[:count])})` | {text} |"
        for name, (count, _, text) in FUNCTIONS.items()
    ]
    table = "\n".join(["| function | gives |", "| --- | --- |", *rows])
    assert f"<!-- functions -->\n{table}\n<!-- end of functions -->" in PAGE


FORMS = re.findall(
    r"^\| `(x: [^`]+|[a-z]+ = [^`]+|_|x|top[^`]+)`(?:, or[^|]*)? \|", PAGE, re.MULTILINE
)


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_operands(form: str):
    """Each form of the tables can be written as an operand of some op."""
    if form.startswith("top."):
        match = f"y = {form}"
    elif form.startswith("bias"):
        match = f"y = top.MatMul(x, w, {form})"
    elif form.startswith("right"):
        match = f"y = top.MatMul(x, {form})"
    else:
        match = f"y = top.Abs({form})"
    text = f'rule R {{ match {{ {match} }} replace y with top.Weight() {{key: "k"}} -> like y }}'
    rule_set(text)


def test_there_are_forms():
    assert len(FORMS) >= 14


ATTRIBUTES = re.findall(r"`(\{[^`]+\})`", PAGE[: PAGE.index("## Conditions")])


@pytest.mark.parametrize("written", ATTRIBUTES)
def test_the_forms_of_attributes(written: str):
    ops = {"eps": "RMSNorm(x)", "value": "MulConst(x)", "order": "Permute(x)", "key": "Weight()"}
    ops |= {"mode": "Reduce(x)", "right_transpose": "MatMul(x, w)", "top": "Abs(x)"}
    name = re.findall(r"\w+", written)[0]
    rule_set(
        f"rule R {{ match {{ y = top.{ops[name]} {written} }} "
        'replace y with top.Weight() {key: "k"} -> like y }'
    )


def test_the_mistake():
    (shown,) = blocks("text")
    place, line, *_ = shown.splitlines()
    assert place.startswith("fuse.rules:4:")
    written = line.removeprefix("  ")
    with pytest.raises(RuleError) as caught:
        rule_set(f"rule R {{\n  match {{\n\n{written}\n  }}\n  replace m with x\n}}")
    (problem,) = caught.value.problems
    assert problem.text.replace("test.rules", "fuse.rules").splitlines() == shown.splitlines()
