"""int8 layers from the top module to the simulated machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import (
    TINY_CHATGLM,
    TINY_LLAMA,
    language_model,
    model_of,
    random_weights,
)
from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Operation

from tilewright.backends.reference import float64, typed
from tilewright.backends.reference.bounds import bound, outside
from tilewright.backends.reference.executor import run_function
from tilewright.compiler.compare import Execution, observe
from tilewright.compiler.executable import Executable, compile_module
from tilewright.compiler.pipeline import CompileOptions
from tilewright.dialects import top, tpu
from tilewright.dialects.context import parse_module
from tilewright.passes.lowerings.conversion import CALIBRATION_ATTRIBUTE

Array = npt.NDArray[Any]

SEQ = 20
PROMPT = [5, 3, 99, 17, 3]
MODELS = {"chatglm": TINY_CHATGLM, "llama": TINY_LLAMA}

LAYERS = """builtin.module attributes {top.calibration = "digest"} {
  func.func @f(%x: tensor<5x64xf32>) -> tensor<5x40xf32> {
    %w = top.Weight "w" : tensor<130x64xf32>
    %b = top.Weight "b" : tensor<130xf32>
    %h = top.MatMul %x, %w bias %b {right_transpose} :
      tensor<5x64xf32>, tensor<130x64xf32>, tensor<130xf32> -> tensor<5x130xf32>
    %v = top.Weight "v" : tensor<130x40xf32>
    %y = top.MatMul %h, %v : tensor<5x130xf32>, tensor<130x40xf32> -> tensor<5x40xf32>
    func.return %y : tensor<5x40xf32>
  }
}"""


def test_two_layers_are_the_integers_that_they_are_defined_as() -> None:
    """Against plain float64 and int64 arithmetic; the second weight is stored transposed."""
    numbers = np.random.default_rng(5)
    w, v = numbers.standard_normal((130, 64)) / 8, numbers.standard_normal((130, 40)) / 11
    w[7] = 0  # a channel of zeros: its bias is all that comes out
    b = numbers.standard_normal(130)
    weights = {"w": w.astype("f4"), "v": v.astype("f4"), "b": b.astype("f4")}
    ranges = {"w": (3.5, 5.0), "v": (5.0, 5.0)}
    made = compile_module(
        parse_module(LAYERS, "layers"), weights, CompileOptions("int8"), ranges=ranges
    )
    x = numbers.standard_normal((5, 64)).astype(np.float16)
    (result,) = made.run("f", x=x)

    hidden = layer(x, weights["w"], weights["b"], *ranges["w"]).astype(np.float16)
    assert abs(float(hidden[0, 7]) - b[7]) < 5.0 / 127
    expected = layer(hidden, weights["v"].T, None, *ranges["v"]).astype(np.float32)
    assert np.array_equal(result, expected)
    exact = (x.astype("f8") @ w.T + b) @ v
    assert np.abs(exact - result).max() < 0.15
    assert np.abs(exact).max() > 1.5


def layer(x: Array, w: Array, b: Array | None, most_in: float, most_out: float) -> Array:
    """`output_scale * code`, by real numbers rounded half up: no multiplier, no shift."""
    scale_in, scale_out = (np.float32(most / 127) for most in (most_in, most_out))
    scale = (np.abs(w).max(axis=1) / np.float32(127)).astype(np.float64)
    scale[scale == 0] = 1
    codes = np.clip(np.trunc(w / scale[:, None] + np.copysign(0.5, w)), -127, 127)
    q = np.clip(np.rint(x.astype(np.float32) / scale_in), -128, 127).astype(np.float64)
    unit = np.float64(scale_in) * scale
    sums = q @ codes.T
    total = sums * unit + (0 if b is None else b.astype(np.float64))
    y = np.clip(np.floor(total / np.float64(scale_out) + 0.5), -128, 127)
    return y * np.float64(scale_out)


def calibrated(name: str) -> tuple[Any, dict[str, Array], dict[str, tuple[float, float]]]:
    """A model's module, weights, and the magnitudes that its layers see on the prompt."""
    model = model_of(MODELS[name], SEQ)
    module, weights = model.trace(), random_weights(model)
    ranges: dict[str, tuple[float, float]] = {}

    def see(op: Operation, scope: str, inputs: Any, outputs: Any) -> None:
        if isinstance(op, top.MatMulOp) and isinstance(op.right.owner, top.WeightOp):
            key = scope + op.right.owner.key.data
            ranges[key] = float(np.abs(inputs[0]).max()), float(np.abs(outputs[0]).max())

    dense = compile_module(module, weights, CompileOptions("f32"))
    named = language_model(dense).prefill_inputs(PROMPT)
    inputs = [named[port.name] for port in dense.session.function("prefill").inputs]
    run_function(
        module,
        "prefill",
        inputs,
        weights=lambda key, op: weights[key],
        states={},
        semantics="float64",
        on_op=see,
    )
    module.attributes[CALIBRATION_ATTRIBUTE] = StringAttr("digest")
    return module, weights, ranges


def executions_of(executable: Executable) -> tuple[list[Execution], Array]:
    """Every op of a prefill as the machine has executed it, and the logits."""
    found: list[Execution] = []

    def keep(each: Execution) -> None:
        copies = tuple([array.copy() for array in each.operands])
        found.append(Execution(each.function, each.scope, each.op, copies, each.result))

    inputs = language_model(executable).prefill_inputs(PROMPT)
    outputs = observe(executable.session, executable.tpu_module, "prefill", inputs, keep)
    (logits,) = outputs.values()
    return found, logits


@pytest.mark.parametrize("name", MODELS)
def test_a_language_model(name: str) -> None:
    """Each op is what the typed reference computes of its operands; integers to the bit."""
    module, weights, ranges = calibrated(name)
    options = CompileOptions("int8", quant_head=True)
    executions, logits = executions_of(compile_module(module, weights, options, ranges=ranges))
    seen = [type(each.op) for each in executions]
    assert seen.count(tpu.Int8MatMulOp) == seen.count(tpu.QuantizeOp) > 5
    assert seen.count(tpu.W8A16MatMulOp) == 1  # the head
    assert tpu.MatMulOp not in seen
    for each in executions:
        (reference,) = typed.evaluate(each.op, each.operands)
        (exact,) = float64.evaluate(each.op, each.operands)
        limit = bound(each.op, each.operands, exact)
        assert not outside(each.result, exact, limit).any(), each.op.name
        if isinstance(each.op, tpu.QuantizeOp | tpu.Int8MatMulOp | tpu.DequantizeOp):
            assert np.array_equal(each.result, reference), each.op.name
    _, dense = executions_of(compile_module(module, weights, CompileOptions("f32")))
    a, b = logits.astype("f8").ravel(), dense.astype("f8").ravel()
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99
