"""Every op with a kernel: on each chip, and on one whose local memory is too small for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.passes.kernels.checking import Array, Build, check, chip_file, lowered, normal
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from tilewright.backends.chip import CHIP_NAMES
from tilewright.backends.reference.requant import requant_table
from tilewright.dialects import tpu
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.errors import FitError
from tilewright.dialects.quantization import CodeFormat
from tilewright.passes.kernels.registry import registered_ops
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass

X, ROW, WEIGHT = normal((70, 60), F16, 1), normal((60,), F16, 2), normal((65, 60), F16, 3)
CODES = np.random.default_rng(4).integers(-127, 128, (65, 60)).astype(np.int8)
SCALES = np.abs(normal((65, 1), F16, 5))
ONE_SCALE = np.array([[0.02]], np.float32)
REQUANT = requant_table(SCALES, SCALES[:, 0], 0.02, 10.0)
IDS = np.array([64, 0, 3, 3, 7], np.int32)
TABLE = normal((70, 20), F32, 6)
UNARY: tuple[Any, ...] = (
    *(tpu.SiLUOp, tpu.GELUOp, tpu.TanhOp, tpu.SigmoidOp, tpu.ExpOp, tpu.SqrtOp, tpu.RsqrtOp),
    *(tpu.ReciprocalOp, tpu.NegOp, tpu.AbsOp, tpu.ErfOp, tpu.ReluOp, tpu.SoftmaxOp),
)
BINARY: tuple[Any, ...] = (tpu.AddOp, tpu.SubOp, tpu.MulOp, tpu.DivOp, tpu.MaxOp, tpu.MinOp)


def attention(q: Any, k: Any, v: Any, mask: Any) -> tpu.AttentionOp:
    return tpu.AttentionOp(q, k, v, mask, num_heads=3, num_kv_heads=3, scale=0.2)


def rope(x: Any, cos: Any, sin: Any) -> tpu.RopeOp:
    return tpu.RopeOp(x, cos, sin, num_heads=3, rotary_dim=12, interleaved=True)


def f8_matmul(x: Any, codes: Any, scale: Any) -> tpu.F8A16MatMulOp:
    properties = {"format": tpu.CodeFormatAttr(CodeFormat.F8E4M3)}
    return tpu.F8A16MatMulOp(x, codes, scale, properties=properties)


CASES: dict[str, tuple[Build, tuple[Array, ...]]] = {
    **{op.name: (op, (X,)) for op in UNARY},
    **{op.name: (op, (X, ROW)) for op in BINARY},
    "tpu.SwiGLU": (tpu.SwiGLUOp, (X, normal((70, 60), F16, 7))),
    "tpu.AddConst": (lambda x: tpu.AddConstOp(x, 0.5), (X,)),
    "tpu.MulConst": (lambda x: tpu.MulConstOp(x, 0.5), (X,)),
    "tpu.Cast": (lambda x: tpu.CastOp(x, F32), (X,)),
    "tpu.RMSNorm": (lambda x, w: tpu.RMSNormOp(x, w, eps=1e-5), (X, ROW)),
    "tpu.LayerNorm": (lambda x, w, b: tpu.LayerNormOp(x, w, b, eps=1e-5), (X, ROW, ROW)),
    "tpu.Reduce": (lambda x: tpu.ReduceOp(x, "mean"), (X,)),
    "tpu.Rope": (rope, (X, TABLE, TABLE)),
    "tpu.Attention": (attention, (X, WEIGHT, WEIGHT, normal((70, 65), F16))),
    "tpu.Gather": (tpu.GatherOp, (WEIGHT, IDS)),
    "tpu.W8A16Gather": (tpu.W8A16GatherOp, (CODES, SCALES, IDS)),
    "tpu.CacheUpdate": (tpu.CacheUpdateOp, (WEIGHT, X[:5], IDS)),
    "tpu.Permute": (lambda x: tpu.PermuteOp(x, (1, 0)), (X,)),
    "tpu.Concat": (lambda *xs: tpu.ConcatOp(xs, 1), (X, X)),
    "tpu.Slice": (lambda x: tpu.SliceOp(x, (1, 2), (66, 7)), (X,)),
    "tpu.MatMul": (lambda x, w: tpu.MatMulOp(x, w, right_transpose=True), (X, WEIGHT)),
    "tpu.W8A16MatMul": (tpu.W8A16MatMulOp, (X, CODES, SCALES)),
    "tpu.W4A16MatMul": (tpu.W4A16MatMulOp, (X, CODES[:, :30].copy(), SCALES)),
    "tpu.F8A16MatMul": (f8_matmul, (X, CODES & np.int8(-65), SCALES)),
    "tpu.Quantize": (tpu.QuantizeOp, (X, ONE_SCALE)),
    "tpu.Int8MatMul": (tpu.Int8MatMulOp, (CODES[:5], CODES, REQUANT)),
    "tpu.Dequantize": (tpu.DequantizeOp, (CODES, ONE_SCALE)),
    "tpu.BatchMatMul": (tpu.BatchMatMulOp, (X[None], WEIGHT[None, :60, :33].copy())),
}


def test_every_kernel_has_a_case():
    assert tuple(sorted(CASES)) == registered_ops()


@pytest.mark.parametrize("chip", CHIP_NAMES)
@pytest.mark.parametrize("name", CASES)
def test_on_every_chip(name: str, chip: str):
    build, operands = CASES[name]
    assert check(build, *operands, chip=chip).kernel.op == name


@pytest.mark.parametrize("name", CASES)
def test_on_a_chip_with_little_local_memory(name: str, tmp_path: Path):
    """Tiles shrink; what needs whole rows still has them."""
    build, operands = CASES[name]
    check(build, *operands, chip=chip_file(tmp_path, 16384))


WIDE = {
    "Rope": "%y = tpu.Rope %x cos %x sin %x "
    "{num_heads = 1 : i64, rotary_dim = 64 : i64, interleaved = true} : T, T, T -> T",
    "Attention": "%y = tpu.Attention %x, %x, %x "
    "{num_heads = 1 : i64, num_kv_heads = 1 : i64, scale = 1.0 : f32} : T, T, T -> T",
}


def tiled(text: str, chip: str) -> None:
    context: Context = make_context()
    module = Parser(context, text).parse_module()
    assert isinstance(module, ModuleOp)
    TileForLocalMemoryPass(chip=chip).apply(context, module)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("rows", [1, 70])
def test_rows_too_wide_for_local_memory(name: str, rows: int, tmp_path: Path):
    """The error says which op of the model, how much is missing, and what to do."""
    tensor = f"tensor<{rows}x3000xf32>"
    body = WIDE[name].replace("T", tensor).replace(f"tpu.{tensor}", "tpu.T")
    text = f"""func.func @f(%x : {tensor}) -> {tensor} {{
      {body} loc("layers.3.{name}"("model.py":7:1))
      func.return %y : {tensor} }}"""
    with pytest.raises(FitError, match="the smallest tile does not fit local memory") as info:
        tiled(text, chip_file(tmp_path, 16384))
    assert info.value.where == f"tpu.{name} layers.3.{name} (model.py:7) in @f"
    assert "more than the 16384 of bm1684x" in str(info.value.why)
    assert "more local memory" in str(info.value.hint)
    assert "--seq" in str(info.value.hint)


def test_what_goes_by_columns_is_never_too_wide(tmp_path: Path):
    """All but RoPE and attention, whose heads are whole, split rows of any width."""
    chip, wide = chip_file(tmp_path, 2048), normal((3, 5001), F32)
    check(tpu.NegOp, wide, chip=chip, exact=True)
    check(tpu.MaxOp, wide, normal((3, 1), F32), chip=chip, exact=True)
    check(lambda x: tpu.GELUOp(x, "tanh"), wide, chip=chip)
    check(tpu.GatherOp, wide, np.array([2, 0], np.int32), chip=chip, exact=True)
    check(lambda x: tpu.ReduceOp(x, "sum"), wide, chip=chip)
    chip_of_rows = chip_file(tmp_path, 16384)
    check(tpu.SoftmaxOp, wide, chip=chip_of_rows)
    check(lambda x: tpu.RMSNormOp(x, eps=1e-5), wide, chip=chip_of_rows)
    check(lambda x: tpu.LayerNormOp(x, eps=1e-5), wide, chip=chip_of_rows)
    chip = chip_file(tmp_path, 2048)
    check(lambda *xs: tpu.ConcatOp(xs, 1), wide, wide, chip=chip, exact=True)
    assert lowered(tpu.NegOp, wide, chip=chip).kernel.local_bytes <= 2048
