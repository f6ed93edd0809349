"""The blocks of docs/kernel_language.md run, in order, and print what stands behind them."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tilewright.passes.kernels.registry import temporarily

GUIDE = Path(__file__).parents[1] / "docs" / "kernel_language.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "guide"}
    printed = ""
    blocks = BLOCK.findall(GUIDE.read_text())
    assert len([kind for kind, _ in blocks if kind == "python"]) >= 8
    with temporarily():
        for number, (kind, text) in enumerate(blocks):
            if kind == "text":
                assert printed == text
                continue
            stream = StringIO()
            with redirect_stdout(stream):
                exec(compile(text, f"block_{number}.py", "exec"), names)
            printed = stream.getvalue()
