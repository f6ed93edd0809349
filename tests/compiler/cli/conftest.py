"""A tiny ChatGLM checkpoint, compiled once in f16 and w8a16."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from tests.compiler.cli.harness import SEQ, TINY, Models, Tw

from tilewright.compiler.cli import run
from tilewright.compiler.importers.synthetic import write_checkpoint


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    checkpoint = folder / "tiny"
    write_checkpoint(checkpoint, TINY, dtype="f16", seed=3)
    out, err = io.StringIO(), io.StringIO()
    for quant in ("f16", "w8a16"):
        artifact = folder / f"{quant}.twm"
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            arguments = f"compile {checkpoint} --quant {quant} --seq {SEQ} -o {artifact} --json"
            assert run(arguments.split()) == 0
    return Models(
        checkpoint,
        folder / "f16.twm",
        folder / "w8a16.twm",
        json.loads(out.getvalue()),
        err.getvalue(),
    )


@pytest.fixture
def tw(capsys: pytest.CaptureFixture[str]) -> Tw:
    return Tw(capsys)
