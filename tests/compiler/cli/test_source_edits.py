"""Rows added to dictionaries in Python source."""

from __future__ import annotations

import ast

import pytest

from tilewright.compiler.cli.source_edits import (
    add_row,
    dictionary_of,
    imports,
    keyword_dictionary,
)

ADDED = '"new": load("ü")'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("T = {}\n", f"T = {{\n    {ADDED},\n}}\n"),
        ('T = {"a": 1}\n', f'T = {{\n    "a": 1,\n    {ADDED},\n}}\n'),
        ('T = {"ä": 1, **b, "c": f(1, 2)}; U = 1\n', None),
        ('T = {\n    "a": 1,  # why\n}\n', f'T = {{\n    "a": 1,  # why\n    {ADDED},\n}}\n'),
        (
            'T = {\n    "a": (1\n    )  # why\n}\n',
            f'T = {{\n    "a": (1\n    ),  # why\n    {ADDED},\n}}\n',
        ),
        ('T = {\n    "a": 1\n}\n', f'T = {{\n    "a": 1,\n    {ADDED},\n}}\n'),
        (
            'T: M = proxy(\n    {\n        "a": 1,\n    }\n)\n"""doc"""\n',
            f'T: M = proxy(\n    {{\n        "a": 1,\n        {ADDED},\n    }}\n)\n"""doc"""\n',
        ),
    ],
)
def test_rows_go_to_the_end(before: str, after: str | None) -> None:
    table = dictionary_of(before, "T")
    assert table is not None
    changed = add_row(before, table, ADDED)
    if after is not None:
        assert changed == after
    again = dictionary_of(changed, "T")
    assert again is not None
    keys = [None if key is None else ast.unparse(key) for key in table.keys]
    assert [None if key is None else ast.unparse(key) for key in again.keys] == [*keys, "'new'"]


def test_a_row_of_several_lines_is_indented() -> None:
    table = dictionary_of("if 1:\n    pass\nT = {}\n", "T")
    assert table is not None
    changed = add_row("if 1:\n    pass\nT = {}\n", table, '"a": f(\n    1\n)')
    assert changed.endswith('T = {\n    "a": f(\n        1\n    ),\n}\n')


def test_dictionaries_are_found() -> None:
    source = "ROWS = {}\nx = Other(passes={1: 2})\ny = Plugin(name='a', passes=ROWS)\n"
    table = keyword_dictionary(source, "Plugin", "passes")
    assert table is not None
    assert (table.lineno, table.keys) == (1, [])
    inline = keyword_dictionary("y = Plugin(passes={1: 2})", "Plugin", "passes")
    assert inline is not None
    assert len(inline.keys) == 1


@pytest.mark.parametrize(
    "source", ["", "Plugin()", "Plugin(passes=rows())", "Plugin(passes=ROWS)", "Plugin(", "T = 1"]
)
def test_what_is_no_dictionary(source: str) -> None:
    assert keyword_dictionary(source, "Plugin", "passes") is None
    assert dictionary_of(source, "T") is None


def test_imports() -> None:
    assert imports("from a.b import c, d", "a.b", "d")
    assert not imports("from a.b import c as d", "a.b", "d")
    assert not imports("from a.b import c", "a.b", "d")
    assert not imports("import a.b", "a.b", "d")
