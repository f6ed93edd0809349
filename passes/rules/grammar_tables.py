"""The parser of rules, from tables that are made beforehand.

lark makes them of the grammar in 0.05 to 0.1 s, which every `tw` that needs a rule would pay; to
read them back takes 0.01 s. grammar_tables.json says for which grammar and which lark it is; for
any other the tables are made anew. After a change of grammar.lark

    python -m tilewright.passes.rules.grammar_tables

writes it again.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import lark
from lark import Lark, Token, Transformer

from tilewright.passes.rules.syntax_builder import SyntaxBuilder

GRAMMAR = Path(__file__).with_name("grammar.lark")
TABLES = Path(__file__).with_name("grammar_tables.json")


def make_parser(tables: Path = TABLES) -> Lark:
    """The parser, from `tables` where they are those of the grammar and of this lark."""
    made = json.loads(tables.read_text(encoding="utf-8"), object_pairs_hook=_with_numbers)
    if made["made_for"] != made_for():
        return _parser_of_grammar(SyntaxBuilder())
    made["data"]["options"]["transformer"] = SyntaxBuilder()
    return Lark.load(made)


def write_tables(path: Path) -> None:
    """Make the tables of the grammar and write them to `path`."""
    saved = BytesIO()
    _parser_of_grammar(None).save(saved)
    tables = {"made_for": made_for(), **pickle.loads(saved.getvalue())}
    path.write_text(json.dumps(tables, separators=(",", ":")) + "\n", encoding="utf-8")


def made_for() -> Mapping[str, str]:
    """What tables belong to: a version of lark, and the grammar."""
    return {"lark": lark.__version__, "grammar": GRAMMAR.read_text(encoding="utf-8")}


def _parser_of_grammar(builder: Transformer[Token, object] | None) -> Lark:
    grammar = GRAMMAR.read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=True, transformer=builder)


def _with_numbers(pairs: list[tuple[str, object]]) -> dict[str | int, object]:
    """A dict whose keys are numbers again where they were: JSON has texts only."""
    return {int(key) if key.isdecimal() else key: value for key, value in pairs}


if __name__ == "__main__":
    write_tables(TABLES)
