"""Options, chips and outputs that make no sense: the exit code, what is said, and no output."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.compiler.cli.harness import SEQ, Models, Tw, assert_refused, chip_file, names_in

VERBS = (
    *("compile", "calibrate", "run", "compare", "estimate", "quant-table", "profile", "inspect"),
    *("opt", "trace", "passes", "rules", "ops", "chips", "doctor"),
)


# Help


def test_help_lists_every_verb_with_an_example(tw: Tw) -> None:
    text = tw.text("--help")
    assert "tw compile CHECKPOINT" in text
    for verb in VERBS:
        assert f"\n  {verb} " in text
    summaries = text.split("Commands:")[1]
    assert "..." not in summaries, "a summary is cut"
    assert "\x1b" not in text


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_verb_ends_in_an_example(tw: Tw, verb: str, flag: str) -> None:
    text = tw.text(verb, flag)
    *_, title, example = text.rstrip().splitlines()
    assert title.strip() == "Example:"
    assert example.strip().startswith(f"tw {verb}")
    assert "\x1b" not in text


def test_the_version(tw: Tw) -> None:
    from importlib.metadata import version

    assert tw.text("--version") == f"tw {version('tilewright')}\n"


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decompile",), "No such command 'decompile'"),
        (("run",), "Missing argument"),
        (("run", "m.twm", "--bogus"), "No such option: --bogus"),
        (("compile", "m"), "Missing option '-o'"),
        (("compile", "m", "-o", "x", "--seq", "many"), "--seq"),
        (("opt", "--bogus"), "unexpected argument '--bogus'"),
        (("--bogus",), "No such option: --bogus"),
    ],
)
def test_usage(tw: Tw, arguments: tuple[str, ...], said: str) -> None:
    result = tw(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert said in result.err
    assert "Traceback" not in result.err


# Options of the compiler


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--quant", "int4"), ("unknown quantization 'int4'", "f32, f16, bf16, w8a16")),
        (("--act", "f32"), ("unknown activation type 'f32'", "f16 or bf16")),
        (("--quant", "f16", "--quant-head"), ("--quant-head", "need a quantized --quant")),
        (("--seq", 65), ("65 positions are more than the model's 64", "config.json")),
        (("--seq", 0), ("0 positions", "at least one")),
        (("--chip", "tpu9"), ("no chip 'tpu9'", "bm1684x, bm1688, bm1690")),
    ],
)
def test_compile_options(
    tw: Tw, models: Models, tmp_path: Path, options: tuple[object, ...], said: tuple[str, ...]
) -> None:
    seq = () if "--seq" in options else ("--seq", SEQ)
    result = tw("compile", models.checkpoint, "-q", "-o", tmp_path / "m.twm", *seq, *options)
    assert result.code == 2
    assert result.out == ""
    for text in said:
        assert text in result.err
    assert names_in(tmp_path) == []


def test_estimate_options(tw: Tw, models: Models) -> None:
    result = tw("estimate", models.checkpoint, "--quant", "f16,int4", "--seq", SEQ)
    assert_refused(result, 2, "unknown quantization 'int4'")
    assert_refused(tw("estimate", models.checkpoint, "--seq", 65), 2, "65 positions")
    assert_refused(tw("estimate", models.f16, "--seq", SEQ), 3, "is not JSON", "f16.twm")


# Chip files


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("clock_hz", "-1", "clock_hz = -1 is out of range"),
        ("clock_hz", "nan", "clock_hz = nan is out of range"),
        ("clock_hz", "inf", "clock_hz = inf is out of range"),
        ("matrix_rows", "0", "matrix_rows = 0 is out of range"),
        ("vector_bytes", '"64"', "vector_bytes = '64' is out of range"),
        ("lanes", "2.5", "lanes = 2.5 is out of range"),
        ("banks", "7", "lane_bytes is not a multiple of banks"),
        ("ddr_efficiency", "1.5", "ddr_efficiency is a share"),
        ("global_base", "100", "global_base is not a multiple of global_alignment"),
        ("global_bytes", str(1 << 63), "63-bit addresses"),
        ("matrix_width", "{ i8 = 64 }", "matrix_width is a table of positive integers"),
        ("code_formats", '["i8", "i9"]', "code_formats is a list of i8, i4, u4, f8e4m3, f8e5m2"),
    ],
)
def test_impossible_chips(
    tw: Tw, models: Models, tmp_path: Path, figure: str, value: str, said: str
) -> None:
    chip = chip_file(tmp_path, **{figure: value})
    result = tw("estimate", models.checkpoint, "--seq", SEQ, "--chip", chip)
    assert_refused(result, 2, "impossible values", "chip.toml", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = [", "not TOML"),
        (b"a = 1", "unknown: a; missing: bank_conflict_factor"),
        (b"\xff", "cannot be read"),
    ],
)
def test_files_that_describe_no_chip(tw: Tw, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "chip.toml"
    path.write_bytes(content)
    assert_refused(tw("chips", path), 2, said, "chip.toml")


# Outputs


def test_no_folder_for_the_output(tw: Tw, models: Models, tmp_path: Path) -> None:
    path = tmp_path / "none" / "m.twm"
    result = tw("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", path)
    assert_refused(result, 10, "does not exist", "none")
    result = tw("profile", models.f16, "--trace", path)
    assert_refused(result, 10, "No such file or directory")
    assert names_in(tmp_path) == []


def test_a_folder_for_output(tw: Tw, models: Models, tmp_path: Path) -> None:
    result = tw("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", tmp_path)
    assert_refused(result, 10, "not a regular file", str(tmp_path))
    assert names_in(tmp_path) == []
    assert names_in(tmp_path.parent).count(tmp_path.name) == 1


@pytest.mark.parametrize("written", [0, 3, 12])
def test_a_disk_that_fills_up(
    tw: Tw, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """What the output held before is still there."""
    path = tmp_path / "m.twm"
    path.write_text("old")
    pwrite, count = os.pwrite, 0

    def full(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal count
        count += 1
        if count > written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr("tilewright.compiler.output.os.pwrite", full)
    result = tw("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", path)
    assert_refused(result, 10, "no space left", "m.twm", "free some space")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["m.twm"]


def test_a_folder_that_may_not_be_written(
    tw: Tw, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the system's refusal is played."""
    opened = os.open

    def refuse(path: str | Path, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT and Path(path).parent == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    result = tw("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", tmp_path / "m.twm")
    assert_refused(result, 10, "Permission denied")
    assert names_in(tmp_path) == []
