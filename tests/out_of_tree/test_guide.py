"""docs/plugins.md shows the package that is tested."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from tilewright.dialects.plugins import GROUP, Plugin

ACME = Path(__file__).parent / "acme"
GUIDE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
BLOCK = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


def test_every_block_is_of_the_package() -> None:
    blocks = BLOCK.findall(GUIDE)
    assert len(blocks) == len(re.findall(r"^```\w+$", GUIDE, re.MULTILINE))
    for name, text in blocks:
        assert f"{text}\n" in (ACME / name).read_text(), name


def test_every_file_of_the_package_is_shown() -> None:
    shown = {name for name, _ in BLOCK.findall(GUIDE)}
    sources = {
        str(path.relative_to(ACME))
        for path in (*ACME.rglob("*.py"), *ACME.rglob("*.rules"))
        if "__pycache__" not in path.parts
    }
    assert sources <= shown


def test_every_field_of_a_plugin_is_explained() -> None:
    assert f'entry-points."{GROUP}"' in GUIDE
    for field in fields(Plugin):
        if field.name != "name":
            assert f"| `{field.name}` |" in GUIDE
