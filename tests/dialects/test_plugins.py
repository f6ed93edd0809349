"""Plugins: found among installed packages, checked, refused by name, and loaded when asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tilewright.backends.chip import CHIP_NAMES, chip_names, load_chip
from tilewright.compiler.cli.catalog_verbs import pass_rows
from tilewright.compiler.execution.registry import find_backend
from tilewright.compiler.importers.registry import open_source
from tilewright.dialects import plugins
from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.errors import (
    IRError,
    ModelReadError,
    OptionError,
    PluginError,
    UnsupportedError,
)
from tilewright.passes.registry import PASSES, check_stage, find_pass, find_pipeline, pass_names

Install = Callable[..., str]

HEAD = "from tilewright.dialects.plugins import Plugin\n"
OPS = """
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition
from tilewright.dialects import graph
from tilewright.dialects.tpu.base import TpuOp

@irdl_op_definition
class HalfOp(TpuOp, graph.UnaryGraphOp):
    name = "other.Half"

OTHER = Dialect("other", [HalfOp])
"""
CALL = """
func.func @f(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %y = other.Half %x : tensor<2x4xf32> -> tensor<2x4xf32>
  func.return %y : tensor<2x4xf32>
}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of one module, whose plugin is `Plugin(<arguments>)` or `text`."""
    names: list[str] = []

    def add(arguments: str = "", *, text: str = "", entry: str = "", **modules: str) -> str:
        name = f"plugin_of_{tmp_path.name}_{len(names)}".replace("-", "_").lower()
        code = text or f"PLUGIN = Plugin('{name}', {arguments})\n"
        (tmp_path / f"{name}.py").write_text(HEAD + code)
        for module, content in modules.items():
            (tmp_path / f"{module}.py").write_text(content)
            monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{name}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(
            f"[{plugins.GROUP}]\n{name} = {entry or f'{name}:PLUGIN'}\n"
        )
        names.append(name)
        plugins.discover.cache_clear()
        importlib.invalidate_caches()
        return name

    monkeypatch.syspath_prepend(tmp_path)
    yield add
    plugins.discover.cache_clear()


def test_a_plugin_is_found_with_its_package(install: Install) -> None:
    name = install("pipelines={'two': 'double-buffer,insert-waits'}")
    found = {each.name: each for each in plugins.discover()}[name]
    assert (found.package, found.version, found.error) == (name, "2.5", None)
    assert [each.name for each in plugins.installed_plugins()] == [name]
    assert find_pipeline("two") == "double-buffer,insert-waits"


def test_of_two_packages_of_one_name_the_first_on_the_path_counts(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = install("pipelines={'old': ''}")
    newer = tmp_path / "newer" / f"{name}-3.0.dist-info"
    newer.mkdir(parents=True)
    (newer / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.0\n")
    (newer / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{name} = {name}:PLUGIN\n")
    monkeypatch.syspath_prepend(newer.parent)
    plugins.discover.cache_clear()
    assert [each.version for each in plugins.discover()] == ["3.0"]


def test_nothing_is_imported_before_it_is_asked_for(install: Install, tmp_path: Path) -> None:
    """Not the package by `tw --help`, not its modules by what is Tilewright's own."""
    name = install(
        "passes={'p': lambda: 1 / 0}, modules=('told',)",
        told=f"open({str(tmp_path / 'told')!r}, 'w')",
    )
    with (tmp_path / f"{name}.py").open("a") as module:
        module.write(f"open({str(tmp_path / 'seen')!r}, 'w')\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tilewright.compiler.cli import run; "
        "sys.exit(run(sys.argv[2].split()))"
    )

    def traces(arguments: str) -> list[str]:
        subprocess.run(
            [sys.executable, "-c", code, tmp_path, arguments], check=True, capture_output=True
        )
        return [trace for trace in ("seen", "told") if (tmp_path / trace).exists()]

    for arguments in ("--help", "--version", "compile --help", "chips bm1684x"):
        assert traces(arguments) == []
    assert traces("chips") == ["seen"]


BROKEN = {
    "it cannot be imported": ({"text": "import there_is_no_such_module"}, "no module named"),
    "it breaks": ({"text": "1 / 0"}, "ZeroDivisionError"),
    "there is no such name": ({"text": "OTHER = 1"}, "no attribute 'PLUGIN'"),
    "another thing": ({"text": "PLUGIN = dict(name='a')"}, "it is of type dict, not tilewright"),
    "the class": ({"text": "PLUGIN = Plugin"}, "it is of type type"),
    "a list of passes": ({"arguments": "passes=['a']"}, "passes is not a mapping by name"),
    "a class for a loader": ({"arguments": "passes={'a': 'b.c'}"}, "passes maps to 'b.c'"),
    "a text for a path": ({"arguments": "chips={'a': 'b.toml'}"}, "chips maps to 'b.toml'"),
    "a text for modules": ({"arguments": "modules='a.b'"}, "modules is not a tuple of str"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_plugin_that_cannot_be_used_is_left_out(
    install: Install, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    """Stderr says so once, with package and entry point; an unknown name says it again."""
    keywords, why = BROKEN[case]
    name = install(**keywords)
    assert plugins.installed_plugins() == ()
    assert set(pass_names()) == set(PASSES)
    plugins.load_modules()
    parse_module("func.func @f() { func.return }", "m.mlir")
    warned = capsys.readouterr().err
    assert warned.count("warning") == 1
    assert f"plugin {name} of {name} 2.5" in warned
    assert f"entry point {name} = {name}:PLUGIN" in warned
    assert why.lower() in warned.lower()
    with pytest.raises(OptionError, match="unknown pass 'theirs'") as caught:
        find_pass("theirs")
    assert name in (caught.value.why or "")
    assert why.lower() in (caught.value.why or "").lower()
    for ask in (
        lambda: load_chip("theirs"),
        lambda: find_backend("theirs"),
        lambda: parse_module('"theirs.op"() : () -> ()', "m.mlir"),
        lambda: open_source(Path("theirs.model"), 8),
    ):
        with pytest.raises((OptionError, UnsupportedError, ModelReadError)) as asked:
            ask()
        assert isinstance(asked.value, OptionError | UnsupportedError | ModelReadError)
        assert name in (asked.value.why or "")


@pytest.mark.parametrize(
    "arguments",
    [
        "passes={'double-buffer': lambda: None}",
        "passes={'canonicalize': lambda: None}",
        "passes={'compile': lambda: None}",
        "pipelines={'insert-waits': ''}",
        "pipelines={'kernels': ''}",
        "dialects={'tpu': lambda: None}",
        "dialects={'arith': lambda: None}",
        "chips={'bm1688': __import__('pathlib').Path('a.toml')}",
        "importers={'mlir': lambda: None}",
        "backends={'reference': lambda: None}",
    ],
)
def test_names_of_tilewright_and_xdsl_are_taken(install: Install, arguments: str) -> None:
    install(arguments)
    (found,) = plugins.discover()
    assert found.plugin is None
    assert found.error is not None
    taken = arguments.split("'")[1]
    assert f"the name {taken!r} among its {arguments.split('=')[0]} is taken" in found.error.what
    assert "Tilewright or xDSL" in (found.error.why or "")


def test_two_plugins_with_one_name_are_both_left_out(install: Install) -> None:
    first = install("pipelines={'both': ''}")
    second = install("passes={'both': lambda: None}")
    third = install("pipelines={'mine': ''}, chips={}")
    for each in plugins.discover():
        assert (each.plugin is None) == (each.name != third)
        if each.error is not None:
            other = second if each.name == first else first
            assert f"plugin {other} of {other} 2.5" in (each.error.why or "")
    with pytest.raises(OptionError) as caught:
        find_pass("both")
    assert first in (caught.value.why or "")
    assert second in (caught.value.why or "")


def test_what_a_loader_gives_is_checked(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    name = install(
        text="def pass_():\n"
        "    from tilewright.passes.insert_waits import InsertWaitsPass\n"
        "    return InsertWaitsPass\n"
        "passes = {'none': lambda: None, 'other-name': pass_, 'breaks': lambda: 1 / 0}\n"
        "PLUGIN = Plugin('p', passes=passes, importers={'reader': dict}, "
        "backends={'engine': dict}, dialects={'theirs': dict})\n"
    )
    for ask, said in (
        (lambda: find_pass("none"), "not a type"),
        (lambda: find_pass("other-name"), "is not a pass of that name"),
        (lambda: find_pass("breaks"), "ZeroDivisionError"),
        (lambda: find_backend("engine"), "not a Backend"),
        (lambda: open_source(Path("a.b"), 8), "not a Importer"),
        (lambda: parse_module('"theirs.op"() : () -> ()', "m"), "not a Dialect"),
    ):
        with pytest.raises(PluginError, match=name) as caught:
            ask()
        assert said in (caught.value.why or "")
    capsys.readouterr()
    assert {str(row["name"]) for row in pass_rows()} == set(PASSES)
    assert capsys.readouterr().err.count("warning") == 3


def test_a_chip_file_that_is_not_valid(install: Install, tmp_path: Path) -> None:
    chips = Path(__file__).parents[2] / "backends" / "chips" / "bm1684x.toml"
    (tmp_path / "few_lanes.toml").write_text('name = "few-lanes"\nlanes = 1\n')
    (tmp_path / "renamed.toml").write_text(chips.read_text())
    here = f"__import__('pathlib').Path({str(tmp_path)!r})"
    name = install(
        f"chips={{'few-lanes': {here} / 'few_lanes.toml', 'renamed': {here} / 'renamed.toml', "
        f"'missing': {here} / 'missing.toml'}}"
    )
    assert chip_names() == (*CHIP_NAMES, "few-lanes", "renamed", "missing")
    for chip, why in (
        ("few-lanes", "missing: bank_conflict_factor, banks"),
        ("renamed", "it describes 'bm1684x'"),
        ("missing", "No such file"),
    ):
        with pytest.raises(PluginError, match=rf"plugin {name} .*: chip '{chip}'") as caught:
            load_chip(chip)
        assert why in (caught.value.why or "")
    assert load_chip("bm1688").name == "bm1688"


def test_modules_that_cannot_be_imported(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ops that would lack their meaning are refused; everything else works."""
    name = install(
        "dialects={'other': lambda: __import__('other_ops').OTHER}, modules=('broken_part',)",
        other_ops=OPS,
        broken_part="raise RuntimeError('of no use')",
    )
    plugins.load_modules()
    plugins.load_modules()
    assert capsys.readouterr().err.count("of no use") == 1
    parse_module("func.func @f() { func.return }", "m.mlir")
    with pytest.raises(PluginError, match=f"plugin {name}") as caught:
        parse_module(CALL, "m.mlir")
    assert "RuntimeError: of no use" in (caught.value.why or "")
    assert "broken_part" in caught.value.what


def test_levels_are_those_of_classes(install: Install) -> None:
    """A `TpuOp` of another dialect is legal where `tpu.*` is, and needs a kernel like them."""
    install(
        "dialects={'other': lambda: __import__('other_ops').OTHER}",
        other_ops=OPS,
    )
    module = parse_module(CALL, "m.mlir")
    check_stage(module, "convert-top-to-tpu")
    with pytest.raises(IRError, match=r"other\.Half may not remain after tile-for-local-memory"):
        check_stage(module, "tile-for-local-memory")
    with pytest.raises(UnsupportedError, match=r"other\.Half has no kernel"):
        find_pass("tile-for-local-memory")().apply(make_context(), module)
