"""Every example runs and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 300
PROMISES: dict[str, tuple[str, ...]] = {
    "01_matmul.py": (
        r"top\.MatMul",
        r"^f16 +[\d,]+ cycles, +[\d,]+ bytes in, GDMA \d+\.\d% busy, relative error \d\.\de-0[45]$",
        r"^w8a16 +[\d,]+ cycles, +[\d,]+ bytes in, GDMA \d+\.\d% busy, relative error \d\.\de-03$",
        r"tpu\.W8A16MatMul",
    ),
    "02_custom_block.py": (
        r"func\.func private @",
        r"comes from: top\.GELU .*02_custom_block\.py:\d+",
        r"result: \[",
        r"a wrong shape is reported at the line above",
        r"where: .*02_custom_block\.py:\d+",
    ),
    "03_own_pass.py": (
        r"^RemoveUnitScaling: tpu\.MulConst .*03_own_pass\.py:\d+",
        r"tpu\.SiLU %x",
        r"^before +3 launches$",
        r"^after +2 launches$",
        r"^equal to the bit: True$",
    ),
    "04_flash_attention.py": (
        r"^prefill +compiler's kernel +[\d,]+ cycles, this one +[\d,]+: (9[5-9]|1\d\d)\.\d%",
        r"^decode +compiler's kernel +[\d,]+ cycles, this one +[\d,]+: (9[5-9]|1\d\d)\.\d%",
    ),
    "05_gated_rms_norm.py": (
        r"^\[512, 4096\] .* gain 2\.\d\d x$",
        r"^\[1, 4096\] .* gain [34]\.\d\d x$",
        r"^bm1684x +[\d,]+ cycles, error +\d+% of its bound +70x4096, 70x4096, 4096$",
        r"^bm1690 .* 107x4096, 107x4096, 4096$",
    ),
    "06_accuracy.py": (
        r"^training on \d,\d{3},\d{3} characters$",
        r"^step +20 of 20: loss \d\.\d{3}, \d+ s$",
        r"^trained: PyTorch in f32 gives (\d+\.\d)\d\d; on the simulated TPU:\n"
        r"  original \(f16\): \1",
        r"^outliers: PyTorch in f32 gives (\d+\.\d)\d\d; on the simulated TPU:\n"
        r"  original \(f16\): \1",
        r"^original \(f16\) +\d+\.\d{3} \+- \d+\.\d{3} +1\.000 .* 1\.000 +4\.\d\d MB$",
        r"^int8 absmax .* 2\.\d\d MB$",
        r"^int4 absmax .* 1\.4\d MB$",
        r"^int4 GPTQ .* 1\.5\d MB$",
    ),
    "demo.py": (
        r"^A checkpoint in ChatGLM2's layout: config\.json, model\.safetensors$",
        r"^\$ tw compile .* --quant f16 ",
        r"^\$ tw compile .* --quant w8a16 ",
        r"^token ids: \d+(,\d+){7}$",
        r"^(\d+) of \1 ops within their error bound of float64$",
        r"^w8a16 .* 1\.\d\d x .* 1\.\d\d x$",
        r"^The w8a16 artifact is 0\.\d\d of the f16 one\.$",
        r"^w8a16 +[\d.]+ GB +[\d.]+ GB  yes ",
        r"^f16 +\d+\.\d\d +1\.21 +\d+\.\d\d +3\.96 ",
        r"^w8a16 +\d+\.\d\d +0\.89 +\d+\.\d\d +8\.64 ",
    ),
}
"""Patterns that must be found in this order."""
SMALL = {"steps": 20, "windows": 4, "samples": 4, "rows": "absmax|GPTQ$"}
ARGUMENTS = {"06_accuracy.py": [f"--{name}={value}" for name, value in SMALL.items()]}
"""Smaller sizes for examples that take minutes by themselves."""


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_examples(name: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, EXAMPLES / name, *ARGUMENTS.get(name, ())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    position = 0
    for pattern in PROMISES[name]:
        found = re.compile(pattern, re.MULTILINE).search(ended.stdout, position)
        assert found, f"{pattern} is not in\n{ended.stdout[position:]}"
        position = found.end()
    assert list(tmp_path.iterdir()) == []
