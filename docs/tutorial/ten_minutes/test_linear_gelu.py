from pathlib import Path

from tilewright.compiler.workbench.testing import check_passes, check_rules
from tilewright.dialects.plugins import load_file
from tilewright.passes import kernel_language as tk

HERE = Path(__file__).parent
op = load_file(HERE / "linear_gelu.py").module.linear_gelu


def test_rule():
    check_rules("fuse-linear-gelu")


def test_kernel():
    tk.check(op.w8a16, ((70, 96), tk.f16), ((130, 96), tk.i8), ((130, 1), tk.f16), ((130,), tk.f16))


def test_model():
    check_passes(HERE / "mlp.mlir", "fuse-linear-gelu,compile")
