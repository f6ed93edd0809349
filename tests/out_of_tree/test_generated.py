"""What `tw new-pass` writes outside of the repository: kept under `generated`, where it is linted
and type-checked like all else, and installed here to run its own tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.out_of_tree.installed import TW, Installation, install

KEPT = Path(__file__).parent / "generated"
COMMANDS = (
    ("remove-double-negation", "--package", "sample"),
    ("remove-double-negation-by-rules", "--rules"),
)


def files_in(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith((".", "__py")) for part in path.parts)
    }


def test_it_is_as_it_is_kept(acme: Installation, tmp_path: Path) -> None:
    """To change it on purpose, write it anew with the commands above."""
    for arguments in COMMANDS:
        acme.output(*TW, "new-pass", *arguments, "--dir", tmp_path)
    assert files_in(tmp_path) == files_in(KEPT)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(KEPT, tmp_path_factory.mktemp("sample"))


def test_its_own_tests_pass(sample: Installation) -> None:
    done = sample.run(sys.executable, "-m", "pytest", "-q", sample.source / "tests")
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_its_passes_are_there(sample: Installation) -> None:
    rows = {row["name"]: row for row in sample.json("passes")}
    for name in ("remove-double-negation", "remove-double-negation-by-rules"):
        assert rows[name]["summary"] == "Remove negations of negations."
        assert rows[name]["package"] == "sample-tilewright"


def test_an_installed_plugin_is_not_made_again(sample: Installation, tmp_path: Path) -> None:
    done = sample.run(*TW, "new-pass", "another-one", "--package", "sample", "--dir", tmp_path)
    assert done.returncode == 2
    assert "a plugin 'sample' is installed already" in done.stderr
    assert list(tmp_path.iterdir()) == []
