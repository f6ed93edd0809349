"""`tw trace`, and `tw opt --trace`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.compiler.cli.harness import Tw, assert_refused
from tests.compiler.workbench.test_trace import TEXT, data_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.mlir"
    path.write_text(TEXT)
    return path


def test_a_line_a_step(tw: Tw, source: Path) -> None:
    text = tw.text("trace", source, "-p", "convert-top-to-tpu")
    header, _, line = text.splitlines()
    assert header.split() == ["step", "pass", "pattern", "op", "at", "in", "makes"]
    cells = line.split()
    assert (cells[0], cells[1], cells[-1]) == ("1", "convert-top-to-tpu", "tpu.SiLU")
    assert "act (net.py:7)" in line
    (step,) = tw("trace", source, "-p", "convert-top-to-tpu", "--json").json
    assert (step["location"], step["new_locations"]) == ("act (net.py:7)", ["act (net.py:7)"])
    assert_refused(tw("trace", source, "-p", "fuse"), 2, "unknown pass 'fuse'")


def test_opt_writes_the_same_trace(tw: Tw, source: Path, tmp_path: Path) -> None:
    trace = tmp_path / "t.json"
    out = tw.text("opt", source, "-p", "compile", "--trace", trace)
    assert out == tw.text("opt", source, "-p", "compile")
    assert json.loads(trace.read_text()) == tw("trace", source, "-p", "compile", "--json").json
    source.write_text(f"{TEXT}// -----\n{TEXT}")
    tw.text("opt", source, "--split-input-file", "-p", "compile", "--trace", trace)
    written = [json.loads((tmp_path / f"t-0{i}.json").read_text()) for i in (1, 2)]
    assert len(written[0]) == len(written[1]) > 0


def test_a_trace_up_to_a_failure(tw: Tw, source: Path, tmp_path: Path) -> None:
    page = tmp_path / "t.html"
    result = tw("trace", source, "-p", "convert-top-to-tpu,insert-waits", "--html", page)
    assert result.code == 5
    assert "top.SiLU" in result.out
    assert "in pass insert-waits" in result.err
    assert "top.SiLU" in page.read_text()


def test_the_page_needs_nothing_else(tw: Tw, source: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "1.html", tmp_path / "2.html"]
    for page in pages:
        result = tw("trace", source, "--html", page)
        assert result.code == 0
        assert str(page) in result.err
    text = pages[0].read_text()
    assert pages[1].read_text() == text
    assert not re.findall(r"https?:|src=|href=|@import|url\(|fetch\(", text)
    assert "default-src 'none'" in text
    steps = tw("trace", source, "--json").json
    data = data_of(text)
    assert [row["pattern"] for row in data] == [step["pattern"] for step in steps]
