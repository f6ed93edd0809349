"""The pass `tile-for-local-memory`: what it replaces, shares, keeps and refuses."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from tilewright.backends.chip import CHIP_NAMES, load_chip
from tilewright.dialects import tpu
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.errors import FitError, UnsupportedError
from tilewright.dialects.memory_types import GlobalType
from tilewright.passes.kernels.registry import View
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass, kernel_name

TWO_LAYERS = """
func.func @f(%x : tensor<4x192xf16>, %w : tensor<64x64xf16>) -> tensor<4x64xf16> {
  %q = tpu.Slice %x {offsets = array<i64: 0, 0>} : tensor<4x192xf16> -> tensor<4x64xf16>
  %k = tpu.Slice %x {offsets = array<i64: 0, 64>} : tensor<4x192xf16> -> tensor<4x64xf16>
  %a = tpu.MatMul %q, %w {right_transpose} :
    tensor<4x64xf16>, tensor<64x64xf16> -> tensor<4x64xf16> loc("layers.0"("model.py":3:5))
  %b = tpu.MatMul %k, %w {right_transpose} :
    tensor<4x64xf16>, tensor<64x64xf16> -> tensor<4x64xf16> loc("layers.1"("model.py":3:5))
  %c = tpu.MatMul %b, %w {right_transpose} :
    tensor<4x64xf16>, tensor<64x64xf16> -> tensor<4x64xf16>
  func.return %c : tensor<4x64xf16>
}
"""


def tiled(text: str, chip: str = "bm1684x") -> ModuleOp:
    context = make_context()
    module = Parser(context, text).parse_module()
    module.verify()
    TileForLocalMemoryPass(chip=chip).apply(context, module)
    module.verify()
    return module


def launches(module: ModuleOp) -> list[tpu.LaunchOp]:
    return [op for op in module.walk() if isinstance(op, tpu.LaunchOp)]


def kernels(module: ModuleOp) -> dict[str, func.FuncOp]:
    functions = [op for op in module.ops if isinstance(op, func.FuncOp)]
    return {op.sym_name.data: op for op in functions if "tpu.kernel" in op.attributes}


def test_equal_ops_on_equal_layouts_share_a_kernel():
    module = tiled(TWO_LAYERS)
    first, second, third = (op.kernel.string_value() for op in launches(module))
    assert first == second != third
    assert sorted(kernels(module)) == sorted({first, third})


def test_operands_may_be_pitched():
    module = tiled(TWO_LAYERS)
    pitched, contiguous = (
        kernels(module)[launches(module)[i].kernel.string_value()].body.block.args[0].type
        for i in (0, 2)
    )
    assert pitched == GlobalType.of(4, 64, F16, pitch_bytes=384)
    assert contiguous == GlobalType.of(4, 64, F16)


def test_launches_keep_the_location():
    first = launches(tiled(TWO_LAYERS))[0]
    assert 'loc("layers.0"("model.py":3:5))' in str(first.location)


def test_arguments_have_an_access():
    for kernel in kernels(tiled(TWO_LAYERS)).values():
        assert kernel.arg_attrs is not None
        accesses = [attributes.data["tpu.access"] for attributes in kernel.arg_attrs]
        assert [str(access) for access in accesses] == ['"read"', '"read"', '"write"']


def test_a_second_run_changes_nothing():
    module = tiled(TWO_LAYERS)
    before = str(module)
    TileForLocalMemoryPass().apply(make_context(), module)
    assert str(module) == before


@pytest.mark.parametrize("chip", CHIP_NAMES)
def test_every_shipped_chip(chip: str):
    assert len(kernels(tiled(TWO_LAYERS, chip))) == 2


def test_names_say_op_sizes_and_type_and_differ_by_content():
    x, scale = View.of((1, 4096), F16), View.of((13696, 1), F16)
    codes, result = View.of((13696, 4096), F16), View.of((1, 13696), F16)
    op = tpu.ExpOp(tpu.WeightOp("w", [4, 4], F32).result)
    chip, other = load_chip("bm1684x"), load_chip("bm1690")
    views = [x, codes, scale]
    name = kernel_name(op, views, [result], chip)
    assert name.startswith("exp_1x4096x13696_f16_")
    assert name == kernel_name(op, views, [result], chip)
    assert name != kernel_name(op, views, [result], other)
    assert name != kernel_name(op, [View((1, 4096), F16, 9999), codes, scale], [result], chip)


MATMUL_TOO_LARGE = """
func.func @f(%x : tensor<512x512xf32>, %w : tensor<512x512xf32>) -> tensor<512x512xf32> {
  %y = tpu.MatMul %x, %w : tensor<512x512xf32>, tensor<512x512xf32> -> tensor<512x512xf32>
    loc("layers.3.proj"("model.py":7:1))
  func.return %y : tensor<512x512xf32>
}
"""


def test_what_does_not_fit_is_an_error_with_a_place(tmp_path: Path):
    text = resources.files("tilewright.backends.chips").joinpath("bm1684x.toml").read_text()
    small = tmp_path / "small.toml"
    small.write_text(text.replace("lane_bytes = 262144", "lane_bytes = 1024"))
    with pytest.raises(FitError) as info:
        tiled(MATMUL_TOO_LARGE, str(small))
    assert info.value.where == "tpu.MatMul layers.3.proj (model.py:7) in @f"


def test_an_op_without_a_kernel_is_an_error_with_a_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tilewright.passes.kernels.registry._BUILDERS", {})
    with pytest.raises(UnsupportedError, match=r"tpu\.MatMul has no kernel") as info:
        tiled(MATMUL_TOO_LARGE)
    assert info.value.where == "tpu.MatMul layers.3.proj (model.py:7) in @f"
