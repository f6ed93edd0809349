"""A page of a tutorial as a newcomer goes through it: its files in an empty folder, its steps in
order, each command with what the page says that it prints.

A step is a block of `console` behind `<!-- 01_name.sh -->`, the file that has its commands. Behind
`<!-- numbers vary -->` numbers are not compared. With `--bless` (`make golden`) the outputs are
written anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

STEP = re.compile(
    r"<!-- (?P<file>\d\d_\w+\.sh) -->\n(?P<varies><!-- numbers vary -->\n)?"
    r"```console\n(?P<body>.*?)```",
    re.DOTALL,
)
TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorial"
Failure = Callable[[str, "subprocess.CompletedProcess[str]"], bool]


@dataclass(frozen=True)
class Step:
    """A block of commands on the page, and the file that has them."""

    file: str
    varies: bool
    body: str
    block: str
    """All of it, with the marks."""

    @property
    def commands(self) -> list[str]:
        return re.findall(r"^\$ (.*)$", self.body, re.MULTILINE)


def steps(page: Path) -> Iterator[Step]:
    for found in STEP.finditer(page.read_text()):
        yield Step(found["file"], found["varies"] is not None, found["body"], found[0])


def check_files(page: Path) -> None:
    """The steps are the files in the page's folder."""
    files = page.with_suffix("")
    assert [step.file for step in steps(page)] == sorted(path.name for path in files.glob("*.sh"))
    for step in steps(page):
        assert step.commands == (files / step.file).read_text().splitlines()


def environment() -> Mapping[str, str]:
    """That of a user in whose environment Tilewright is installed.

    Without what pytest and Hypothesis look at: they print otherwise where `CI` is set.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    left_out = ("CI", "COLUMNS", "GITHUB_ACTIONS", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
    kept = {k: v for k, v in os.environ.items() if k not in (*left_out, "PYTHONPATH")}
    return {**kept, "PATH": path}


def session(commands: list[str], folder: Path, is_meant: Failure) -> str:
    """The commands with what they print, stdout before stderr; failures have to be meant."""
    text = ""
    for command in commands:
        run = subprocess.run(
            command, shell=True, cwd=folder, env=environment(), capture_output=True, text=True
        )
        assert run.returncode == 0 or is_meant(command, run), run.stdout + run.stderr
        text += f"$ {command}\n{run.stdout}{run.stderr}"
    return text


def without_numbers(text: str) -> str:
    return re.sub(r"-?\d[\d.]*(e[-+]\d+)?", "N", re.sub(r" +", " ", text))


def without_times(text: str) -> str:
    """Those of pytest."""
    return re.sub(r" in [\d.]+s\b", " in Ns", text)


def check_outputs(page: Path, folder: Path, bless: bool, is_meant: Failure) -> None:
    """Runs the steps in `folder`, and compares what they print with the page, or blesses it."""
    text = page.read_text()
    for step in steps(page):
        printed = session(step.commands, folder, is_meant)
        alike = without_numbers if step.varies else without_times
        if alike(printed) == alike(step.body):
            continue
        if bless:
            text = text.replace(step.block, step.block.replace(step.body, printed))
        else:
            assert printed == step.body, "make golden"
    if bless:
        page.write_text(text)
