"""`--load FILE`: what a file gives, and how it is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from shutil import rmtree

import pytest

from tilewright.compiler.cli import run
from tilewright.dialects import plugins
from tilewright.dialects.context import make_context
from tilewright.dialects.documentation import plugin_ops
from tilewright.dialects.errors import (
    IRError,
    MiscompileError,
    OptionError,
    PluginError,
    TilewrightError,
)
from tilewright.passes.kernels import registry
from tilewright.passes.lowerings import registry as lowerings
from tilewright.passes.registry import find_pass, find_pipeline, pass_names

Write = Callable[[str, str], Path]

PASS = '''
from tilewright.passes.rules.rule_pass import RulePass

class DropPass(RulePass):
    """Drop double negation.

    ```rules
    use {0}: allowed

    rule Drop {{
      match {{ y = top.Neg(top.Neg(x)) }}
      where allowed(dim(x, 0))
      replace y with x
    }}
    ```
    """

    name = "drop-{0}"

def allowed(size):
    return size == 4
'''
OPS = """
from tilewright.compiler import dsl
from tilewright.dialects import top, tpu
from tilewright.dialects.graph.composite import composite

@dsl.custom_op("{0}.Twice", quantized=("w",))
def twice(x, w):
    return dsl.linear(x, w) * 2.0

@composite("{0}.Thrice", tpu.TpuOp)
def thrice(x):
    return tpu.MulConstOp(x, 3.0).result
"""
KERNEL = """
from tilewright.passes import kernel_language as tk

@tk.kernel(twice.tpu)
def kernel(op):
    pass
"""
NEGATIONS = """
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %a = top.Neg %x : tensor<4x8xf32> -> tensor<4x8xf32>
  %b = top.Neg %a : tensor<4x8xf32> -> tensor<4x8xf32>
  func.return %b : tensor<4x8xf32>
}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes NAME.py into the working folder; what is loaded is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.mlir").write_text(NEGATIONS)

    def add(name: str, text: str) -> Path:
        path = Path(f"{name}.py")
        path.write_text(text.format(name) if "{0}" in text else text)
        return path

    with plugins.temporarily(), registry.temporarily():
        yield add


def test_passes_and_ops_of_a_file_are_found(write: Write) -> None:
    file = plugins.load_file(write("mine_a", PASS + OPS))
    assert find_pass("drop-mine_a") is file.module.DropPass
    assert make_context().get_op("mine_a.Twice") is file.module.twice.top
    given = {document.name for document in plugin_ops()}
    ours = {"mine_a.Twice", "mine_a.tpu.Twice", "mine_a.tpu.W8A16Twice", "mine_a.Thrice"}
    assert ours <= given
    assert [each.package for each in plugins.loaded_files()] == ["mine_a.py"]


def test_what_a_file_imports_is_not_its_own(write: Write) -> None:
    """Passes and ops of Tilewright and xDSL, and a dialect."""
    text = """
from xdsl.dialects.arith import AddiOp, Arith
from xdsl.transforms.canonicalize import CanonicalizePass
from tilewright.dialects.tpu import GELUOp, Tpu
from tilewright.passes.fuse_bias import FuseBiasPass
from tilewright.passes.rules.rule_pass import RulePass
"""
    file = plugins.load_file(write("mine_b", PASS + text))
    assert file.plugin is not None
    assert (list(file.plugin.passes), list(file.plugin.dialects)) == (["drop-mine_b"], [])


def test_a_plugin_in_a_file_says_what_it_gives(write: Write) -> None:
    text = "from tilewright.dialects.plugins import Plugin\n"
    text += "PLUGIN = Plugin('named', pipelines={{'both': 'double-buffer,insert-waits'}})\n"
    plugins.load_file(write("mine_c", PASS + text))
    assert find_pipeline("both") == "double-buffer,insert-waits"
    assert "drop-mine_c" not in pass_names()


def test_a_dialect_object_has_its_ops(write: Write) -> None:
    text = OPS + "from xdsl.ir import Dialect\nMine = Dialect('{0}', twice.ops)\n"
    file = plugins.load_file(write("mine_d", text))
    assert file.plugin is not None
    assert file.plugin.dialects["mine_d"]() is file.module.Mine


@pytest.mark.parametrize("line", ["opt --load {0} m.mlir -p {1}", "--load {0} opt m.mlir --{1}"])
def test_tw_takes_it_before_and_behind_the_verb(
    write: Write, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    write("mine_e", PASS)
    assert run(line.format("mine_e.py", "drop-mine_e").split()) == 0
    assert "top.Neg" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "passes drop-mine_f --load={0}",
        "trace m.mlir --load {0} -p drop-mine_f",
        "rules list drop-mine_f --load {0}",
        "--load {0} rules check drop-mine_f",
        "rules check {0}",
        "opt -load-pass-plugin={0} m.mlir --drop-mine_f",
    ],
)
def test_every_verb_takes_it(write: Write, line: str) -> None:
    write("mine_f", PASS)
    assert run(line.format("mine_f.py").split()) == 0


def test_the_rule_holds_what_the_file_says(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that has changed is loaded anew, and of the same text is not executed twice."""
    path = write("mine_g", PASS)
    first = plugins.load_file(path)
    assert plugins.load_file(path) is first
    write("mine_g", PASS.replace("size == 4", "size == 5"))
    assert plugins.load_file(path) is not first
    assert run(["opt", "m.mlir", "-p", "drop-mine_g"]) == 0
    assert "top.Neg" in capsys.readouterr().out


def test_a_module_that_is_imported_is_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test imports its neighbour: there must not be two of each of its ops."""
    path = write("mine_h", PASS + OPS)
    monkeypatch.syspath_prepend(tmp_path)
    module = import_module("mine_h")
    assert plugins.load_file(path).module is module


@pytest.mark.parametrize(
    ("name", "text", "kind", "what"),
    [
        ("gone", None, OptionError, "No such file"),
        ("mine-i", PASS, OptionError, "NAME that Python can import"),
        ("queue", PASS, PluginError, "name of another module"),
        ("mine_j", "x = 1\n\nraise ValueError('no')\n", PluginError, "mine_j.py:3"),
        ("mine_k", "def f(:\n", PluginError, "mine_k.py:1"),
        ("mine_l", "x = 1\n", PluginError, "gives nothing"),
        ("mine_m", "PLUGIN = 3\n", PluginError, "is not a plugin"),
        ("mine_n", PASS.replace("drop-{0}", "fuse-bias"), PluginError, "'fuse-bias'"),
        ("mine_o", OPS.replace("{0}.Thrice", "top.Thrice"), PluginError, "top.Thrice"),
        ("mine_p", "import sys\nsys.exit(3)\n", PluginError, "mine_p.py:2"),
        ("mine_q", OPS + KERNEL, IRError, "takes 1 parameters"),
    ],
)
def test_what_is_wrong_is_said(
    write: Write, name: str, text: str | None, kind: type[TilewrightError], what: str
) -> None:
    path = Path(f"{name}.py") if text is None else write(name, text)
    with pytest.raises(TilewrightError) as caught:
        plugins.load_file(path)
    assert what in str(caught.value)
    assert path.name in str(caught.value)
    assert isinstance(caught.value, kind)
    assert not plugins.loaded_files()
    assert name == "queue" or name not in sys.modules


def test_two_files_may_not_give_one_name(write: Write) -> None:
    plugins.load_file(write("mine_r", PASS))
    other = write("mine_s", PASS.replace("drop-{0}", "drop-mine_r"))
    with pytest.raises(PluginError, match="'drop-mine_r'") as caught:
        plugins.load_file(other)
    assert "file mine_r.py" in str(caught.value)


def test_a_reproducer_has_the_file_as_it_was(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails again when the file is not loaded, or has gone; mended and loaded, it does not."""
    wrong = PASS.replace("replace y with x", "replace y with top.Neg(x)")
    path = write("mine_t", wrong)
    command = "opt m.mlir -p drop-mine_t --check-each-pass --reproducers kept -o out.mlir"
    with plugins.temporarily():
        assert run([*command.split(), "--load", str(path)]) == MiscompileError.exit_code
    (folder,) = Path("kept").iterdir()
    path.unlink()
    with plugins.temporarily():
        assert run(["replay", str(folder)]) == MiscompileError.exit_code
        assert run(["bisect", str(folder)]) == 0
    assert "first bad step: Drop" in capsys.readouterr().out
    write("mine_t", PASS)
    assert run(["--load", str(path), "replay", str(folder)]) == 0
    assert "not reproduced" in capsys.readouterr().out


def test_a_file_imports_what_stands_beside_it(write: Write, tmp_path: Path) -> None:
    """Only while it is executed: other imports do not find it."""
    folder = tmp_path / "lib"
    (folder / "package_x").mkdir(parents=True)
    (folder / "helper_x.py").write_text("from package_x.inner import SIZE\n")
    (folder / "package_x" / "inner.py").write_text("SIZE = 4\n")
    write("lib/mine_x", "from helper_x import SIZE\n" + PASS.format("mine_x"))
    path = list(sys.path)
    file = plugins.load_file(folder / "mine_x.py")
    assert file.module.SIZE == 4
    assert sys.path == path
    assert set(file.beside()) == {"mine_x", "helper_x", "package_x.inner"}


def test_a_reproducer_has_what_stands_beside_the_file(write: Write, tmp_path: Path) -> None:
    """It fails again elsewhere, where nothing else is."""
    folder = tmp_path / "lib"
    (folder / "package_y").mkdir(parents=True)
    (folder / "package_y" / "__init__.py").write_text("from package_y.inner import SIZE\n")
    (folder / "package_y" / "inner.py").write_text("SIZE = 4\n")
    (folder / "idle_y.py").write_text("")
    wrong = PASS.format("mine_y").replace("replace y with x", "replace y with top.Neg(x)")
    write("lib/mine_y", "import package_y\n" + wrong.replace("== 4", "== package_y.SIZE"))
    command = "opt m.mlir -p drop-mine_y --check-each-pass --reproducers kept -o out.mlir"
    with plugins.temporarily():
        assert run([*command.split(), "--load=lib/mine_y.py"]) == MiscompileError.exit_code
    assert "package_y" not in sys.modules
    (kept,) = Path("kept").iterdir()
    files = list(kept.rglob("*.py"))
    assert sorted(path.relative_to(kept).as_posix() for path in files) == [
        "files/mine_y.py",
        "files/package_y/__init__.py",
        "files/package_y/inner.py",
    ]
    rmtree(folder)
    moved = kept.rename(tmp_path / "elsewhere")
    assert run(["replay", str(moved)]) == MiscompileError.exit_code
    assert sys.modules["package_y"].__file__ == str(moved / "files" / "package_y" / "__init__.py")


def test_lowerings_in_the_rules_of_a_file_are_used(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = 'lowering Gone for quant = "w8a16" { match { y = top.Neg(x) } replace y with x }\n'
    Path("gone.rules").write_text(rules)
    text = "from pathlib import Path\nfrom tilewright.dialects.plugins import Plugin\n"
    text += "PLUGIN = Plugin('gone', rules=(Path('gone.rules'),))\n"
    path = write("mine_u", text)
    with lowerings.temporarily():
        assert run(["opt", "m.mlir", "-p", "convert-top-to-tpu", "--load", str(path)]) == 0
    assert "tpu.Neg" not in capsys.readouterr().out


RULES = """
rule Drop {
  match { y = top.Neg(top.Neg(x)) }
  replace y with x
}

lowering Gone for quant = "w8a16" {
  match { y = top.Neg(x) }
  replace y with x
}
"""


@pytest.mark.parametrize(
    "line",
    [
        "opt m.mlir --load drop-twice.rules -p drop-twice",
        "--load drop-twice.rules opt m.mlir --drop-twice",
        "opt m.mlir --load drop-twice.rules -p convert-top-to-tpu",
    ],
)
def test_a_file_of_rules_is_a_pass_and_lowerings(
    write: Write, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    Path("drop-twice.rules").write_text(RULES)
    with lowerings.temporarily():
        assert run(line.split()) == 0
    assert "Neg" not in capsys.readouterr().out


def test_a_reproducer_has_the_file_of_rules(write: Write) -> None:
    path = Path("wrong.rules")
    path.write_text(RULES.replace("y with x", "y with top.Neg(x)", 1))
    command = "opt m.mlir -p wrong --check-each-pass --reproducers kept -o out.mlir"
    with lowerings.temporarily():
        with plugins.temporarily():
            assert run([*command.split(), "--load", str(path)]) == MiscompileError.exit_code
        path.unlink()
        with plugins.temporarily():
            (folder,) = Path("kept").iterdir()
            assert run(["replay", str(folder)]) == MiscompileError.exit_code


@pytest.mark.parametrize("gives", ["class P(RulePass):", "PLUGIN = Plugin("])
def test_a_reproducer_has_the_rules_that_a_file_names(write: Write, gives: str) -> None:
    plugin = """
from pathlib import Path
from tilewright.dialects.plugins import Plugin
from tilewright.passes.rules.rule_pass import RulePass, rule_pass
RULES = Path(__file__).parent / "beside.rules"
"""
    of_class = "    name = 'by-rules'\n    rules_file = 'beside.rules'\n"
    of_plugin = "'p', passes={'by-rules': lambda: rule_pass('by-rules', RULES)}, rules=(RULES,))\n"
    path = write("mine_z", plugin + gives + ("\n" + of_class if ":" in gives else of_plugin))
    rules = Path("beside.rules")
    rules.write_text(RULES.partition("lowering")[0].replace("y with x", "y with top.Neg(x)"))
    command = "opt m.mlir -p by-rules --check-each-pass --reproducers kept -o out.mlir"
    with plugins.temporarily():
        assert run([*command.split(), "--load", str(path)]) == MiscompileError.exit_code
    path.unlink()
    rules.unlink()
    (folder,) = Path("kept").iterdir()
    assert run(["replay", str(folder)]) == MiscompileError.exit_code


def test_a_file_of_rules_may_be_called_as_a_pass_is(write: Write) -> None:
    path = Path("a pass.rules")
    path.write_text(RULES)
    with pytest.raises(OptionError, match="with a NAME that a pass may have"):
        plugins.load_file(path)


def test_rules_of_a_file_are_listed_once(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    Path("drops.rules").write_text(RULES.replace("rule Drop", "rule DropOnceOnly"))
    with lowerings.temporarily():
        assert run(["rules", "list", "--load", "drops.rules"]) == 0
        assert capsys.readouterr().out.count("DropOnceOnly") == 1


def test_a_mistake_in_its_rules_is_said_with_its_line(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is one of the rules, and says which pass they are of, too."""
    write("mine_v", PASS.replace("top.Neg(x)", "top.Nek(x)"))
    assert run(["opt", "m.mlir", "--load", "mine_v.py", "-p", "drop-mine_v"]) == 2
    said = capsys.readouterr().err
    assert "mine_v.py:11:27: there is no op top.Nek" in said
    assert "where: pass drop-mine_v" in said
    assert "did you mean top.Neg?" in said


def test_ops_of_a_file_are_documented(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an example, and without what is said of every composite op."""
    write("mine_w", OPS.replace("    return dsl", '    """`2 x w^T`."""\n    return dsl'))
    assert run(["ops", "mine_w.Twice", "--load", "mine_w.py"]) == 0
    assert capsys.readouterr().out.split("\n")[:4] == [
        "### `mine_w.Twice`",
        "",
        "`2 x w^T`.",
        "",
    ]
    assert run(["ops", "mine_w.Thrice"]) == 0
    said = capsys.readouterr().out
    assert "```" not in said
    assert "decompose" not in said
