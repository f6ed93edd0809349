"""The commands of docs/workbench.md and what the page says that they print.

Each `console` block is run, in a folder that holds the page's first `mlir` block as `layer.mlir`.
Of a block behind `<!-- numbers vary -->` numbers are not compared. `make golden` writes the outputs
anew.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilewright.compiler.cli import run

PAGE = Path(__file__).parents[2] / "docs" / "workbench.md"
BLOCK = re.compile(r"(?P<varies><!-- numbers vary -->\n)?```console\n(?P<body>.*?)```", re.DOTALL)


def blocks() -> Iterator[re.Match[str]]:
    return BLOCK.finditer(PAGE.read_text())


def session(commands: list[str], capture: pytest.CaptureFixture[str]) -> str:
    """The commands with what they print, stdout before stderr."""
    text = ""
    for command in commands:
        program, *arguments = shlex.split(command)
        capture.readouterr()
        if program == "ls":
            print("\n".join(sorted(path.name for path in Path(arguments[0]).iterdir())))
        else:
            assert program == "tw", command
            assert run(arguments) == 0
        captured = capture.readouterr()
        text += f"$ {command}\n{captured.out}{captured.err}"
    return text


def without_numbers(text: str) -> str:
    return re.sub(r"[\d.]+", "N", re.sub(r" +", " ", text))


def test_the_page_is_what_is_printed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bless: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    layer = re.search(r"```mlir\n(.*?)```", page, re.DOTALL)
    assert layer is not None
    Path("layer.mlir").write_text(layer[1])
    for block in blocks():
        commands = re.findall(r"^\$ (.*)$", block["body"], re.MULTILINE)
        printed = session(commands, capsys)
        if block["varies"] and without_numbers(printed) == without_numbers(block["body"]):
            continue
        if bless:
            page = page.replace(block["body"], printed)
        else:
            assert printed == block["body"], "make golden"
    if bless:
        PAGE.write_text(page)


def test_the_diff_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    layer, diff = (re.search(rf"```{k}\n(.*?)```", page, re.DOTALL) for k in ("mlir", "diff"))
    assert layer is not None
    assert diff is not None
    Path("layer.mlir").write_text(layer[1])
    session(["tw opt layer.mlir --compile=quant=f16 --print-ir-tree-dir=s --stop-after=1"], capsys)
    assert Path("s", "01-convert-top-to-tpu.diff").read_text() == diff[1]


def test_the_expected_error_on_the_page(tmp_path: Path) -> None:
    (block,) = re.findall(r"```mlir\n([^`]*expected-error[^`]*)```", PAGE.read_text())
    path = tmp_path / "m.mlir"
    path.write_text(block)
    assert run(["opt", str(path), "--verify-diagnostics"]) == 0
    path.write_text(block.replace("[4, 32]", "[4, 33]"))
    assert run(["opt", str(path), "--verify-diagnostics"]) == 1
