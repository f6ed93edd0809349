"""A package outside of the repository, from its installation to numbers: every part of its plugin
is used through the commands that a user has."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.out_of_tree.installed import TW, Installation

MODEL = """
func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %t = top.Tanh %x : tensor<4x64xf32> -> tensor<4x64xf32>
  %r = top.Relu %t : tensor<4x64xf32> -> tensor<4x64xf32>
  %y = top.Mul %r, %r : tensor<4x64xf32>, tensor<4x64xf32> -> tensor<4x64xf32>
  %z = acme.SquaredRelu %y : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %z : tensor<4x64xf32>
}
"""
IDLE = """
func.func @main(%x: tensor<4x64xf32>) -> tensor<4x64xf32> {
  %y = acme.SquaredRelu %x : tensor<4x64xf32> -> tensor<4x64xf32>
  %z = top.Relu %y : tensor<4x64xf32> -> tensor<4x64xf32>
  func.return %z : tensor<4x64xf32>
}
"""
WRONG = """
rule DropSquaredRelu {
  match { y = acme.SquaredRelu(x) }
  replace y with x
}
"""
GUI = """
import sys
from pathlib import Path
from xdsl.interactive.get_all_available_passes import get_available_pass_list
from xdsl.universe import Universe

universe = Universe.get_multiverse()
passes = tuple((name, load()) for name, load in universe.all_passes.items() if "relu" in name)
text = Path(sys.argv[1]).read_text()
dialects = tuple(universe.all_dialects.items())
for each in get_available_pass_list(dialects, passes, text, (), True):
    print(each)
"""
"""What `xdsl-gui` lists for a file, without its terminal."""

DSL = """
import numpy as np
from acme_tilewright.dialect import SquaredReluOp
from tilewright.compiler import dsl
from tilewright.compiler.dsl.tensor import apply
from tilewright.compiler.executable import compile_module
from tilewright.compiler.pipeline import CompileOptions

@dsl.function(x=dsl.f32(4, 64))
def main(x):
    return apply(SquaredReluOp, x)

executable = compile_module(dsl.trace(main), {}, CompileOptions("f32", chip="acme1"))
(y,) = executable.run("main", x=np.full((4, 64), 3.0))
print(y.min(), y.max())
"""

X = np.random.default_rng(3).standard_normal((4, 64))
EXPECTED = np.maximum(np.tanh(X), 0) ** 4


@pytest.fixture
def model(acme: Installation) -> Path:
    (acme.folder / "model.mlir").write_text(MODEL)
    np.savez(acme.folder / "in.npz", x=X)
    return acme.folder / "model.mlir"


def test_its_names_are_listed(acme: Installation) -> None:
    rows = {row["name"]: row for row in acme.json("passes")}
    assert rows["fuse-squared-relu"]["package"] == "acme-tilewright"
    ops = {row["name"]: row["documentation"] for row in acme.json("ops")}
    assert "acme.SquaredRelu" in ops
    assert "Primer" in ops["acme.tpu.SquaredRelu"]
    assert {row["name"]: row["lanes"] for row in acme.json("chips")}["acme1"] == 128
    checks = {check["name"]: check for check in acme.json("doctor")["checks"]}
    assert checks["plugin acme"]["ok"]
    assert checks["plugin acme"]["detail"].startswith("acme-tilewright 1.2.0: dialects acme; ")


def test_its_pass_runs_in_tw_opt_and_xdsl_opt(acme: Installation, model: Path) -> None:
    ours = acme.tw("opt", model, "-p", "fuse-squared-relu")
    assert ours.count("acme.SquaredRelu") == 2
    assert "top.Relu" not in ours
    assert "top.Mul" not in ours
    assert acme.tool("xdsl-opt", model, "-p", "fuse-squared-relu").strip() == ours.strip()
    lowered = acme.tw("opt", model, "-p", "fuse-squared-relu,convert-top-to-tpu{quant=f16}")
    assert lowered.count("acme.tpu.SquaredRelu") == 2
    launched = acme.tw("opt", model, "-p", "acme-compile{chip=acme1 quant=f16}")
    assert launched.count("tpu.Launch @squared_relu_4x64_f16") == 2


def test_every_pass_is_checked_on_its_op(acme: Installation, model: Path) -> None:
    """From the model to commands on its chip: reference, bound and error propagation are used."""
    pipeline = "acme-compile{chip=acme1 quant=f16}"
    assert "bdc.program" in acme.tw("opt", model, "-p", pipeline, "--check-each-pass")


def test_its_rules_are_listed_checked_and_applied(acme: Installation) -> None:
    assert "DropReluOfSquaredRelu" in {rule["name"] for rule in acme.json("rules", "list")}
    (rule,) = acme.json("rules", "check", acme.site / "acme_tilewright" / "acme.rules")
    assert (rule["rule"], rule["verdict"]) == ("DropReluOfSquaredRelu", "right")
    (acme.folder / "idle.mlir").write_text(IDLE)
    simplified = acme.tw("opt", "idle.mlir", "-p", "simplify-acme", "--check-each-pass")
    assert "top.Relu" not in simplified
    assert simplified.count("acme.SquaredRelu") == 1


def test_a_wrong_rule_of_its_op_is_found(acme: Installation) -> None:
    (acme.folder / "wrong.rules").write_text(WRONG)
    done = acme.run(*TW, "rules", "check", "wrong.rules")
    assert done.returncode == 13
    assert "DropSquaredRelu" in done.stdout + done.stderr


def test_xdsl_gui_lists_it(acme: Installation, model: Path) -> None:
    assert "fuse-squared-relu" in acme.output(sys.executable, "-c", GUI, model).split()


def test_its_op_is_compiled_run_and_compared_on_its_chip(acme: Installation, model: Path) -> None:
    compiled = acme.json("compile", model, "--chip", "acme1", "--quant", "f16", "-q", "-o", "m.twm")
    assert compiled["chip"] == "acme1"
    assert compiled["launches"] == {"main": 4}
    commands = acme.tw("inspect", "m.twm", "--commands", "squared_relu")
    assert "max" in commands
    assert acme.json("compare", "m.twm")["ok"]
    outputs = {backend: run(acme, "m.twm", backend) for backend in BACKENDS}
    for backend, (cycles, values) in outputs.items():
        assert cycles == outputs["simulator"][0], backend
        assert np.abs(values - EXPECTED).max() < BACKENDS[backend], backend
    assert not np.array_equal(outputs["simulator"][1], outputs["acme-exact"][1])


BACKENDS = {"simulator": 4e-3, "reference": 4e-3, "acme-exact": 1.5e-3}
"""Largest error of f16 results of at most 1: of four roundings, each doubled by a square, or of the
input's and the last."""


def run(acme: Installation, artifact: str, backend: str) -> tuple[int, np.ndarray]:
    """Cycles and outputs of `main` on a backend."""
    files = ("--inputs", "in.npz", "-o", f"{backend}.npz")
    document = acme.json("run", artifact, "--function", "main", *files, "--backend", backend)
    assert document["backend"] == backend
    with np.load(acme.folder / f"{backend}.npz") as archive:
        (values,) = archive.values()
    return document["cycles"], values


def test_models_of_the_dsl_use_its_op(acme: Installation) -> None:
    assert acme.output(sys.executable, "-c", DSL).split() == ["9.0", "9.0"]


def test_its_importer_reads_models(acme: Installation, model: Path) -> None:
    (acme.folder / "two.layers").write_text("4x64 tanh squared-relu squared-relu")
    acme.tw("compile", "two.layers", "--chip", "acme1", "--quant", "f32", "-q", "-o", "two.twm")
    assert acme.json("compare", "two.twm")["ok"]
    _, values = run(acme, "two.twm", "simulator")
    assert np.abs(values - EXPECTED).max() < 1e-6
    done = acme.run(*TW, "compile", "two.onnx", "-o", "no.twm")
    assert done.returncode == 3
    assert "acme-layers: a FILE.layers" in done.stderr
