"""Which ops may remain after each pass, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tilewright.passes.registry import STAGES


def legality_table(pass_name: str) -> Iterator[str]:
    """The lines that say what a module consists of after a pass."""
    stage = STAGES.get(pass_name)
    if stage is None:
        yield f"after {pass_name}: as before it"
        return
    yield f"after {pass_name}: nothing but"
    by_dialect: dict[str, list[str]] = {}
    for op in stage.legal:
        dialect, _, name = op.partition(".")
        by_dialect.setdefault(dialect, []).append(name)
    for dialect, names in by_dialect.items():
        yield f"  {dialect + '.':9}{' '.join('every op' if n == '*' else n for n in names)}"
    for attribute in stage.required:
        yield f"  each command op has `{attribute}`"


def legality_tables(pass_names: Iterable[str]) -> Iterator[str]:
    """The tables of several passes, or of all that have one."""
    for name in tuple(pass_names) or tuple(STAGES):
        yield from legality_table(name)
