"""`fuse-bias` computes what was there before."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.rules.support import function, names
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.dialects.context import make_context, parse_module, print_module
from tilewright.dialects.dominance import verify_module
from tilewright.passes.fuse_bias import FuseBiasPass


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", ["argument", "weight", "computed"])
def test_the_values_stay(transposed: bool, bias: str):
    right = "tensor<3x8xf32>" if transposed else "tensor<8x3xf32>"
    b = {
        "argument": "",
        "weight": '%b = top.Weight "b" : tensor<3xf32>\n',
        "computed": "%b = top.Neg %c : tensor<3xf32> -> tensor<3xf32>\n",
    }[bias]
    before = function(
        f"""%w = top.Weight "w" : {right}
        %m = top.MatMul %x, %w {"{right_transpose}" if transposed else ""} :
          tensor<2x4x8xf32>, {right} -> tensor<2x4x3xf32>
        {b}%y = top.Add %m, {"%c" if bias == "argument" else "%b"} :
          tensor<2x4x3xf32>, tensor<3xf32> -> tensor<2x4x3xf32>
        %z = top.Relu %y : tensor<2x4x3xf32> -> tensor<2x4x3xf32>""",
        "%x: tensor<2x4x8xf32>, %c: tensor<3xf32>",
    )
    after = parse_module(print_module(before), "again")
    FuseBiasPass().apply(make_context(), after)
    verify_module(after)
    assert "Add" not in names(after)

    random = np.random.default_rng(0)
    inputs = [random.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 8), (3,))]
    stored = {"w": random.standard_normal((3, 8) if transposed else (8, 3)), "b": inputs[1]}

    def weights(key: str, op: Operation) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        del op
        return stored[key].astype(np.float32)

    expected, actual = (
        run_function(module, "f", inputs, weights=weights, states={}, semantics="float64")[0]
        for module in (before, after)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
