"""`tw opt`: pipelines, and what is left when a pass fails."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.compiler.cli.harness import ROOT, Tw, assert_refused, names_in
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


def test_nothing_is_written_to_dev_null(tw: Tw, source: Path) -> None:
    assert tw.text("opt", source, "-o", "/dev/null") == ""


def test_printing(tw: Tw, source: Path) -> None:
    assert '"top.SiLU"(%x)' in tw.text("opt", source, "--mlir-print-op-generic")
    text = tw.text("opt", source, "--mlir-print-debuginfo")
    assert f'loc("{source}":4:3)' in text, "an op without a location has its place in the file"


def test_constants_can_be_left_out(tw: Tw, tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    path.write_text(
        '"other.op"() {a = dense<[1, 2, 3]> : tensor<3xi32>, b = dense<[1, 2]> : tensor<2xi32>} '
        ": () -> ()"
    )
    arguments = ("opt", path, "--allow-unregistered-dialect")
    text = tw.text(*arguments, "--mlir-elide-elementsattrs-if-larger=2")
    assert "a = dense<__elided__> : tensor<3xi32>, b = dense<[1, 2]>" in text
    assert "a = dense<[1, 2, 3]>" in tw.text(*arguments, "--elide-constants-larger=3")
    path.write_text(SILU)
    assert "gdma = #bdc.records<__elided__>" in tw.text(
        "opt", path, "--compile", "--elide-constants-larger=32"
    )


# The pipeline


def test_passes_are_flags_too(tw: Tw, source: Path) -> None:
    by_text = tw.text("opt", source, "-p", ALL)
    flags = ["--convert-top-to-tpu=quant=f16", *(f"--{each}" for each in ALL.split(",")[1:])]
    assert tw.text("opt", *flags, source) == by_text
    assert tw.text("opt", flags[0], source, "--kernels") == by_text
    assert tw.text("opt", source, "--compile=quant=f16") == by_text
    assert tw.text("opt", source, flags[0], "-p", "tile-for-local-memory", *flags[2:]) == by_text
    assert tw.text("opt", source, f"--pass-pipeline=builtin.module({ALL})") == by_text
    assert (
        tw.text("opt", source, "-compile=quant=f16", "-verify-each", "-mlir-disable-threading")
        == by_text
    )
    refused = tw("opt", source, "--kernels", flags[0])
    assert_refused(refused, 5, "top.SiLU may not remain after tile-for-local-memory")


def test_the_pipeline_that_is_run(tw: Tw, source: Path) -> None:
    result = tw("opt", source, "--dump-pass-pipeline", "--compile=quant=f16 chip=bm1688")
    assert result.err.startswith('builtin.module(convert-top-to-tpu{quant="f16" act="f16"')
    again = tw.text("opt", source, f"--pass-pipeline={result.err.strip()}")
    assert again == result.out
    assert 'tile-for-local-memory{chip="bm1688"}' in result.err


def test_a_part_of_the_pipeline(tw: Tw, source: Path, tmp_path: Path) -> None:
    middle = tmp_path / "middle.mlir"
    middle.write_text(tw.text("opt", source, "-p", ALL, "--stop-after=double-buffer"))
    assert "scf.for" in middle.read_text() or "gdma.load" in middle.read_text()
    assert "waits" not in middle.read_text()
    rest = tw.text("opt", middle, "-p", ALL, "--start-from", "allocate-local-memory")
    assert rest == tw.text("opt", source, "-p", ALL)
    refused = tw("opt", source, "-p", ALL, "--stop-after=fuse")
    assert_refused(refused, 2, "no pass 'fuse'", "3 double-buffer")


def test_what_there_is(tw: Tw) -> None:
    assert {"top", "tpu", "gdma", "bdc", "func"} <= set(tw.text("opt", "--show-dialects").split())
    passes = tw.text("opt", "--list-passes")
    assert "double-buffer" in passes
    assert "convert-top-to-tpu,kernels" in passes
    assert passes == tw.text("passes")


def test_what_is_legal_when(tw: Tw) -> None:
    text = tw.text("opt", "--print-legality", "-p", "insert-waits")
    assert text.startswith("after insert-waits: nothing but\n")
    assert "  each command op has `waits`\n" in text
    assert text in tw.text("opt", "--print-legality")
    assert text in tw.text("passes", "insert-waits")
    assert tw("passes", "insert-waits", "--json").json["legality"] == text.splitlines()
    assert tw.text("passes", "compile").startswith("compile: convert-top-to-tpu")
    assert_refused(tw("passes", "fuse"), 2, "unknown pass 'fuse'", "double-buffer")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--timings", ("unexpected argument '--timings'", "did you mean --timing?")),
        ("--double-bufer", ("did you mean --double-buffer?",)),
        ("--verify-each=maybe", ("'maybe' is neither 1 nor 0",)),
        ("--report-format=xml", ("'xml'", "json")),
        ("--print-ir-after=fuse", ("unknown pass 'fuse' for --print-ir-after",)),
        ("--print-ir-before=changed", ("unknown pass 'changed' for --print-ir-before",)),
        ("--compile=speed=1", ("'compile' has an option 'speed'",)),
        ("--cost-with=fuse", ("unknown pass 'fuse'",)),
        ("--start-from", ("expected one argument",)),
    ],
)
def test_options_that_make_no_sense(
    tw: Tw, source: Path, argument: str, said: tuple[str, ...]
) -> None:
    assert_refused(tw("opt", source, argument), 2, *said)


def test_help_names_what_mlir_opt_users_look_for(tw: Tw) -> None:
    text = tw.text("opt", "--help")
    for name in (
        *("pass-pipeline", "split-input-file", "verify-diagnostics", "verify-each"),
        *("print-ir-before-all", "print-ir-after-all", "print-ir-after-change"),
        *("print-ir-after-failure", "print-ir-tree-dir", "timing", "pass-statistics"),
        *("dump-pass-pipeline", "list-passes", "show-dialects", "allow-unregistered-dialect"),
        *("print-debuginfo", "print-op-generic", "no-implicit-module"),
    ):
        assert f"--{name}" in text or f"--mlir-{name}" in text, name
    assert "--double-buffer" not in text, "passes would hide the options"


# Files


def test_unknown_ops(tw: Tw, tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    path.write_text('"other.op"() {a = 1 : i32} : () -> ()\n')
    assert_refused(tw("opt", path), 4, "other.op is not registered", "m.mlir:1:1")
    text = tw.text("opt", path, "--allow-unregistered-dialect")
    assert '"other.op"() {a = 1 : i32} : () -> ()' in text
    assert_refused(tw("opt", path, "--allow-unregistered-dialect", "--no-implicit-module"), 3)


def test_errors_name_the_place_in_the_file(tw: Tw, tmp_path: Path) -> None:
    path = tmp_path / "m.mlir"
    path.write_text(
        "func.func @main(%x: tensor<4x64xf32>) {\n"
        "  %y = top.SiLU %x : tensor<4x64xf32> -> tensor<4x32xf32>\n"
        "  func.return\n"
        "}\n"
    )
    assert_refused(tw("opt", path), 5, f"top.SiLU ({path}:2:3) in @main")
    path.write_text(path.read_text().replace("4x32", "4x64").replace("top.", "tpu."))
    refused = tw("opt", path, "-p", "convert-top-to-tpu")
    assert_refused(refused, 5, f"tpu.SiLU ({path}:2:3) in @main", "in pass convert-top-to-tpu")


# Looking on


def stems() -> list[str]:
    return [f"{i:02d}-{each.split('{')[0]}" for i, each in enumerate(ALL.split(","), 1)]


def test_the_ir_after_each_pass(tw: Tw, source: Path, tmp_path: Path) -> None:
    stages = tmp_path / "a" / "stages"
    text = tw.text("opt", source, "-p", ALL, "--print-ir-tree-dir", stages)
    assert names_in(stages) == sorted(s + end for s in stems() for end in (".mlir", ".diff"))
    assert (stages / f"{stems()[-1]}.mlir").read_text() == text
    resumed = tw.text("opt", stages / f"{stems()[2]}.mlir", "-p", ",".join(ALL.split(",")[3:]))
    assert resumed == text
    lines = (stages / "01-convert-top-to-tpu.diff").read_text().splitlines()
    assert lines[:2] == ["--- before", "+++ after convert-top-to-tpu"]
    assert [line for line in lines[2:] if "SiLU" in line] == [
        "-    %y = top.SiLU %x : tensor<4x64xf32> -> tensor<4x64xf32>",
        "+    %y = tpu.SiLU %x : tensor<4x64xf16> -> tensor<4x64xf16>",
    ]


def test_a_diff_leads_from_one_file_to_the_next(tw: Tw, source: Path, tmp_path: Path) -> None:
    """`patch` makes each stage of the one before it."""
    tw.text("opt", source, "-p", ALL, "--print-ir-tree-dir", tmp_path / "s")
    at = tmp_path / "at.mlir"
    at.write_text(tw.text("opt", source))
    for stem in stems():
        diff = tmp_path / "s" / f"{stem}.diff"
        if diff.read_text():
            subprocess.run(["patch", "--quiet", at, diff], check=True)
        assert at.read_text() == (tmp_path / "s" / f"{stem}.mlir").read_text()


def test_only_what_has_changed(tw: Tw, source: Path, tmp_path: Path) -> None:
    pipeline = "convert-top-to-tpu,tile-for-local-memory,double-buffer"
    tw.text(
        *("opt", source, "-p", pipeline, "--print-ir-after=changed"),
        *("--print-ir-tree-dir", tmp_path / "s"),
    )
    changed = ["01-convert-top-to-tpu", "02-tile-for-local-memory"]
    assert names_in(tmp_path / "s") == sorted(s + e for s in changed for e in (".mlir", ".diff"))


def dumps(text: str) -> list[str]:
    return re.findall(r"^// -----// IR Dump (.*) //----- //$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--print-ir-before=double-buffer,insert-waits",), "B3 B5"),
        (("--print-ir-before-all", "--stop-after=2"), "B1 B2"),
        (("--print-ir-after=insert-waits", "--print-ir-after=double-buffer"), "A3 A5"),
        (("--mlir-print-ir-after-all",), "A1 A2 A3 A4 A5 A6"),
        (("--mlir-print-ir-after-change",), "A1 A2 A4 A5 A6"),
        (("--print-ir-after=changed",), "A1 A2 A4 A5 A6"),
        (("--print-ir-after=double-buffer,insert-waits,changed",), "A5"),
        (("--print-ir-before=insert-waits", "--print-ir-after=all", "--start-from=5"), "B5 A5 A6"),
        (("--print-ir-after-failure",), ""),
    ],
)
def test_the_ir_on_stderr(
    tw: Tw, tmp_path: Path, source: Path, options: tuple[str, ...], expected: str
) -> None:
    if "--start-from=5" in options:
        text = tw.text("opt", source, "-p", ALL, "--stop-after=4")
        source.write_text(text)
    result = tw("opt", source, "-p", ALL, *options)
    assert result.code == 0
    names = [each.split("{")[0] for each in ALL.split(",")]
    words = {"B": "Before", "A": "After"}
    said = [f"{words[each[0]]} {names[int(each[1]) - 1]}" for each in expected.split()]
    assert dumps(result.err) == said
    assert len(result.err.split("builtin.module {")) == len(said) + 1


def test_the_time_of_everything(tw: Tw, source: Path) -> None:
    result = tw("opt", source, "-p", ALL, "--timing")
    assert result.out == tw.text("opt", source, "-p", ALL)
    lines = [line.split(maxsplit=3) for line in result.err.splitlines()[2:]]
    tops = [line for line in result.err.splitlines()[2:] if re.match(r".* %  \S", line)]
    names = [line.split(" %  ")[1] for line in tops]
    passes = [each.split("{")[0] for each in ALL.split(",")]
    assert names == ["parse", "verify", *passes, "print", "rest", "total"]
    seconds = [float(line.split()[0]) for line in tops]
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1], abs=0.001)
    assert any(line[3].startswith("BuildKernel (1 step)") for line in lines)
    document = json.loads(tw("opt", source, "-p", ALL, "--mlir-timing", "--timing-format=json").err)
    assert [part["name"] for part in document["timing"]["parts"]] == names[:-1]


def test_counts(tw: Tw, source: Path) -> None:
    result = tw("opt", source, "-p", ALL, "--stats")
    assert "convert-top-to-tpu: 3 ops -> 3 (+0)" in result.err
    assert "        -1  top.SiLU (1 -> 0)\n        +1  tpu.SiLU (0 -> 1)" in result.err
    document = json.loads(
        tw("opt", source, "-p", ALL, "--mlir-pass-statistics", "--report-format=json").err
    )
    first, second, *_ = document["statistics"]
    assert first["pass"] == "convert-top-to-tpu"
    assert sum(first["steps"].values()) == 1
    assert {"name": "tpu.SiLU", "before": 0, "after": 1} in first["ops"]
    assert {"name": "tpu.SiLU", "before": 1, "after": 0} in second["ops"]


# Files of several modules

TWO = f"{SILU}// -----\n// ------ not a mark\n{SILU.replace('@main', '@other')}"


def test_split_files(tw: Tw, tmp_path: Path) -> None:
    path = tmp_path / "two.mlir"
    path.write_text(TWO)
    stages = tmp_path / "stages"
    text = tw.text(
        "opt", path, "--split-input-file", "-p", "convert-top-to-tpu", "--print-ir-tree-dir", stages
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
    result = tw("opt", source, "-p", ALL, "--print-ir-tree-dir", stages, "-o", tmp_path / "out")
    last = stages / "02-tile-for-local-memory.mlir"
    said = ("pass double-buffer failed", "tpu.Launch", "act (net.py:7)", "in @main", why, str(last))
    assert_refused(result, code, *said)
    assert names_in(stages) == [
        *("01-convert-top-to-tpu.diff", "01-convert-top-to-tpu.mlir"),
        *("02-tile-for-local-memory.diff", last.name),
    ]
    assert names_in(tmp_path) == ["m.mlir", "stages"]
    assert "tpu.Launch" in tw.text("opt", last)
    without = tw("opt", source, "-p", ALL)
    assert_refused(without, code, "pass double-buffer failed", "--print-ir-tree-dir=DIR keeps")


def test_the_line_of_a_loaded_pass_that_fails(tw: Tw, source: Path, tmp_path: Path) -> None:
    """The line is the writer's own, also where a library that it calls raises."""
    path = tmp_path / "fails_in_a_library.py"
    path.write_text(
        "import json\nfrom xdsl.passes import ModulePass\n"
        'class FailsPass(ModulePass):\n    name = "fails"\n'
        '    def apply(self, ctx, op):\n        json.loads("{")\n'
    )
    result = tw("opt", "--load", path, source, "-p", "fails")
    assert_refused(result, 70, "pass fails failed", "(fails_in_a_library.py:6)")


def test_a_pass_that_leaves_illegal_ir(
    tw: Tw, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply(self: DoubleBufferPass, context: Context, module: ModuleOp) -> None:
        launch = next(op for op in module.walk() if isinstance(op, tpu.LaunchOp))
        launch.detach()

    monkeypatch.setattr(DoubleBufferPass, "apply", apply)
    result = tw("opt", source, "-p", ALL, "--print-ir-tree-dir", tmp_path / "stages")
    assert_refused(result, 5, "func.return", "in pass double-buffer", "02-tile-for-local-memory")


def test_the_ir_that_a_failing_pass_leaves(
    tw: Tw, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is illegal, and printed all the same."""

    def apply(self: DoubleBufferPass, context: Context, module: ModuleOp) -> None:
        launch = next(op for op in module.walk() if isinstance(op, tpu.LaunchOp))
        del launch.properties["kernel"]

    monkeypatch.setattr(DoubleBufferPass, "apply", apply)
    result = tw("opt", source, "-p", ALL, "--print-ir-after-failure")
    assert result.code == 5
    assert dumps(result.err) == ["After failure of double-buffer"]
    assert '"tpu.Launch"(%x)' in result.err
    tw("opt", source, "-p", ALL, "--print-ir-after-failure", "--print-ir-tree-dir", tmp_path / "s")
    assert '"tpu.Launch"(%x)' in (tmp_path / "s" / "03-double-buffer.failed.mlir").read_text()


def test_verification_can_be_left_out(
    tw: Tw, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pass has done to the IR can be seen, legal or not."""

    def apply(self: DoubleBufferPass, context: Context, module: ModuleOp) -> None:
        launch = next(op for op in module.walk() if isinstance(op, tpu.LaunchOp))
        del launch.properties["kernel"]

    monkeypatch.setattr(DoubleBufferPass, "apply", apply)
    pipeline = ("-p", ALL, "--stop-after=double-buffer")
    assert tw("opt", source, *pipeline, "--verify-each").code == 5
    assert '"tpu.Launch"(%x)' in tw.text("opt", source, *pipeline, "--verify-each=0")


# Expected errors

BAD = """
func.func @a(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  // expected-error@+1 {{result is [4, 64], not [4, 32]}}
  %y = top.SiLU %x : tensor<4x64xf32> -> tensor<4x32xf32> loc("act"("net.py":7:3))
  func.return %x : tensor<4x64xf32>
}
// -----
func.func @b(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  // expected-error-re@below {{top.Foo{{.*}}not registered}}
  %y = top.Foo %x : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %x : tensor<4x64xf32>
}
// -----
func.func @fine(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  func.return %x : tensor<4x64xf32>
}
// -----
func.func @d(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = tpu.SiLU %x : tensor<4x64xf32> -> tensor<4x64xf32> loc("act"("net.py":7:3))
  // expected-error@above {{cannot be converted}}
  func.return %y : tensor<4x64xf32>
}
"""


def test_expected_errors(tw: Tw, source: Path) -> None:
    """Of the parser, the verifier and a pass; what comes through is printed."""
    source.write_text(BAD)
    arguments = ("opt", source, "--split-input-file", "-p", "convert-top-to-tpu")
    text = tw.text(*arguments, "--verify-diagnostics")
    assert "@fine" in text
    assert "@a" not in text
    source.write_text(BAD.replace("not [4, 32]", "not [4, 33]"))
    result = tw(*arguments, "--verify-diagnostics")
    assert (result.code, result.out) == (1, "")
    assert f"{source}:4: unexpected error: top.SiLU is illegal" in result.err
    assert f"{source}:3: expected error 'result is [4, 64], not [4, 33]' on line 4" in result.err
    assert len(result.err.splitlines()) == 2


def test_a_bug_is_not_an_expected_error(
    tw: Tw, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply(self: DoubleBufferPass, context: Context, module: ModuleOp) -> None:
        raise KeyError("x")

    monkeypatch.setattr(DoubleBufferPass, "apply", apply)
    source.write_text("// expected-error@unknown {{KeyError}}\n" + SILU)
    result = tw("opt", source, "--verify-diagnostics", "--double-buffer")
    assert_refused(result, 70, "KeyError")


# Costs


def test_costs(tw: Tw, source: Path) -> None:
    source.write_text(SILU.replace("4x64", "512x4096"))
    result = tw("opt", source, "-p", ALL, "--cost")
    assert result.out == tw.text("opt", source, "-p", ALL)
    lines = [re.split(r"  +", line) for line in result.err.splitlines()]
    assert lines[0] == [
        *("after", "cycles of main", "change", "bytes moved", "change"),
        *("local bytes a lane", "kernels"),
    ]
    cells = {line[0]: line[1:] for line in lines[2:]}
    assert list(cells) == ["(input)", *(each.split("{")[0] for each in ALL.split(","))]
    assert re.match(r"-\d+\.\d %", cells["double-buffer"][1]), "the loop overlaps now"
    assert {line[2] for name, line in cells.items() if name != "(input)"} == {
        f"{2 * 512 * 4096 * 2:,}"
    }


def test_costs_with_options(tw: Tw, source: Path) -> None:
    def cycles(*options: str) -> int:
        result = tw("opt", source, "--cost", "--report-format=json", *options)
        return json.loads(result.err)["cost"][-1]["functions"][0]["cycles"]

    source.write_text(SILU.replace("4x64", "512x4096"))
    small, big = cycles("--cost-with=compile{quant=f16}"), cycles("--cost-with=compile{quant=f32}")
    assert small < big
    assert cycles("--compile=quant=f32", "--start-from=1", "--stop-after=1") == big
    assert cycles("--cost-with=kernels{chip=bm1688}") > small


def test_no_cost_is_no_failure(tw: Tw, source: Path) -> None:
    result = tw("opt", source, "--cost", "--cost-with=kernels{chip=none}")
    assert result.code == 0
    assert "(input): no cost: no chip 'none'" in result.err


def test_kernels_alone_have_costs(tw: Tw, source: Path) -> None:
    path = ROOT / "tests" / "filecheck" / "passes" / "allocate-local-memory.mlir"
    assert "cycles of each kernel once" in tw("opt", path, "--cost").err
