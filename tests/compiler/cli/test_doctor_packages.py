"""`tw doctor` looks at every package that the core needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tilewright.compiler.cli.doctor_verb import PACKAGES

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_every_dependency_is_looked_at() -> None:
    requirements = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=! ]", requirement)[0] for requirement in requirements}
    assert names <= {*PACKAGES, "typing-extensions"}
    assert set(PACKAGES) - names == {"tilewright"}
