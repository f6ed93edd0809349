"""docs/tutorial/testing_a_quantizer.md, in a project outside of the repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.tutorial.page import TUTORIALS, check_files, check_outputs, steps

PAGE = TUTORIALS / "testing_a_quantizer.md"
FILES = PAGE.with_suffix("")
KINDS = {".py": "python", ".toml": "toml", ".diff": "diff"}


def test_the_steps_are_the_files() -> None:
    check_files(PAGE)


@pytest.mark.parametrize("name", sorted(p.name for p in FILES.iterdir() if p.suffix in KINDS))
def test_the_page_shows_the_files(name: str) -> None:
    kind = KINDS[Path(name).suffix]
    assert f"`{name}`:\n\n```{kind}\n{(FILES / name).read_text()}```\n" in PAGE.read_text()


def is_meant(command: str, run: subprocess.CompletedProcess[str]) -> bool:
    """That of tests, where faults are still there."""
    return run.returncode == 1 and command == 'pytest -k "packing or product or noise"'


def test_every_command_prints_what_the_page_says(tmp_path: Path, bless: bool) -> None:
    for path in FILES.iterdir():
        if path.suffix in KINDS:
            shutil.copy(path, tmp_path)
    check_outputs(PAGE, tmp_path, bless, is_meant)


def test_the_last_step_is_green_and_the_first_ones_are_not() -> None:
    bodies = {step.file: step.body for step in steps(PAGE)}
    assert "10 fails" in bodies["02_report.sh"]
    assert "5 failed, 1 passed" in bodies["03_tests.sh"]
    assert "0 fails" in bodies["07_f32.sh"]
    assert "8 passed" in bodies["10_green.sh"]
