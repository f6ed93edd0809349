"""`tw opt`: pipelines, and what is left when a pass fails."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from tests.compiler.cli.harness import Tw, assert_refused, names_in
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.utils.exceptions import PassFailedException

from tilewright.dialects import tpu
from tilewright.dialects.context import parse_module
from tilewright.passes.double_buffer import DoubleBufferPass

SILU = """
func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = top.SiLU %x : tensor<4x64xf32> -> tensor<4x64xf32> loc("act"("net.py":7:3))
  func.return %y : tensor<4x64xf32>
}
"""
ALL = (
    "convert-top-to-tpu{quant=f16},tile-for-local-memory,double-buffer,"
    "allocate-local-memory,insert-waits,emit-commands"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.mlir"
    path.write_text(SILU)
    return path


def test_text_that_reads_back(tw: Tw, source: Path) -> None:
    plain = tw.text("opt", source)
    assert parse_module(plain, "out").is_structurally_equivalent(parse_module(SILU, "in"))
    assert "loc(" not in plain
    assert 'loc("act"("net.py":7:3))' in tw.text("opt", source, "--print-debuginfo")
    assert "bdc.program" in tw.text("opt", source, "-p", ALL)


def test_stdin(tw: Tw, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(SILU))
    assert tw.text("opt") == tw.text("opt", source)
    monkeypatch.setattr("sys.stdin", io.StringIO("}"))
    assert_refused(tw("opt", "-"), 3, "<stdin>:1:1")


def test_an_output_file(tw: Tw, source: Path, tmp_path: Path) -> None:
    assert tw.text("opt", source, "-o", tmp_path / "out.mlir") == ""
    assert (tmp_path / "out.mlir").read_text() == tw.text("opt", source)
    assert_refused(tw("opt", source, "-o", tmp_path / "none" / "x"), 10, "No such file")


def test_seconds_go_to_stderr(tw: Tw, source: Path) -> None:
    result = tw("opt", source, "-p", ALL, "--time-passes")
    assert result.code == 0
    names = [line.split(":")[0] for line in result.err.splitlines()]
    assert names == [each.split("{")[0] for each in ALL.split(",")]
    assert all(line.endswith(" s") for line in result.err.splitlines())
    assert result.out == tw.text("opt", source, "-p", ALL)


def test_the_ir_after_each_pass(tw: Tw, source: Path, tmp_path: Path) -> None:
    stages = tmp_path / "a" / "stages"
    text = tw.text("opt", source, "-p", ALL, "--print-after-each", stages)
    names = names_in(stages)
    assert names == [
        f"{i:02d}-{each.split('{')[0]}.mlir" for i, each in enumerate(ALL.split(","), 1)
    ]
    assert (stages / names[-1]).read_text() == text
    resumed = tw.text("opt", stages / names[2], "-p", ",".join(ALL.split(",")[3:]))
    assert resumed == text


# Files of several modules

TWO = f"{SILU}// -----\n// ------ not a mark\n{SILU.replace('@main', '@other')}"


def test_split_files(tw: Tw, tmp_path: Path) -> None:
    path = tmp_path / "two.mlir"
    path.write_text(TWO)
    stages = tmp_path / "stages"
    text = tw.text(
        "opt", path, "--split-input-file", "-p", "convert-top-to-tpu", "--print-after-each", stages
    )
    parts = text.split("// -----\n")
    assert ["@main" in part for part in parts] == [True, False]
    assert ["@other" in part for part in parts] == [False, True]
    for folder, part in zip(("01", "02"), parts, strict=True):
        assert (stages / folder / "01-convert-top-to-tpu.mlir").read_text() == part
    assert tw.text("opt", path, "--split-input-file", "-o", "-").count("builtin.module") == 2


def test_lines_of_split_files_are_those_of_the_file(tw: Tw, tmp_path: Path) -> None:
    path = tmp_path / "two.mlir"
    path.write_text(TWO + "}\n")
    line = TWO.count("\n") + 1
    assert_refused(tw("opt", path, "--split-input-file"), 3, f"two.mlir:{line}:1")


# Pipelines


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("fuse", ("unknown pass 'fuse'", "double-buffer")),
        ("convert-top-to-tpu{speed=1}", ("'convert-top-to-tpu'", "speed", "quant-head")),
        ("convert-top-to-tpu{quant=1}", ("'convert-top-to-tpu'", "expected <class 'str'>")),
        ("convert-top-to-tpu{quant=int4}", ("unknown quantization 'int4'", "convert-top-to-tpu")),
        ("tile-for-local-memory{chip=v9}", ("no chip 'v9'", "pass tile-for-local-memory")),
        ("convert-top-to-tpu{quant=", ("cannot be parsed", "convert-top-to-tpu{quant=")),
        ("convert-top-to-tpu{quant=f16} x", ("cannot be parsed", "comma")),
        (",", ("cannot be parsed",)),
    ],
)
def test_pipelines_that_make_no_sense(
    tw: Tw, source: Path, tmp_path: Path, pipeline: str, said: tuple[str, ...]
) -> None:
    result = tw("opt", source, "-p", pipeline, "-o", tmp_path / "out.mlir")
    assert result.code == 2
    for text in said:
        assert text in result.err
    assert "Traceback" not in result.err
    assert names_in(tmp_path) == ["m.mlir"]


def test_a_pass_that_comes_too_early(tw: Tw, source: Path) -> None:
    result = tw("opt", source, "-p", "convert-top-to-tpu,tile-for-local-memory,insert-waits")
    assert_refused(result, 5, "gdma.load has no offsets", "pass insert-waits", "allocate-local")


# Passes that fail

FAILURES = {
    "a bug": (KeyError("scale"), 70, "KeyError: 'scale'"),
    "a refusal": (PassFailedException("no such loop"), 5, "PassFailedException: no such loop"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_pass_that_fails(
    tw: Tw, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The message names the pass and the op; the IR before it is kept."""
    error, code, why = FAILURES[name]

    def visit(op: Operation) -> None:
        if isinstance(op, tpu.LaunchOp):
            raise error

    def apply(self: DoubleBufferPass, context: Context, module: ModuleOp) -> None:
        for op in module.walk():
            visit(op)

    monkeypatch.setattr(DoubleBufferPass, "apply", apply)
    stages = tmp_path / "stages"
    result = tw("opt", source, "-p", ALL, "--print-after-each", stages, "-o", tmp_path / "out")
    last = stages / "02-tile-for-local-memory.mlir"
    said = ("pass double-buffer failed", "tpu.Launch", "act (net.py:7)", "in @main", why, str(last))
    assert_refused(result, code, *said)
    assert names_in(stages) == ["01-convert-top-to-tpu.mlir", last.name]
    assert names_in(tmp_path) == ["m.mlir", "stages"]
    assert "tpu.Launch" in tw.text("opt", last)
    without = tw("opt", source, "-p", ALL)
    assert_refused(without, code, "pass double-buffer failed", "--print-after-each DIR keeps")


def test_a_pass_that_leaves_illegal_ir(
    tw: Tw, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply(self: DoubleBufferPass, context: Context, module: ModuleOp) -> None:
        launch = next(op for op in module.walk() if isinstance(op, tpu.LaunchOp))
        launch.detach()

    monkeypatch.setattr(DoubleBufferPass, "apply", apply)
    result = tw("opt", source, "-p", ALL, "--print-after-each", tmp_path / "stages")
    assert_refused(result, 5, "func.return", "in pass double-buffer", "02-tile-for-local-memory")
