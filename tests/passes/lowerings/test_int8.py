"""The lowering to int8: what stands for a layer, what does not become one, and what is refused."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.parser import Parser

from tilewright.dialects import tpu
from tilewright.dialects.context import make_context
from tilewright.dialects.dominance import verify_module
from tilewright.dialects.element_types import F16, F32
from tilewright.dialects.errors import UnsupportedError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.lowerings.conversion import CALIBRATION_ATTRIBUTE

LAYER = """
func.func private @layer(%x: tensor<5x64xf32>) -> tensor<5x64xf32> {{
  %w = top.Weight "w" {mark} : tensor<64x{depth}xf32>
  %b = top.Weight "b" : tensor<64xf32>
  {extra}
  %y = top.MatMul %z, %w bias {bias} {{right_transpose}} :
    tensor<5x{depth}xf32>, tensor<64x{depth}xf32>, tensor<64xf32> -> tensor<5x64xf32>
  func.return %y : tensor<5x64xf32>
}}
func.func @main(%x: tensor<5x64xf32>) -> tensor<5x32xf32> {{
  %h = top.Call @layer(%x) {{scopes = ["layers.0.", "layers.1."]}} :
    (tensor<5x64xf32>) -> tensor<5x64xf32>
  %v = top.Weight "head" : tensor<64x32xf32>
  %y = top.MatMul %h, %v {role} : tensor<5x64xf32>, tensor<64x32xf32> -> tensor<5x32xf32>
  func.return %y : tensor<5x32xf32>
}}
"""
SAME = "%z = top.Reshape %x : tensor<5x64xf32> -> tensor<5x64xf32>"


def converted(
    *,
    bias: str = "%b",
    extra: str = SAME,
    depth: int = 64,
    mark: str = "",
    role: str = "",
    calibrated: bool = True,
    quant: str = "int8",
    quant_head: bool = False,
) -> ModuleOp:
    text = LAYER.format(bias=bias, extra=extra, depth=depth, mark=mark, role=role)
    module = Parser(make_context(), text).parse_module()
    if calibrated:
        module.attributes[CALIBRATION_ATTRIBUTE] = StringAttr("digest")
    ConvertTopToTpuPass(quant=quant, quant_head=quant_head).apply(make_context(), module)
    verify_module(module)
    return module


def ops_of(module: ModuleOp, kind: type[Operation]) -> list[Operation]:
    return [op for op in module.walk() if isinstance(op, kind)]


def weights_of(module: ModuleOp) -> dict[tuple[str, str], tpu.WeightOp]:
    found = [op for op in module.walk() if isinstance(op, tpu.WeightOp)]
    return {(op.key.data, op.form.data): op for op in found}


def test_a_layer_quantizes_multiplies_and_dequantizes() -> None:
    module = converted()
    for product, key in zip(ops_of(module, tpu.Int8MatMulOp), ("w", "head"), strict=True):
        assert isinstance(product, tpu.Int8MatMulOp)
        quantize, (use,) = product.x.owner, product.result.uses
        dequantize = use.operation
        assert isinstance(quantize, tpu.QuantizeOp)
        assert isinstance(dequantize, tpu.DequantizeOp)
        forms = [
            (op.key.data, str(op.form.data), op.scheme_name)
            for op in (quantize.scale.owner, product.codes.owner, product.requant.owner)
            if isinstance(op, tpu.WeightOp)
        ]
        assert forms == [(key, form, "int8") for form in ("input_scale", "codes", "requant")]
    weights = weights_of(module)
    assert ("b", "dense") not in weights  # the table takes it in
    assert weights["w", "requant"].bias == StringAttr("b")
    assert weights["head", "requant"].bias is None
    assert weights["head", "codes"].transposed is not None
    assert weights["head", "requant"].transposed is not None
    assert shape_of(weights["head", "codes"].result) == (32, 64)
    assert shape_of(weights["head", "requant"].result) == (32, 3)
    inner, outer = ops_of(module, tpu.DequantizeOp)
    assert storage_of(inner.results[0]) == F16
    assert storage_of(outer.results[0]) == F32  # an output of the module


def test_a_bias_that_is_no_weight_is_added_to_activations() -> None:
    module = converted(
        bias="%c",
        extra=f"{SAME}\n %r = top.Reshape %b : tensor<64xf32> -> tensor<64xf32>\n"
        "%c = top.Neg %r : tensor<64xf32> -> tensor<64xf32>",
    )
    assert weights_of(module)["w", "requant"].bias is None
    (add,) = ops_of(module, tpu.AddOp)
    assert isinstance(add.operands[0].owner, tpu.DequantizeOp)
    assert isinstance(add.operands[1].owner, tpu.NegOp)


@pytest.mark.parametrize("quant_head", [False, True])
def test_the_head_is_never_int8(quant_head: bool) -> None:
    module = converted(role='{top.role = "head"}', quant_head=quant_head)
    assert len(ops_of(module, tpu.Int8MatMulOp)) == 1
    assert len(ops_of(module, tpu.W8A16MatMulOp)) == quant_head
    assert len(ops_of(module, tpu.MatMulOp)) == (not quant_head)


def test_marks_say_which_weights_are_int8() -> None:
    module = converted(mark='{top.quant = "w8a16"}')
    (product,) = ops_of(module, tpu.Int8MatMulOp)
    assert product.parent_op() is not ops_of(module, tpu.W8A16MatMulOp)[0].parent_op()
    module = converted(mark='{top.quant = "int8"}', quant="w8a16")
    assert len(ops_of(module, tpu.Int8MatMulOp)) == 1


def test_products_of_one_input_have_scales_of_their_own() -> None:
    """Keyed by weight: as many ranges as weights, and each weight is made once."""
    text = LAYER.format(bias="%b", extra=SAME, depth=64, mark="", role="")
    second = """%w2 = top.Weight "w2" : tensor<64x64xf32>
      %y0 = top.MatMul %z, %w bias %b {right_transpose} :
        tensor<5x64xf32>, tensor<64x64xf32>, tensor<64xf32> -> tensor<5x64xf32>
      %y2 = top.MatMul %z, %w2 {right_transpose} :
        tensor<5x64xf32>, tensor<64x64xf32> -> tensor<5x64xf32>
      %y1 = top.MatMul %z, %w {right_transpose} :
        tensor<5x64xf32>, tensor<64x64xf32> -> tensor<5x64xf32>
      %t = top.Add %y0, %y2 : tensor<5x64xf32>, tensor<5x64xf32> -> tensor<5x64xf32>
      %y = top.Add %t, %y1 : tensor<5x64xf32>, tensor<5x64xf32> -> tensor<5x64xf32>
      func.return %y : tensor<5x64xf32>"""
    before, _, after = text.partition("%y = top.MatMul %z")
    module = Parser(make_context(), before + second + after[after.index("\n}") :]).parse_module()
    module.attributes[CALIBRATION_ATTRIBUTE] = StringAttr("digest")
    ConvertTopToTpuPass(quant="int8").apply(make_context(), module)
    verify_module(module)
    made = [op for op in module.walk() if isinstance(op, tpu.WeightOp)]
    scales = [op.key.data for op in made if str(op.form.data) == "input_scale"]
    assert sorted(scales) == ["head", "w", "w2"]
    tables = [(op.key.data, op.bias) for op in made if str(op.form.data) == "requant"]
    assert ("w", StringAttr("b")) in tables  # the same weight with its bias, and without
    assert ("w", None) in tables


def test_a_module_that_is_not_calibrated_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="weight 'w' cannot be int8") as refused:
        converted(calibrated=False)
    assert refused.value.where is not None
    assert "in @layer" in refused.value.where
    assert "has not been calibrated" in str(refused.value.why)
    assert "tw calibrate MODEL --data" in str(refused.value.hint)
    assert not ops_of(converted(calibrated=False, quant="w8a16"), tpu.Int8MatMulOp)


def test_a_layer_that_is_too_deep_is_refused() -> None:
    extra = '%z = top.State "z" : tensor<5x131072xf32>'
    with pytest.raises(UnsupportedError, match="it has 131072 inputs") as refused:
        converted(extra=extra, depth=131072)
    assert "--quant-rule" in str(refused.value.hint)
    extra = extra.replace("131072", "131071")
    assert ops_of(converted(extra=extra, depth=131071), tpu.Int8MatMulOp)
