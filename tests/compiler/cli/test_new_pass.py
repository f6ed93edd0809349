"""`tw new-pass`: what it writes works, and it never leaves half of it. The package that it makes is
used in tests/out_of_tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.compiler.cli.harness import ROOT, TW, Tw, assert_refused, names_in

from tilewright.compiler.cli.new_pass_verb import Plan, carry_out
from tilewright.dialects.errors import OptionError

NAME = "remove-twofold-negation"
ROOMS = ("dialects", "backends", "passes", "compiler")
META = "tests/meta/test_completeness.py"


@pytest.mark.parametrize(
    "name",
    ["Fuse", "fuse_bias", "2x", "fuse--bias", "-x", "x-", "a/b", "..", "", "class", "a" * 41],
)
def test_names_that_no_pass_can_have(tw: Tw, tmp_path: Path, name: str) -> None:
    result = tw("new-pass", "--dir", tmp_path, "--package", "sample", "--", name)
    assert_refused(result, 2, "is no name for a pass")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["insert-waits", "compile"])
def test_names_that_are_taken(tw: Tw, tmp_path: Path, name: str) -> None:
    result = tw("new-pass", name, "--dir", tmp_path, "--package", "sample")
    assert_refused(result, 2, f"there is a pass or pipeline '{name}' already")
    assert names_in(tmp_path) == []


def test_nowhere_to_write(tw: Tw, tmp_path: Path) -> None:
    result = tw("new-pass", NAME, "--dir", tmp_path)
    assert_refused(result, 2, "neither a checkout", "--package acme")
    result = tw("new-pass", NAME, "--dir", ROOT, "--package", "sample")
    assert_refused(result, 2, "is a checkout of Tilewright")
    result = tw("new-pass", NAME, "--dir", tmp_path, "--package", "../x")
    assert_refused(result, 2, "is no name for a package")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("project", "module", "said"),
    [
        ("[project]", "", "the package has no plugin"),
        ("[", "", "the package has no plugin"),
        ("a.b:P", "", "the plugin's module a.b is not found"),
        ("a:P", "P = Plugin('a')", "has no passes={...} in its Plugin(...)"),
        ("a:P", "P = Plugin('a', passes={})", "does not import lazy"),
    ],
)
def test_packages_that_nothing_can_be_added_to(
    tw: Tw, tmp_path: Path, project: str, module: str, said: str
) -> None:
    if ":" in project:
        project = f'[project.entry-points."tilewright.plugins"]\na = "{project}"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "__init__.py").write_text(module)
    assert_refused(tw("new-pass", NAME, "--dir", tmp_path), 2, said)
    assert names_in(tmp_path) == ["a", "pyproject.toml"]
    assert names_in(tmp_path / "a") == ["__init__.py"]


def test_what_to_do_next(tw: Tw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package has to be installed before `tw` sees the pass; its tests need their tools."""
    install = "pip install -e '.[test]' && pytest"
    text = tw.text("new-pass", NAME, "--dir", tmp_path / "my folder", "--package", "sample")
    assert text.splitlines()[-1] == f"next     cd '{tmp_path / 'my folder'}' && {install}"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = tw.text("new-pass", NAME, "--package", "sample")
    assert text.splitlines()[-1] == f"next     {install}"
    assert "test = [" in (tmp_path / "here" / "pyproject.toml").read_text()


def test_nothing_is_overwritten(tw: Tw, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_filecheck.py").write_text("mine")
    result = tw("new-pass", NAME, "--dir", tmp_path, "--package", "sample")
    assert_refused(result, 2, "test_filecheck.py exists already", "nothing was written")
    assert names_in(tmp_path) == ["tests"]
    assert (tmp_path / "tests" / "test_filecheck.py").read_text() == "mine"


def test_a_plugin_in_src_that_keeps_its_rows_in_a_variable(tw: Tw, tmp_path: Path) -> None:
    package = tmp_path / "src" / "a" / "b"
    package.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        '[project.entry-points."tilewright.plugins"]\na = "a.b.plug:P"\n'
    )
    (package / "plug.py").write_text(
        "from tilewright.dialects.plugins import Plugin, lazy\n\nROWS = {}\n"
        "P = Plugin('a', passes=ROWS)\n"
    )
    document = tw("new-pass", NAME, "--dir", tmp_path, "--json").json
    assert document["changed"] == [str(package / "plug.py")]
    row = 'lazy(\n        "a.b.remove_twofold_negation:RemoveTwofoldNegationPass"\n    )'
    assert (
        row in (package / "plug.py").read_text()
        or row.replace("\n        ", "").replace("\n    )", ")")
        in (package / "plug.py").read_text()
    )
    assert (package / "remove_twofold_negation.py").is_file()
    assert f"| `{NAME}` |" in (tmp_path / "docs" / "passes.md").read_text()


def test_a_failure_at_the_end_leaves_all_as_it_was(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "page.md").write_text("before")
    (tmp_path / "registry.py").write_text("rows")

    def finish() -> None:
        (pages / "page.md").write_text("half")
        raise OptionError("no more")

    new = tmp_path / "deep" / "er" / "new.py"
    plan = Plan(
        {},
        {new: "text", tmp_path / "b.py": ""},
        {tmp_path / "registry.py": "changed"},
        finish,
        (pages,),
    )
    with pytest.raises(OptionError, match="no more"):
        carry_out(plan)
    assert names_in(tmp_path) == ["pages", "registry.py"]
    assert (tmp_path / "registry.py").read_text() == "rows"
    assert (pages / "page.md").read_text() == "before"
    plan.finish = None
    carry_out(plan)
    assert new.read_text() == "text"
    assert (tmp_path / "registry.py").read_text() == "changed"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository, as far as a pass has to do with it."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "Output", "golden", ".lit_test_times.txt")
    for name in (*ROOMS, "tests", "docs", "typings"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run_in(checkout: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """A command with the rooms of the copy, which `typings` links to, before the installed ones."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "typings")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pass_of_this_repository(checkout: Path) -> None:
    """Registered, documented, tested: its own tests and the meta tests pass as it is written."""
    registry = (checkout / "passes" / "registry.py").read_text()
    for arguments in ([NAME], [f"{NAME}-by-rules", "--rules"]):
        done = run_in(checkout, *TW, "new-pass", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    row = f'        "{NAME}-by-rules": _lazy(\n            "{STEMS[1]}", "'
    assert row in (checkout / "passes" / "registry.py").read_text()
    added = (checkout / "passes" / "registry.py").read_text().splitlines()
    assert [line for line in registry.splitlines() if line not in added] == []
    page = (checkout / "docs" / "reference" / "passes.md").read_text()
    assert f"| [`{NAME}`](#{NAME}) | Remove negations of negations. |" in page
    tests = [f"tests/passes/test_{stem}.py" for stem in STEMS]
    chosen = " or ".join((*STEMS, *(stem.replace("_", "-") for stem in STEMS)))
    lit = ("tests/test_filecheck.py", META, "-k", chosen)
    for selected in (tests, lit, (META, "-k", "reference_is_current or catalog")):
        done = run_in(checkout, sys.executable, "-m", "pytest", "-q", "-n0", *selected)
        assert done.returncode == 0, done.stdout


STEMS = ("remove_twofold_negation", "remove_twofold_negation_by_rules")


def test_the_checkout_must_be_the_one_that_runs(tw: Tw, checkout: Path) -> None:
    result = tw("new-pass", "never-written", "--dir", checkout)
    assert_refused(result, 2, "is another checkout than the one that runs")
    assert not (checkout / "passes" / "never_written.py").exists()
