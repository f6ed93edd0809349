"""Runs of `tw` in this process, and what every failure must look like."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tilewright.compiler.cli import run
from tilewright.compiler.importers.synthetic import CHATGLM_DEMO

ROOT = Path(__file__).parents[3]
SEQ = 16
TINY: dict[str, Any] = {
    **CHATGLM_DEMO,
    "num_layers": 2,
    "padded_vocab_size": 128,
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "kv_channels": 16,
    "num_attention_heads": 4,
    "seq_length": 64,
}
TW = [sys.executable, "-c", "from tilewright.compiler.cli import main; main()"]
"""The command in a process of its own."""


@dataclass(frozen=True)
class Models:
    """One checkpoint and what it was compiled to."""

    checkpoint: Path
    f16: Path
    w8a16: Path
    compiled: Any
    """What `tw compile --json` printed for w8a16."""
    log: str
    """What it wrote to stderr."""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Tw:
    """Calls `tw` and captures what it prints."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> Result:
        self._capture.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = self._capture.readouterr()
        return Result(code, captured.out, captured.err)

    def text(self, *arguments: object) -> str:
        """What a run prints that succeeds and has nothing to log."""
        result = self(*arguments)
        assert (result.code, result.err) == (0, "")
        return result.out


def assert_refused(result: Result, code: int, *said: str) -> None:
    """The exit code, a message of what, where or why, and nothing else anywhere."""
    assert result.code == code, result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    message = result.err[result.err.index("tw: ") :]
    head, *details = message.splitlines()
    assert f"[TW{code:03d}]: " in head
    assert details, "neither where nor why nor hint"
    assert all(
        line.startswith(("  where: ", "  why:   ", "  hint:  ", " " * 9)) for line in details
    )
    missing = [text for text in said if text not in message]
    assert not missing, message


def names_in(folder: Path) -> Sequence[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def chip_file(folder: Path, **figures: object) -> Path:
    """The description of the BM1684X with other figures."""
    text = (ROOT / "backends" / "chips" / "bm1684x.toml").read_text()
    for name, value in figures.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, count=1, flags=re.M)
        assert count == 1
    path = folder / "chip.toml"
    path.write_text(text)
    return path
