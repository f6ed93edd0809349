"""What is registered is documented and tested; what is generated is current."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tilewright.compiler.cli.catalog_verbs import pass_rows
from tilewright.compiler.pipeline import kernel_passes
from tilewright.compiler.reference_pages import PAGES, document_pass, passes_page, write_pages
from tilewright.dialects.documentation import mlir_blocks, op_reference, render_markdown
from tilewright.dialects.errors import OptionError
from tilewright.passes.kernels.registry import registered_ops
from tilewright.passes.registry import PASSES

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
LIT = ROOT / "tests" / "filecheck" / "passes"


@pytest.mark.parametrize("page", PAGES)
def test_the_reference_is_current(page: str) -> None:
    assert (REFERENCE / page).read_text() == PAGES[page](), "make docs"


def test_every_page_is_generated() -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == set(PAGES)


def test_the_command_of_the_makefile(tmp_path: Path) -> None:
    module = "tilewright.compiler.reference_pages"
    assert f"-m {module} docs/reference" in (ROOT / "Makefile").read_text()
    subprocess.run([sys.executable, "-m", module, tmp_path], check=True)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {name: render() for name, render in PAGES.items()}
    with pytest.raises(OptionError, match="is not a folder"):
        write_pages(tmp_path / "missing")


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_has_a_lit_file_of_its_own(name: str) -> None:
    text = (LIT / f"{name}.mlir").read_text()
    assert re.search(rf"// RUN: .*\b{name}\b", text)
    assert "// CHECK" in text


def test_every_lit_file_is_of_a_pass() -> None:
    assert {path.stem for path in LIT.glob("*.mlir")} == set(PASSES)


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_documented(name: str) -> None:
    """Summary, an example before and after, what it requires and guarantees, all its options."""
    document = document_pass(name)
    assert document.summary.endswith(".")
    assert len(mlir_blocks(document.description)) == 2
    assert "-->" in document.description
    assert "Requires" in document.description
    assert "Guarantees" in document.description or "guarantees" in document.description
    for option in document.options:
        assert f"`{option.replace('-', '_')}`" in document.description, option
    page = passes_page()
    assert f"| [`{name}`](#{name}) | {document.summary} |" in page
    assert f"\n## {name}\n" in page


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_is_in_the_file_of_its_name(name: str) -> None:
    pass_class = PASSES[name]()
    stem = name.replace("-", "_")
    assert pass_class.__module__ == f"tilewright.passes.{stem}"
    assert pass_class.__name__.lower() == stem.replace("_", "") + "pass"
    assert Path(inspect.getfile(pass_class)).stem == stem


def test_the_pipeline_is_of_registered_passes_in_their_order() -> None:
    names = ["convert-top-to-tpu", *(each.name for each in kernel_passes("bm1684x"))]
    assert names == [name for name in PASSES if name in names]


def test_the_catalog_of_tw_says_the_same() -> None:
    rows = {str(row["name"]): row for row in pass_rows()}
    assert set(rows) == set(PASSES)
    for name, row in rows.items():
        document = document_pass(name)
        assert row["summary"] == document.summary
        options = row["options"]
        assert isinstance(options, dict)
        assert set(options) == set(document.options)


def test_every_op_has_an_example_and_a_place_in_the_reference() -> None:
    page = render_markdown()
    for document in op_reference():
        assert document.example, document.name
        assert document.summary.endswith("."), document.name
        assert f"### `{document.name}`" in page


def test_every_op_with_a_kernel_is_an_op() -> None:
    assert set(registered_ops()) <= {document.name for document in op_reference()}
