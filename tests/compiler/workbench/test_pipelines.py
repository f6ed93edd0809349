"""Pipelines as text: named ones, their options, parts of them."""

from __future__ import annotations

import pytest
from xdsl.passes import ModulePass

from tilewright.compiler.cli.opt_options import parse_options
from tilewright.compiler.pipeline import kernel_passes
from tilewright.compiler.workbench.pipelines import (
    ELSEWHERE,
    part_of,
    passes_from_text,
    pipeline_text,
    position_of,
)
from tilewright.dialects.errors import OptionError
from tilewright.dialects.plugins import Installed, Plugin
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.registry import PASSES, PIPELINES, pass_names, pipeline_names
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass


def names(passes: list[ModulePass]) -> list[str]:
    return [each.name for each in passes]


def test_the_named_pipelines_are_the_compiler() -> None:
    assert passes_from_text("kernels{chip=bm1688}") == [*kernel_passes("bm1688")]
    assert passes_from_text("compile")[0] == ConvertTopToTpuPass()
    assert names(passes_from_text("compile"))[1:] == names(passes_from_text("kernels"))


@pytest.mark.parametrize("name", PIPELINES)
def test_every_named_pipeline_can_be_built(name: str) -> None:
    assert names(passes_from_text(name))
    assert name not in pass_names()
    assert name in pipeline_names()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_of_mlir_opt_are_answered_by_ours(name: str) -> None:
    assert ELSEWHERE[name] in PASSES
    with pytest.raises(OptionError, match=f"did you mean '{ELSEWHERE[name]}'"):
        passes_from_text(name)
    with pytest.raises(OptionError, match=f"did you mean --{ELSEWHERE[name]}\\?"):
        parse_options([f"-{name}"])
    with pytest.raises(OptionError, match="did you mean --timing"):
        parse_options(["--timin"])


def test_options_go_to_the_passes_that_have_them() -> None:
    passes = passes_from_text("compile{quant=f16 chip=bm1688 quant-head=true}")
    assert ConvertTopToTpuPass(quant="f16", quant_head=True) in passes
    assert TileForLocalMemoryPass(chip="bm1688") in passes
    assert DoubleBufferPass() in passes


def test_pipelines_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin("acme", pipelines={"acme-kernels": "kernels{chip=bm1690},double-buffer"})
    installed = Installed("acme", "acme:PLUGIN", "acme", "1", plugin)
    monkeypatch.setattr("tilewright.dialects.plugins.discover", lambda: (installed,))
    assert passes_from_text("acme-kernels") == [*kernel_passes("bm1690"), DoubleBufferPass()]
    assert parse_options(["--acme-kernels"]).pipeline == ["acme-kernels"]
    assert parse_options(["--acme-kernels=chip=bm1688"]).pipeline == ["acme-kernels{chip=bm1688}"]
    with pytest.raises(OptionError, match="unexpected argument"):
        parse_options(["--acme-kernel"])


def test_an_option_from_outside_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    pipelines = {"mine": "convert-top-to-tpu{quant=bf16 act=bf16},double-buffer"}
    monkeypatch.setattr("tilewright.passes.registry.PIPELINES", pipelines)
    first, _ = passes_from_text("mine{quant=f32}")
    assert first == ConvertTopToTpuPass(quant="f32", act="bf16")


@pytest.mark.parametrize(
    "text",
    [
        "builtin.module(double-buffer,insert-waits)",
        "  builtin.module( double-buffer , insert-waits ) ",
        "double-buffer,insert-waits",
    ],
)
def test_an_anchor_may_stand_around_it(text: str) -> None:
    assert passes_from_text(text) == [DoubleBufferPass(), InsertWaitsPass()]


def test_nothing_is_a_pipeline() -> None:
    assert passes_from_text("") == passes_from_text("builtin.module()") == []


def test_text_that_reads_back() -> None:
    passes = passes_from_text("compile{quant=w8a16 act=bf16 chip=bm1688}")
    for all_options in (False, True):
        text = pipeline_text(passes, all_options=all_options)
        assert passes_from_text(text) == passes
        assert ("quant_head=false" in text) == all_options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("doublebuffer", "did you mean 'double-buffer'?"),
        ("kernel", "did you mean 'kernels'?"),
        ("compile{speed=1}", "no pass of pipeline 'compile' has an option 'speed'"),
        ("compile{speed=1}", "quant-embedding"),
        ("func.func(double-buffer)", "'func.func'"),
        ("double-buffer{x=1}", "its options: none"),
    ],
)
def test_what_makes_no_sense(text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        passes_from_text(text)
    assert said in str(caught.value)


def test_a_pipeline_in_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pipelines = {"a": "double-buffer,b", "b": "a"}
    monkeypatch.setattr("tilewright.passes.registry.PIPELINES", pipelines)
    with pytest.raises(OptionError, match="contains itself") as caught:
        passes_from_text("a")
    assert caught.value.why == "a -> b -> a"


def test_parts() -> None:
    passes = passes_from_text("double-buffer,insert-waits,double-buffer,emit-commands")
    assert [position_of(n, passes) for n in ("double-buffer", "double-buffer:2", "4")] == [0, 2, 3]
    assert names(part_of(passes, "insert-waits", "3")) == ["insert-waits", "double-buffer"]
    assert names(part_of(passes, None, "1")) == ["double-buffer"]
    assert part_of(passes, None, None) == passes
    assert part_of([], None, None) == []


@pytest.mark.parametrize("name", ["allocate-local-memory", "double-buffer:3", "0", "5", "x:y", ""])
def test_parts_that_there_are_not(name: str) -> None:
    passes = passes_from_text("double-buffer,insert-waits,double-buffer,emit-commands")
    with pytest.raises(OptionError, match="has no pass"):
        position_of(name, passes)


def test_parts_the_wrong_way_round() -> None:
    with pytest.raises(OptionError, match="comes before"):
        part_of(passes_from_text("double-buffer,insert-waits"), "insert-waits", "double-buffer")


def test_every_pass_has_a_name_of_its_own() -> None:
    assert not set(PASSES) & set(PIPELINES)
