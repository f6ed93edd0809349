"""Lowerings in the rewrite language: matched in the old function, built in the new one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
from tests.passes.test_steps import HoldBack, numbers
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.workbench.inputs import GeneratedInputs
from tilewright.dialects.context import make_context, parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.plugins import Installed, Plugin
from tilewright.dialects.scopes import functions_of
from tilewright.passes.actions import watching
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.lowerings import Lowering, registered_lowerings, registry, temporarily
from tilewright.passes.lowerings.from_rules import lowering_of, register_rules
from tilewright.passes.rules.checking import load_rules
from tilewright.passes.rules.source import RuleError, Source

RULES = """
/// The sum with a bias takes place in the product.
lowering LowerBiasedMatMulToW8A16 for quant = "w8a16" benefit 2 {
  match {
    y = top.MatMul(x, w: weight) {right_transpose: TRANSPOSED} [uses = 1]
    z = top.Add(y, b: weight rank 1)
  }
  replace z with tpu.W8A16MatMul(x, codes(w), scale(w), bias = b)
}

lowering LowerSiLUByParts for quant = "f16" {
  match { z = top.SiLU(x) }
  replace z with tpu.Mul(x, tpu.Sigmoid(x))
}
"""


def rules(transposed: bool = True) -> list[Lowering]:
    text = RULES.replace("TRANSPOSED", str(transposed).lower())
    return [lowering_of(rule) for rule in load_rules(Source("mine.rules", text)).lowerings]


def model(transposed: bool) -> ModuleOp:
    right, mark = ("12x8", "{right_transpose}") if transposed else ("8x12", "")
    text = f"""
    func.func @main(%x: tensor<2x8xf32>) -> tensor<2x12xf32> {{
      %w = top.Weight "w" : tensor<{right}xf32>
      %b = top.Weight "b" : tensor<12xf32>
      %y = top.MatMul %x, %w {mark} :
        tensor<2x8xf32>, tensor<{right}xf32> -> tensor<2x12xf32> loc("dense"("m.py":1:1))
      %z = top.Add %y, %b : tensor<2x12xf32>, tensor<12xf32> -> tensor<2x12xf32>
        loc("bias"("m.py":2:1))
      %a = top.SiLU %z : tensor<2x12xf32> -> tensor<2x12xf32>
      func.return %a : tensor<2x12xf32>
    }}
    """
    module = parse_module(text, "test.mlir")
    verify_module(module)
    return module


def converted(module: ModuleOp, quant: str, limit: int | None = None) -> tuple[ModuleOp, HoldBack]:
    copy, watcher = module.clone(), HoldBack(limit)
    with watching(watcher):
        ConvertTopToTpuPass(quant=quant).apply(make_context(), copy)
    verify_module(copy)
    return copy, watcher


def op_names(module: ModuleOp) -> list[str]:
    return [op.name for op in functions_of(module)["main"].body.block.ops]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_rule_over_two_ops_takes_the_codes_of_a_weight(transposed: bool) -> None:
    """And what the product alone has become is gone with its weights."""
    module = model(transposed)
    with temporarily(*rules(transposed)):
        after, watcher = converted(module, "w8a16")
        assert "LowerBiasedMatMulToW8A16" in watcher.begun
        assert op_names(after) == [
            *("tpu.Weight", "tpu.Weight", "tpu.Weight", "tpu.W8A16MatMul"),
            *("tpu.SiLU", "func.return"),
        ]
        product = list(functions_of(after)["main"].body.block.ops)[3]
        assert '"bias"' in str(product.location)
        inputs = GeneratedInputs(module)
        for limit in range(4):
            mixed, _ = converted(module, "w8a16", limit)
            np.testing.assert_allclose(
                numbers(mixed, inputs)["main"][0], numbers(module, inputs)["main"][0], rtol=1e-12
            )


def test_the_options_behind_for_decide() -> None:
    with temporarily(*rules()):
        assert op_names(converted(model(True), "f16")[0])[-3:] == [
            *("tpu.Sigmoid", "tpu.Mul", "func.return")
        ]
        assert op_names(converted(model(True), "bf16")[0])[-3:] == [
            *("tpu.Add", "tpu.SiLU", "func.return")
        ]


def test_a_rule_that_does_not_match_leaves_the_op_to_others() -> None:
    with temporarily(*rules(transposed=False)):
        names = op_names(converted(model(True), "w8a16")[0])
    assert names.count("tpu.W8A16MatMul") == names.count("tpu.Add") == 1


def test_rules_of_a_file_are_registered_with_their_documentation(tmp_path: Path) -> None:
    path = tmp_path / "mine.rules"
    path.write_text(RULES.replace("TRANSPOSED", "true"))
    with temporarily():
        register_rules(path)
        found = {each.name: each for each in registered_lowerings()}["LowerBiasedMatMulToW8A16"]
    assert found.documentation == "The sum with a bias takes place in the product."
    assert (found.origin, found.benefit) == (str(path), 2)
    assert dict(found.options) == {"quant": ("w8a16",)}


def test_an_option_that_the_conversion_lacks_is_shown_in_its_line() -> None:
    text = 'lowering L for quantum = "f16" {\n  match { z = top.SiLU(x) }\n  replace z with x\n}'
    (rule,) = load_rules(Source("mine.rules", text)).lowerings
    with pytest.raises(RuleError, match=r"mine\.rules:1:1: quantum = 'f16' is no option"):
        lowering_of(rule)


@pytest.fixture
def plugin_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Generator[Callable[[str], None]]:
    """Installs a plugin with one file of rules, of that text."""

    def install(text: str) -> None:
        path = tmp_path / "acme.rules"
        path.write_text(text)
        found = Installed("acme", "acme:P", "acme", "1", Plugin("acme", rules=(path,)))
        monkeypatch.setattr(registry, "givers", lambda: (found,))

    with temporarily():
        yield install


def test_lowerings_of_plugins_are_there(plugin_with: Callable[[str], None]) -> None:
    plugin_with(RULES.replace("TRANSPOSED", "true"))
    assert "LowerSiLUByParts" in [each.name for each in registered_lowerings()]


def test_a_broken_file_of_a_plugin_is_left_out_and_said(
    plugin_with: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plugin_with("lowering {")
    assert op_names(converted(model(True), "f16")[0])[-2:] == ["tpu.SiLU", "func.return"]
    said = capsys.readouterr().err
    assert "plugin acme of acme 1: the lowerings in its acme.rules are left out" in said
