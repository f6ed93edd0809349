"""Runs the lit tests: IR before and after each pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "filecheck"
FILES = sorted(FOLDER.rglob("*.mlir"))


def test_there_are_lit_tests() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_lit(path: Path) -> None:
    lit = Path(sys.executable).with_name("lit")
    done = subprocess.run([lit, "-v", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
