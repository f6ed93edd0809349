"""The reference of errors says what the sources say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tilewright.compiler.error_catalogue import error_classes, errors_page, messages
from tilewright.dialects import errors
from tilewright.dialects.errors import OptionError, TilewrightError
from tilewright.passes.registry import find_pass

EXIT_CODES = Path(__file__).parents[2] / "docs" / "exit_codes.md"


def test_every_class_is_listed_once() -> None:
    listed = error_classes()
    assert {each.__name__ for each in listed} == {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, TilewrightError)
    } - {"TilewrightError"}
    assert len({each.code for each in listed}) == len(listed)


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.code)
def test_every_error_has_an_exit_code_that_is_documented(error: type[TilewrightError]) -> None:
    row = re.search(rf"^\| {error.exit_code} \| {error.code} \|", EXIT_CODES.read_text(), re.M)
    assert row is not None


def test_a_message_is_listed_as_it_is_raised() -> None:
    with pytest.raises(OptionError) as raised:
        find_pass("no-such-pass")
    shown = [m.text for m in messages()["OptionError"] if m.module == "passes.registry"]
    patterns = [re.sub(r"\\\{.*?\\\}", ".*", re.escape(text)) for text in shown]
    assert any(re.fullmatch(pattern, raised.value.what) for pattern in patterns)


def test_every_message_is_on_the_page() -> None:
    page = errors_page()
    for name, listed in messages().items():
        assert listed, f"nothing raises {name}"
        for message in listed:
            assert f"- {message.text}" in page
