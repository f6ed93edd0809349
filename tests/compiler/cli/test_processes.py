"""`tw` as a process: pipes, signals, limits and the environment."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from tests.compiler.cli.harness import SEQ, TW, Models, names_in

SECONDS = 120
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""What is short is written when the process ends."""
FILE_LIMIT_BYTES = 65536


def test_plain_text_without_a_terminal() -> None:
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "60"}
    for arguments in (["--help"], ["opt", "--help"], ["chips"], ["compile"]):
        ended = subprocess.run(
            [*TW, *arguments], capture_output=True, env=environment, timeout=SECONDS, check=False
        )
        assert b"\x1b" not in ended.stdout + ended.stderr
        assert (ended.returncode, bool(ended.stdout)) in ((0, True), (2, False))


@pytest.mark.parametrize("arguments", [["ops"], ["chips"], ["passes", "--bogus"]])
def test_a_reader_that_goes_away(arguments: list[str]) -> None:
    """Its end of the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        stdout = subprocess.run(
            [*TW, *arguments],
            stdout=pipe,
            stderr=subprocess.PIPE,
            env=BUFFERED,
            timeout=SECONDS,
            check=False,
        )
    if arguments[-1] == "--bogus":
        assert stdout.returncode == 2
    else:
        assert (stdout.returncode, stdout.stderr) == (141, b"")


@pytest.mark.parametrize("verb", ["ops", "chips"], ids=["long", "short"])
def test_a_full_disk_behind_stdout(verb: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*TW, verb],
            stdout=full,
            stderr=subprocess.PIPE,
            env=BUFFERED,
            timeout=SECONDS,
            check=False,
        )
    assert ended.returncode == 10
    assert b"[TW010]" in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_in_the_middle(
    models: Models, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """What the output held before is still there, and nothing else."""
    output = tmp_path / "m.twm"
    output.write_text("old")
    arguments = ["compile", str(models.checkpoint), "--seq", str(SEQ), "-o", str(output)]
    with subprocess.Popen([*TW, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("[lower]"):
                assert len(names_in(tmp_path)) == 2, "nothing has been begun"
                process.send_signal(number)
        assert process.wait(SECONDS) == code
    assert "no half-written output is left" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert names_in(tmp_path) == ["m.twm"]
    assert output.read_text() == "old"


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES))


def test_a_limit_on_files(models: Models, tmp_path: Path) -> None:
    """The system refuses writes beyond the limit, as a full disk does."""
    output = tmp_path / "m.twm"
    arguments = ["compile", str(models.checkpoint), "-q", "--seq", str(SEQ), "-o", str(output)]
    ended = subprocess.run(
        [*TW, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        preexec_fn=limit_files,
    )
    assert (ended.returncode, ended.stdout) == (10, "")
    assert ended.stderr.startswith("tw: cannot write [TW010]: no space left for the output\n")
    assert "m.twm" in ended.stderr
    assert names_in(tmp_path) == []
