"""Tables of text: a header, a rule, a line for each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table with a header line; columns that hold only numbers stand to the right."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [
        max([len(column), *(len(row[i]) for row in texts)]) for i, column in enumerate(columns)
    ]
    right = [all(_is_number(row[i]) for row in texts) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    yield line(columns)
    yield "  ".join("-" * width for width in widths)
    for row in texts:
        yield line(row)


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell)


def _is_number(text: str) -> bool:
    return bool(text) and (text[0].isdigit() or text[0] in "-+." or text in ("inf", "nan"))
