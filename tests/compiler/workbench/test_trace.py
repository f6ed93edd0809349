"""Rewrite traces, and the page that shows them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.workbench.pipelines import passes_from_text
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.compiler.workbench.trace import WHOLE_PASS, Step, Trace
from tilewright.compiler.workbench.trace_page import side_by_side, trace_page
from tilewright.dialects import tpu
from tilewright.dialects.context import parse_module
from tilewright.passes.double_buffer import DoubleBufferPass

TEXT = """
func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = top.SiLU %x : tensor<4x64xf32> -> tensor<4x64xf32> loc("act"("net.py":7:3))
  func.return %y : tensor<4x64xf32>
}
"""
STEP = Step(1, 1, "fuse", "Fuse", "top.Add", "main", "a (x.py:1)", "%0 = top.Add")


def trace_of(pipeline: str) -> list[Step]:
    trace = Trace()
    run_pipeline(parse_module(TEXT, "m.mlir"), passes_from_text(pipeline), (trace,))
    return trace.steps


def test_a_step_says_what_became_of_an_op() -> None:
    steps = trace_of("convert-top-to-tpu{quant=f16},tile-for-local-memory")
    first = steps[0]
    assert (first.number, first.pass_name, first.op) == (1, "convert-top-to-tpu", "top.SiLU")
    assert first.before == "%y = top.SiLU %x : tensor<4x64xf32> -> tensor<4x64xf32>"
    assert first.new_ops == ("tpu.SiLU",)
    assert "tensor<4x64xf16> -> tensor<4x64xf16>" in first.after
    assert (first.function, first.location) == ("main", "act (net.py:7)")
    assert first.new_locations == ("act (net.py:7)",)
    assert [step.number for step in steps] == [*range(1, len(steps) + 1)]


def test_steps_in_kernels_are_where_they_are_launched() -> None:
    twice = TEXT.replace(
        "  func.return %y",
        "  %z = top.SiLU %y : tensor<4x64xf32> -> tensor<4x64xf32>\n  func.return %z",
    )
    for text, location in ((TEXT, "act (net.py:7)"), (twice, "act (net.py:7) and 1 more")):
        trace = Trace()
        module = parse_module(text, "m.mlir", places="missing")
        run_pipeline(module, passes_from_text("compile"), (trace,))
        of_kernel = [step for step in trace.steps if step.pass_name == "insert-waits"]
        assert [step.location for step in of_kernel] == [location]
        assert of_kernel[0].new_locations == (location,)


def test_a_pass_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are the functions that it has changed."""

    def apply(self: DoubleBufferPass, context: Context, module: ModuleOp) -> None:
        silu = next(op for op in module.walk() if isinstance(op, tpu.SiLUOp))
        silu.results[0].name_hint = "renamed"

    monkeypatch.setattr(DoubleBufferPass, "apply", apply)
    monkeypatch.setattr("tilewright.passes.registry.STAGES", {})
    (step,) = [s for s in trace_of("convert-top-to-tpu,double-buffer") if s.pass_number == 2]
    assert (step.pattern, step.function) == (WHOLE_PASS, "main")
    assert "%renamed" in step.after
    assert "%renamed" not in step.before


def test_encoded_bytes_are_cut() -> None:
    last = trace_of("compile{quant=f16}")[-1]
    assert last.new_ops == ("bdc.program",)
    assert '..."' in last.after
    assert max(len(digits) for digits in re.findall(r'"([0-9a-f.]*)"', last.after)) == 67


# The page


def data_of(page: str) -> list[dict[str, object]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


EVIL = '</script><script>alert(1)</script><!-- <b onclick="x">&amp; @DATA@ \u2028'


def test_ir_cannot_become_markup() -> None:
    evil = replace(STEP, pattern=EVIL, before=EVIL, after=f"{EVIL}\n{EVIL}", new_locations=(EVIL,))
    page = trace_page(EVIL, EVIL, [evil])
    assert tags_of(page) == tags_of(trace_page("t", "p", [STEP]))
    (row,) = data_of(page)
    assert row["pattern"] == EVIL
    assert row["lines"] == [[EVIL, EVIL], [None, EVIL]]
    assert "innerHTML" not in page


def tags_of(page: str) -> list[tuple[str, object]]:
    """The elements that a browser sees, with their attributes."""
    seen: list[tuple[str, object]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, attrs))

        def handle_comment(self, data: str) -> None:
            seen.append(("comment", data))

    Parser().feed(page)
    return seen


def test_lines_beside_each_other() -> None:
    assert list(side_by_side("a\nb\nc", "a\nx\ny\nc")) == [
        ("a", "a"),
        ("b", "x"),
        (None, "y"),
        ("c", "c"),
    ]
    assert list(side_by_side("", "a")) == [(None, "a")]
