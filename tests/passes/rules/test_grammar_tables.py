"""The tables that are kept are those of the grammar; no others are used; they change nothing."""

import json
import re
from pathlib import Path

import pytest
from lark import Lark, UnexpectedInput, UnexpectedToken

from tilewright.passes.rules.grammar_tables import TABLES, made_for, make_parser

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(
    r"^```rules\n(.*?)^```", (ROOT / "docs" / "rules.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.fixture
def other_tables(tmp_path: Path) -> Path:
    """Tables of another lark, which none can read."""
    path = tmp_path / "tables.json"
    path.write_text(json.dumps({"made_for": {**made_for(), "lark": "0"}, "data": {}, "memo": {}}))
    return path


def outcome(parser: Lark, text: str) -> object:
    """What `text` is, or where it is wrong and what could stand there."""
    try:
        return parser.parse(text)
    except UnexpectedToken as error:
        return error.pos_in_stream, error.accepts
    except UnexpectedInput as error:
        return error.pos_in_stream


def test_tables_are_those_of_the_grammar() -> None:
    kept = json.loads(TABLES.read_text())["made_for"]
    write = "python -m tilewright.passes.rules.grammar_tables writes them again"
    assert kept["grammar"] == made_for()["grammar"], write


def test_tables_give_what_the_grammar_gives(other_tables: Path) -> None:
    kept, anew = make_parser(), make_parser(other_tables)
    assert BLOCKS
    for text in BLOCKS:
        assert outcome(kept, text) == outcome(anew, text)
        for end in range(0, len(text), 29):
            assert outcome(kept, text[:end]) == outcome(anew, text[:end])
