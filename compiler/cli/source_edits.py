"""Adds a row to a dictionary that stands in a Python file, as a person would."""

from __future__ import annotations

import ast
import textwrap

INDENT = "    "


def add_row(source: str, table: ast.Dict, row: str) -> str:
    """`source` with the line or lines `row` at the end of the dictionary `table` of it.

    A dictionary on one line is spread over several. `row` begins in the first column and has no
    comma at its end.
    """
    lines = source.splitlines(keepends=True)
    assert table.end_lineno is not None
    assert table.end_col_offset is not None
    start = _offset(lines, table.lineno, table.col_offset)
    end = _offset(lines, table.end_lineno, table.end_col_offset)
    data = source.encode()
    body = data[start + 1 : end - 1].decode().rstrip()
    line = lines[(table.lineno if "\n" not in body else table.end_lineno) - 1]
    outer = line[: len(line) - len(line.lstrip())]
    if body and "\n" not in body:
        body = "\n" + textwrap.indent(_spread(source, table), outer + INDENT)
    elif body:
        last = table.values[-1]
        assert last.end_lineno is not None
        assert last.end_col_offset is not None
        # The comma may stand before a comment, and behind the end of a parenthesis.
        stop = _offset(lines, last.end_lineno, last.end_col_offset)
        rest = data[stop : end - 1].decode().rstrip()
        closed = rest[: len(rest) - len(rest.lstrip(" \n)"))].rstrip()
        rest = rest.removeprefix(closed)
        if not rest.startswith(","):
            body = f"{data[start + 1 : stop].decode()}{closed},{rest}"
    new = f"{body}\n{textwrap.indent(row, outer + INDENT)},\n{outer}"
    return data[: start + 1].decode() + new + data[end - 1 :].decode()


def _offset(lines: list[str], line: int, column: int) -> int:
    """The byte at a position as `ast` has it: lines from 1, columns in bytes."""
    return sum(len(each.encode()) for each in lines[: line - 1]) + column


def _spread(source: str, table: ast.Dict) -> str:
    """The rows of a dictionary, each on a line of its own."""
    rows: list[str] = []
    for key, value in zip(table.keys, table.values, strict=True):
        text = ast.get_source_segment(source, value)
        name = "**" if key is None else f"{ast.get_source_segment(source, key)}: "
        rows.append(f"{name}{text},")
    return "\n".join(rows)


def dictionary_of(source: str, name: str) -> ast.Dict | None:
    """The dictionary that the module's variable `name` is set to, also as the argument of a call.

    None if there is none, or the source is not Python.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for statement in tree.body:
        targets = (
            statement.targets
            if isinstance(statement, ast.Assign)
            else [statement.target]
            if isinstance(statement, ast.AnnAssign)
            else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(statement, ast.Assign | ast.AnnAssign)
            value = statement.value
            if isinstance(value, ast.Call) and len(value.args) == 1:
                value = value.args[0]
            return value if isinstance(value, ast.Dict) else None
    return None


def keyword_dictionary(source: str, function: str, keyword: str) -> ast.Dict | None:
    """The dictionary given as `keyword` to the first call of `function` that has that keyword; a
    variable of the module may stand for it. None if there is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            for each in node.keywords if node.func.id == function else ():
                if each.arg == keyword and isinstance(each.value, ast.Dict):
                    return each.value
                if each.arg == keyword and isinstance(each.value, ast.Name):
                    return dictionary_of(source, each.value.id)
    return None


def imports(source: str, module: str, name: str) -> bool:
    """Whether the Python module says `from module import name`."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == module
        and any(alias.name == name and alias.asname is None for alias in node.names)
        for node in ast.walk(ast.parse(source))
    )
