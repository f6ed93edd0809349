"""Modules compiled in memory, by every scheme: the weights that the simulator runs on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from xdsl.dialects.builtin import ModuleOp, StringAttr

from tilewright.backends.reference import numerics
from tilewright.compiler.executable import Executable, compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.dialects.context import parse_module
from tilewright.dialects.element_types import F16
from tilewright.dialects.errors import ModelReadError, OptionError
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]

N, K = 64, 128
LAYER = """
func.func @main(%x: tensor<2x128xf32>) -> tensor<2x64xf32> {{
  %w = top.Weight "w" : tensor<{shape}xf32>
  %b = top.Weight "b" : tensor<64xf32>
  %y = top.MatMul %x, %w bias %b {turned} :
    tensor<2x128xf32>, tensor<{shape}xf32>, tensor<64xf32> -> tensor<2x64xf32>
  func.return %y : tensor<2x64xf32>
}}
"""
SCHEMES = [
    *("w8a16", "w8a16-g64", "w8a16-zp", "w4a16", "w4a16-g32-absmax", "w4a16-channel"),
    *("f8e4m3", "f8e5m2-g64"),
]


def layer(*, by_rows: bool) -> ModuleOp:
    """A linear layer whose container holds `[N, K]`, or else `[K, N]`."""
    shape, turned = ("64x128", "{right_transpose}") if by_rows else ("128x64", "")
    return parse_module(LAYER.format(shape=shape, turned=turned), "test")


def compiled(
    quant: str, weight: Array, bias: Array, *, by_rows: bool = True, **options: Any
) -> Executable:
    module = layer(by_rows=by_rows)
    if quant == "int8":
        module.attributes["top.calibration"] = StringAttr("digest")
    weights = {"w": weight if by_rows else np.ascontiguousarray(weight.T), "b": bias}
    return compile_module(module, weights, CompileOptions(quant, chip="bm1690"), **options)


def values(std: float) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, K)).astype(np.float16)
    weight = (rng.standard_normal((N, K)) * std).astype(np.float16)
    return x, weight, (rng.standard_normal(N) * std).astype(np.float32)


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("std", [1.0, 2e-4])
@pytest.mark.parametrize("quant", SCHEMES)
def test_layers_compute_with_their_quantized_weights(quant: str, std: float, by_rows: bool) -> None:
    """Within what f16 weights and sums in f32 allow; also where scales have to be f32."""
    x, weight, bias = values(std)
    scheme = parse_scheme(quant)
    codes, scale, zero = numerics.quantize(weight, scheme, F16)
    stored = numerics.dequantize(codes, scale, F16, zero, scheme.format).astype(np.float64)
    expected = x.astype(np.float64) @ stored.T + bias.astype(np.float16)
    (y,) = compiled(quant, weight, bias, by_rows=by_rows).run("main", x=x)
    assert np.abs(y - expected).max() <= 1e-5 * np.abs(x).sum(axis=1).max() * np.abs(stored).max()


@pytest.mark.parametrize("by_rows", [True, False])
def test_int8_layers(by_rows: bool) -> None:
    x, weight, bias = values(1.0)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T + bias
    ranges = {"w": (float(np.abs(x).max()), float(np.abs(exact).max()))}
    executable = compiled("int8", weight, bias, by_rows=by_rows, ranges=ranges)
    (y,) = executable.run("main", x=x)
    step = ranges["w"][1] / 127
    noise = float(np.abs(weight).max()) / 127 * np.abs(x).sum(axis=1).max() / 2
    assert np.abs(y - exact).max() <= step + noise
    with pytest.raises(OptionError, match="no range for w"):
        compiled("int8", weight, bias, by_rows=by_rows)


def test_wrong_weights_are_named() -> None:
    _, weight, bias = values(1.0)
    with pytest.raises(ModelReadError, match=r"'w' has shape \[128, 64\], not \[64, 128\]"):
        compiled("w8a16", np.ascontiguousarray(weight.T), bias)
    with pytest.raises(ModelReadError, match="'w' is float64, not f32"):
        compiled("w4a16", weight.astype(np.float64), bias)
    weight[3, 5] = np.nan
    with pytest.raises(ModelReadError, match=r"'w' holds nan at index \[3, 5\]"):
        compiled("w4a16", weight, bias)
    with pytest.raises(ModelReadError, match="weight 'b' is missing"):
        compile_module(layer(by_rows=True), {"w": weight}, CompileOptions("f16"))
