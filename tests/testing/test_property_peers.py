"""The benchmark that points the suite at published quantizers, with those that are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "property_peers.py"
SECONDS = 120


def test_the_table_has_whoever_is_installed(tmp_path: Path) -> None:
    results, table = tmp_path / "results.json", tmp_path / "table.md"
    arguments = ["--examples", "2", "--only", "torch,onnxruntime,gguf"]
    chosen = ["--properties", "code-range,sign-symmetry,not-finite-is-refused"]
    ended = subprocess.run(
        [sys.executable, SCRIPT, *arguments, *chosen, "--json", results, "--markdown", table],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(results.read_text())
    rows = {peer["name"]: {row["property"]: row for row in peer["rows"]} for peer in found["peers"]}
    refused = "not-finite-is-refused"
    assert rows["torch by hand, f32"][refused]["mark"] == "FAILS"
    assert rows["torch by hand, f32"][refused]["counterexample"]
    assert rows["torch by hand, f32"]["code-range"]["mark"] == "holds"
    assert rows["torch.quantize_per_channel"]["sign-symmetry"]["mark"] in ("holds", "convention")
    assert f"| `{refused}` |" in table.read_text()
    for library, modules in {"gguf": ["gguf"], "onnxruntime": ["onnxruntime", "onnx"]}.items():
        installed = all(find_spec(module) for module in modules)
        assert any(line.startswith(library) for line in found["not_installed"]) != installed
        assert (f"{library}: not installed" in ended.stdout) != installed


def test_an_unknown_name_is_an_error() -> None:
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--only", "torhc"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    assert "torhc" in ended.stderr
    assert "Traceback" not in ended.stderr
