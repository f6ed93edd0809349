"""Each chapter of docs/tutorial/toy is what its program prints, and its code is the program's.

A program prints its output in parts, each under `== name ==`; the page has each part in a `text`
block, in the order in which it is printed. `make golden` writes the blocks anew.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tilewright.passes.kernels.registry import temporarily

FOLDER = Path(__file__).parents[2] / "docs" / "tutorial" / "toy"
CHAPTERS = [f"ch{number}" for number in range(1, 6)]
PART = re.compile(r"^== (.*) ==\n((?:(?!== ).*\n)*)", re.MULTILINE)
TEXT = re.compile(r"^```text\n== ([^\n]*) ==\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST_PAGE = 150


@pytest.fixture
def fresh_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The chapters import each other; what they register and load is gone afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    with temporarily():
        yield
    for name in ("toy", *CHAPTERS):
        sys.modules.pop(name, None)


def printed(path: Path) -> str:
    stream = StringIO()
    with redirect_stdout(stream):
        runpy.run_path(str(path), run_name="__main__")
    return stream.getvalue()


def test_every_chapter_is_tested() -> None:
    programs = [path.stem for path in FOLDER.glob("*.py") if path.stem != "toy"]
    assert sorted(programs) == CHAPTERS == sorted(path.stem for path in FOLDER.glob("*.md"))


@pytest.mark.parametrize("name", CHAPTERS)
@pytest.mark.usefixtures("fresh_modules")
def test_the_page_is_what_is_printed(
    name: str, bless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, page = FOLDER / f"{name}.py", FOLDER / f"{name}.md"
    monkeypatch.setattr(sys, "argv", [str(program)])
    output = printed(program)
    parts = {part[1]: part[2] for part in PART.finditer(output)}
    assert "".join(f"== {title} ==\n{part}" for title, part in parts.items()) == output
    text = page.read_text()
    assert [block[1] for block in TEXT.finditer(text)] == list(parts)
    if bless:
        page.write_text(
            TEXT.sub(lambda block: f"```text\n== {block[1]} ==\n{parts[block[1]]}```", text)
        )
    else:
        assert {block[1]: block[2] for block in TEXT.finditer(text)} == parts, "make golden"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_code_is_the_programs(name: str) -> None:
    text, program = (FOLDER / f"{name}.md").read_text(), (FOLDER / f"{name}.py").read_text()
    blocks = CODE.findall(text)
    assert blocks
    for block in blocks:
        assert block in program
    assert len(text.splitlines()) <= LONGEST_PAGE


def test_the_last_chapter_keeps_its_promise() -> None:
    """At least 95 % of the speed of the compiler's own kernel, for one token and for 512."""
    rows = re.findall(r"^ *(\d+)  (?:yes|no) .* ([\d.]+)%$", (FOLDER / "ch5.md").read_text(), re.M)
    assert {"1", "512"} <= {m for m, _ in rows}
    assert all(float(share) >= 95 for _, share in rows)
