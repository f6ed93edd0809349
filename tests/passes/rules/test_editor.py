"""The editor's grammar knows the words of the language, and colours a rule as it should."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tilewright.passes.rules.grammar_tables import GRAMMAR
from tilewright.passes.rules.rule import Origin
from tilewright.passes.rules.values import ELEMENTS, FUNCTIONS, LOWERING_BUILDERS

EDITOR = GRAMMAR.parent / "editor"
SAMPLE = """
/// Documentation.
use acme.helpers: is_small  // a comment
rule AddBias benefit 2 {
  match {
    m = top.MatMul(x, w: weight rank 2) {right_transpose: t} [uses = 1]
    y = top.Add(m, b: f32[_, n])
  }
  where dim(b, 0) == 1.5e-3 and not is_small(y)
  replace y { top.MatMul(x, w, bias = b) {mode: "a"} -> like y }
}
"""


def _load(name: str) -> dict[str, Any]:
    return json.loads((EDITOR / name).read_text())


GRAMMAR_JSON = _load("tilewright-rules.tmLanguage.json")


def _alternatives(name: str) -> set[str]:
    found = re.search(r"\(([\w|]+)\)", GRAMMAR_JSON["repository"][name]["match"])
    assert found is not None
    return set(found.group(1).split("|"))


def tokens(text: str) -> list[tuple[str, str]]:
    """What a TextMate engine makes of `text`: the leftmost match, and of those the first rule's.

    Python's `re` stands in for Oniguruma: the grammar uses what both have.
    """
    rules = [
        GRAMMAR_JSON["repository"][each["include"].removeprefix("#")]
        for each in GRAMMAR_JSON["patterns"]
    ]
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        place = 0
        while True:
            matches = [(re.compile(rule["match"]).search(line, place), rule) for rule in rules]
            hits = [(match, rule) for match, rule in matches if match and match.group()]
            if not hits:
                break
            match, rule = min(hits, key=lambda hit: hit[0].start())
            for group, capture in rule.get("captures", {"0": rule}).items():
                word = match.group(int(group)).strip()
                found.append((word, capture["name"].removesuffix(".tilewright-rules")))
            place = match.end()
    return found


def test_keywords_equal_those_of_the_grammar():
    words = set(re.findall(r"^_?[A-Z]+\.2: /(\w+)\\b/$", GRAMMAR.read_text(), re.MULTILINE))
    assert len(words) > 15
    known = _alternatives("keyword") | _alternatives("operator-word") | _alternatives("constant")
    assert known == words


def test_functions_and_kinds_equal_those_of_the_language():
    assert _alternatives("function") == {*FUNCTIONS, *LOWERING_BUILDERS}
    assert _alternatives("kind") == {*(origin.value for origin in Origin), "rank", *ELEMENTS}


@pytest.mark.parametrize(
    ("word", "scope"),
    [
        ("/// Documentation.", "comment.line.documentation"),
        ("// a comment", "comment.line.double-slash"),
        ("use", "keyword.control"),
        ("acme.helpers", "entity.name.namespace"),
        ("rule", "keyword.control"),
        ("AddBias", "entity.name.function"),
        ("benefit", "keyword.control"),
        ("2", "constant.numeric"),
        ("match", "keyword.control"),
        ("top.MatMul", "entity.name.type"),
        ("weight", "storage.type"),
        ("rank", "storage.type"),
        ("f32", "storage.type"),
        ("right_transpose", "variable.parameter"),
        ("bias", "variable.parameter"),
        ("uses", "keyword.control"),
        ("dim", "support.function"),
        ("==", "keyword.operator"),
        ("1.5e-3", "constant.numeric"),
        ("not", "keyword.operator.word"),
        ("is_small", "variable.other"),
        ('"a"', "string.quoted.double"),
        ("->", "keyword.operator"),
        ("like", "keyword.control"),
        ("m", "variable.other"),
    ],
)
def test_a_rule_is_coloured(word: str, scope: str):
    assert (word, scope) in tokens(SAMPLE)


def test_the_extension_names_files_that_are_there():
    package = _load("package.json")["contributes"]
    paths = [each["path"] for each in package["grammars"]]
    paths += [each["configuration"] for each in package["languages"]]
    assert len(paths) == 3
    for path in paths:
        assert (EDITOR / path).is_file()
    scopes = {_load(Path(each["path"]).name)["scopeName"] for each in package["grammars"]}
    assert scopes == {each["scopeName"] for each in package["grammars"]}
    assert package["languages"][0]["extensions"] == [".rules"]


def test_blocks_in_docstrings_begin_and_end():
    block = _load("docstring.tmLanguage.json")["patterns"][0]
    assert re.search(block["begin"], "    ```rules")
    assert not re.search(block["begin"], "    ```mlir")
    assert re.search(block["end"], "    ```")
    assert block["patterns"] == [{"include": GRAMMAR_JSON["scopeName"]}]
