"""`tw opt --check-each-pass`, `tw replay`, `tw bisect` and `tw reduce`."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.compiler.cli.harness import Tw, assert_refused, names_in
from tests.compiler.workbench.failing_passes import registered
from tests.compiler.workbench.models import mixture

from tilewright.dialects.context import parse_module, print_module

WRONG = "stepwise{kind=miscompile},compile"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.chdir(tmp_path)
    Path("m.mlir").write_text(print_module(mixture()))
    with registered():
        yield


def test_a_right_pipeline_says_nothing(tw: Tw) -> None:
    plain = tw.text("opt", "m.mlir", "-p", "compile")
    assert tw.text("opt", "m.mlir", "-p", "compile", "--check-each-pass") == plain
    assert names_in(Path()) == ["m.mlir"]


def test_a_wrong_pass_is_named_and_kept(tw: Tw) -> None:
    result = tw("opt", "m.mlir", "-p", WRONG, "--check-each-pass")
    said = ("pass stepwise changes what @main computes", "by Touch (step", "at top.Sub", "apart")
    assert_refused(result, 13, *said, "tw replay tilewright-reproducers/stepwise-miscompilation")
    (folder,) = Path("tilewright-reproducers").iterdir()
    again = tw("replay", folder)
    assert again.code == 13
    assert again.out.startswith("reproduced: miscompilation in pass stepwise, pattern Touch")
    assert tw("opt", "--run-reproducer", folder).code == 13
    (folder / "reproducer.json").write_text(
        (folder / "reproducer.json").read_text().replace('kind=\\"miscompile', 'kind=\\"none')
    )
    gone = tw("replay", folder)
    assert (gone.code, gone.out.split(":")[0]) == (0, "not reproduced")
    assert tw("replay", folder, "--json").json["reproduced"] is False


def test_where_reproducers_go(tw: Tw) -> None:
    tw("opt", "m.mlir", "-p", WRONG, "--check-each-pass", "--reproducers", "none")
    assert names_in(Path()) == ["m.mlir"]
    tw("opt", "m.mlir", "-p", "stepwise,compile")
    assert names_in(Path()) == ["m.mlir"]
    result = tw("opt", "m.mlir", "-p", "stepwise,compile", "--crash-reproducer", "here")
    assert_refused(result, 70, "KeyError", "tw replay here/stepwise-exception")
    assert names_in(Path("here")) == ["stepwise-exception"]
    again = tw("replay", "here/stepwise-exception")
    assert again.code == 70
    line = re.search(r"KeyError: .* \(failing_passes\.py:\d+\)", result.err)
    assert line is not None
    assert line[0] in again.out


def test_cases_and_seed(tw: Tw) -> None:
    arguments = ("opt", "m.mlir", "-p", WRONG, "--check-each-pass", "--check-inputs")
    assert_refused(tw(*arguments, "huge"), 2, "unknown case of inputs 'huge'", "one-hot")
    result = tw(*arguments, "one-hot,random", "--check-seed", 7)
    assert "on one-hot inputs" in result.err
    assert tw("replay", "tilewright-reproducers/stepwise-miscompilation").code == 13


def test_bisect(tw: Tw) -> None:
    text = tw.text("bisect", "m.mlir", "-p", WRONG)
    assert "first bad pass: stepwise (pass 1)" in text
    assert "first bad step: Touch, step " in text
    assert text.count("top.Sub") >= 3
    document = tw("bisect", "m.mlir", "-p", WRONG, "--json").json
    assert (document["pass_name"], document["pattern"]) == ("stepwise", "Touch")
    assert document["step"] <= document["steps"]
    assert "top.Sub" in document["before"]
    tw("opt", "m.mlir", "-p", WRONG, "--check-each-pass")
    assert tw.text("bisect", "tilewright-reproducers/stepwise-miscompilation") == text


def test_reduce(tw: Tw) -> None:
    result = tw("reduce", "m.mlir", "-p", WRONG, "-o", "small.mlir")
    assert result.code == 0
    assert re.search(r"^\d\d ops became 1,", result.err) is not None
    module = parse_module(Path("small.mlir").read_text(), "small.mlir")
    assert [op.name for op in module.walk()].count("top.Sub") == 1
    assert tw("replay", "tilewright-reproducers/stepwise-miscompilation").code == 13
    assert tw("opt", "small.mlir", "-p", WRONG, "--check-each-pass").code == 13
    plain = tw("reduce", "m.mlir", "-p", WRONG, "--reproducers", "none")
    assert plain.out == Path("small.mlir").read_text()
    document = tw("reduce", "m.mlir", "-p", WRONG, "-o", "small.mlir", "--json").json
    assert document["ops_after"] == 1
    assert document["reproducer"].startswith("tilewright-reproducers/")


@pytest.mark.parametrize("verb", ["bisect", "reduce"])
def test_what_makes_no_sense(tw: Tw, verb: str) -> None:
    assert_refused(tw(verb, "m.mlir", "-p", "compile"), 2, "nothing fails", "m.mlir")
    assert_refused(tw(verb, "m.mlir"), 2, "there is no pipeline")
    assert_refused(tw(verb, "none.mlir", "-p", "compile"), 3, "none.mlir")
    assert_refused(tw("replay", "."), 3, "there is no reproducer to read")
