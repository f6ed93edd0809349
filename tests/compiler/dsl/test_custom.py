"""Ops from functions of the DSL: both levels, quantized, with and without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import VerifyException

from tilewright.compiler import dsl
from tilewright.compiler.executable import Executable, compile_module
from tilewright.compiler.pipeline import CompileOptions, lower
from tilewright.dialects.errors import OptionError, UnsupportedError
from tilewright.passes import kernel_language as tk
from tilewright.passes.kernels.registry import temporarily

ROWS, DEPTH, CHANNELS = 5, 48, 70


@dsl.custom_op("acme.LinearGELU", quantized=("weight",))
def linear_gelu(
    x: dsl.Operand,
    weight: dsl.Operand,
    bias: dsl.Operand | None = None,
    *,
    approximate: Literal["none", "tanh"] = "tanh",
) -> dsl.Tensor:
    """A linear layer and a GELU."""
    return dsl.gelu(dsl.linear(x, weight, bias), approximate=approximate)


@dsl.custom_op("acme.Sum")
def twice(x: dsl.Operand, y: dsl.Operand) -> dsl.Tensor:
    return x + y * 2.0


class Layer(dsl.Module):
    def __init__(self, *, bias: bool) -> None:
        self.weight = dsl.Parameter(CHANNELS, DEPTH)
        if bias:
            self.bias = dsl.Parameter(CHANNELS)
        self.has_bias = bias

    def forward(self, x: dsl.Operand) -> dsl.Tensor:
        return linear_gelu(x, self.weight, self.bias if self.has_bias else None)


WEIGHTS = {
    "weight": np.random.default_rng(0).standard_normal((CHANNELS, DEPTH)).astype(np.float32) / 7,
    "bias": np.random.default_rng(1).standard_normal(CHANNELS).astype(np.float32),
}
X = np.random.default_rng(2).standard_normal((ROWS, DEPTH)).astype(np.float32)


@pytest.fixture(autouse=True)
def temporary_kernels() -> Iterator[None]:
    with temporarily():
        yield


def traced(*, bias: bool = True) -> ModuleOp:
    layer = Layer(bias=bias)

    @dsl.function(x=dsl.f32(ROWS, DEPTH))
    def main(x: dsl.Tensor) -> dsl.Tensor:
        return layer(x)

    return dsl.trace(main)


def expected(*, bias: bool = True) -> Any:
    y = X.astype(np.float64) @ WEIGHTS["weight"].T + (WEIGHTS["bias"] if bias else 0)
    return y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))


def error_of(executable: Executable, wanted: Any) -> float:
    (y,) = executable.run("main", x=X)
    return float(np.linalg.norm(y - wanted) / np.linalg.norm(wanted))


def names(module: ModuleOp) -> list[str]:
    return [op.name for op in module.walk() if not op.name.startswith(("builtin", "func"))]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("quant", "tolerance"), [("f32", 1e-6), ("f16", 2e-3), ("w8a16", 2e-2)])
def test_with_and_without_kernels(quant: str, tolerance: float, bias: bool) -> None:
    module, options = traced(bias=bias), CompileOptions(quant)
    weights = WEIGHTS if bias else {"weight": WEIGHTS["weight"]}
    without = compile_module(module, weights, options)
    assert error_of(without, expected(bias=bias)) < tolerance
    assert len(without.program.functions[0].launches) > 1

    @tk.kernel(linear_gelu.tpu)
    def plain(op: Any, x: Any, weight: Any, bias: Any, y: Any, chip: Any) -> None:
        form = op.parameter("approximate")
        tk.matmul(x, weight, None, bias, y, epilogue=lambda tile: tk.gelu(tile, form))

    @tk.kernel(linear_gelu.w8a16)
    def codes(op: Any, x: Any, codes: Any, scale: Any, bias: Any, y: Any, chip: Any) -> None:
        tk.matmul(x, codes, scale, bias, y, epilogue=lambda tile: tk.gelu(tile, "tanh"))

    assert plain.name != codes.name
    fused = compile_module(module, weights, options)
    assert len(fused.program.functions[0].launches) == 1
    assert error_of(fused, expected(bias=bias)) < tolerance
    assert fused.times()["main"].cycles < without.times()["main"].cycles


def test_levels() -> None:
    top = traced()
    assert "acme.LinearGELU" in names(top)
    assert names(lower(top, CompileOptions("bf16")))[-1] == "acme.tpu.LinearGELU"
    quantized = names(lower(top, CompileOptions("w8a16")))
    assert quantized[-1] == "acme.tpu.W8A16LinearGELU"
    assert [op.name for op in linear_gelu.ops] == [
        "acme.LinearGELU",
        "acme.tpu.LinearGELU",
        "acme.tpu.W8A16LinearGELU",
    ]
    assert [op.name for op in twice.ops] == ["acme.Sum", "acme.tpu.Sum"]
    with pytest.raises(OptionError, match=r"acme\.Sum has no quantized operands"):
        _ = twice.w8a16


def test_a_weight_that_is_computed_is_not_quantized() -> None:
    """Codes exist of weights only; any other operand is multiplied as it is."""

    @dsl.function(x=dsl.f32(ROWS, DEPTH), weight=dsl.f32(CHANNELS, DEPTH))
    def main(x: dsl.Tensor, weight: dsl.Tensor) -> dsl.Tensor:
        return linear_gelu(x, weight * 2.0)

    assert names(lower(dsl.trace(main), CompileOptions("w8a16")))[-1] == "acme.tpu.LinearGELU"


def test_kernels_of_both_are_checked_against_the_function() -> None:
    @tk.kernel(linear_gelu.w8a16)
    def codes(op: Any, x: Any, codes: Any, scale: Any, bias: Any, y: Any, chip: Any) -> None:
        tk.matmul(x, codes, scale, bias, y, epilogue=lambda tile: tk.gelu(tile, "tanh"))

    assert codes.op_class is linear_gelu.w8a16
    given = ((ROWS, DEPTH), tk.f16), ((CHANNELS, DEPTH), tk.i8), ((CHANNELS, 1), tk.f16)
    tk.check(linear_gelu.w8a16, *given, chips=["bm1684x"])


def test_errors_name_the_users_line() -> None:
    @dsl.function(x=dsl.f32(ROWS, DEPTH))
    def main(x: dsl.Tensor) -> dsl.Tensor:
        return linear_gelu(x, x.reshape(DEPTH, ROWS))

    with pytest.raises(UnsupportedError) as caught:
        dsl.trace(main)
    assert "test_custom.py" in str(caught.value.where)

    @dsl.function(x=dsl.f32(ROWS, DEPTH))
    def keyword(x: dsl.Tensor) -> dsl.Tensor:
        return linear_gelu(x, x, aproximate="none")

    with pytest.raises(UnsupportedError, match="aproximate") as caught:
        dsl.trace(keyword)
    assert "keywords approximate" in str(caught.value.hint)


def test_what_cannot_be_an_op() -> None:
    with pytest.raises(OptionError, match="no operand 'scale'"):
        dsl.custom_op("acme.X", quantized=("scale",))(lambda x: x)

    @dsl.custom_op("acme.NoTensor")
    def no_tensor(x: dsl.Operand) -> float:
        return 1.0

    @dsl.custom_op("acme.Square", quantized=("weight",))
    def square(x: dsl.Operand, weight: dsl.Operand) -> dsl.Tensor:
        return dsl.linear(x, weight * weight)

    @dsl.function(x=dsl.f32(ROWS, DEPTH))
    def main(x: dsl.Tensor) -> dsl.Tensor:
        return no_tensor(x)

    with pytest.raises(UnsupportedError, match=r"acme\.NoTensor returns 1\.0"):
        dsl.trace(main)
    given = ((ROWS, DEPTH), tk.f16), ((CHANNELS, DEPTH), tk.i8), ((CHANNELS, 1), tk.f16)
    with pytest.raises((UnsupportedError, VerifyException), match="quantized operand"):
        tk.build(square.w8a16, *given)
