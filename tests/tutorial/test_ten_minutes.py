"""docs/tutorial/ten_minutes.md, as a newcomer goes through it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.tutorial.page import TUTORIALS, check_files, check_outputs

PAGE = TUTORIALS / "ten_minutes.md"
FILES = PAGE.with_suffix("")
LINE_LIMIT = 40
"""Of the user's own, the test among them: the figure of the issue is to stay below it."""


def test_the_steps_are_the_files() -> None:
    check_files(PAGE)


@pytest.mark.parametrize("name", ["model.py", "linear_gelu.py", "test_linear_gelu.py"])
def test_the_page_shows_the_files(name: str) -> None:
    assert f"`{name}`:\n\n```python\n{(FILES / name).read_text()}```\n" in PAGE.read_text()


def test_it_takes_fewer_than_forty_lines() -> None:
    """Of code: neither empty lines nor comments."""
    text = "".join((FILES / name).read_text() for name in ("linear_gelu.py", "test_linear_gelu.py"))
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    assert len(lines) < LINE_LIMIT
    assert f"{len(lines)} lines in all" in PAGE.read_text()


def test_it_saves_a_third() -> None:
    """What the page and README.md say, of the cycles that `tw run` prints on the page."""
    plain, fused = (
        int(cycles.replace(",", ""))
        for cycles in re.findall(r"^main: ([\d,]+) cycles", PAGE.read_text(), re.MULTILINE)
    )
    assert 1 - fused / plain > 1 / 3


def is_miscompilation(command: str, run: subprocess.CompletedProcess[str]) -> bool:
    """The one that the page shows."""
    return run.stderr.startswith("tw: miscompilation")


def test_every_command_prints_what_the_page_says(tmp_path: Path, bless: bool) -> None:
    for path in FILES.glob("*.py"):
        shutil.copy(path, tmp_path)
    check_outputs(PAGE, tmp_path, bless, is_miscompilation)
