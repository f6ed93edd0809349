"""`tk.matmul`: the compiler's loop nests with an epilogue, in every tiling that they choose."""

from __future__ import annotations

from typing import Any

import pytest
from tests.passes.kernel_language.ops import linear_op, quantized_op
from xdsl.dialects.builtin import StringAttr

from tilewright.backends.chip import load_chip
from tilewright.dialects import tpu
from tilewright.dialects.element_types import BF16, F16, F32
from tilewright.dialects.errors import IRError
from tilewright.passes import kernel_language as tk
from tilewright.passes.kernel_language.matmul import epilogue_cost
from tilewright.passes.tiling.matmul import choose_tiling
from tilewright.passes.tiling.matmul_tiles import Epilogue, Problem, buffers, lane_bytes

FUNCTIONS = {
    "gelu": tk.gelu,
    "gelu_tanh": lambda tile: tk.gelu(tile, "tanh"),
    "silu": tk.silu,
    "none": lambda tile: tile,
}


def attach_linear() -> None:
    @tk.kernel(linear_op)
    def kernel(op: Any, x: Any, weight: Any, bias: Any, y: Any, chip: Any) -> None:
        tk.matmul(x, weight, None, bias, y, epilogue=FUNCTIONS[op.parameter("function")])

    assert kernel.op_class is linear_op


@pytest.mark.parametrize("element", [F16, BF16, F32], ids=lambda element: element.name)
@pytest.mark.parametrize("rows", [1, 70])
def test_epilogue_and_bias(rows: int, element: Any) -> None:
    attach_linear()
    x, weight, bias = ((rows, 200), element), ((150, 200), element), ((150,), element)
    tk.check(linear_op, x, weight, bias, chips=["bm1684x"])
    tk.check(linear_op, x, weight, chips=["bm1690"], remainders=False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_epilogue_with_k_split(name: str) -> None:
    """A depth that local memory does not hold: partial sums, then the epilogue."""
    attach_linear()
    function = StringAttr(name)

    def make(x: Any, weight: Any) -> Any:
        return linear_op(x, weight, function=function)

    depth = 150_000
    problem = Problem(70, 70, depth, F16, F16, 2 * depth, epilogue=Epilogue(5, 9, 2))
    assert choose_tiling(problem, load_chip("bm1684x")).tk < depth
    tk.check(make, ((70, depth), F16), ((70, depth), F16), chips=["bm1684x"], remainders=False)


@pytest.mark.parametrize("rows", [1, 130])
def test_int8_codes(rows: int) -> None:
    @tk.kernel(quantized_op)
    def kernel(op: Any, x: Any, codes: Any, scale: Any, bias: Any, y: Any, chip: Any) -> None:
        tk.matmul(x, codes, scale, bias, y, epilogue=tk.silu)

    assert kernel.op_class is quantized_op
    x, codes, scale = ((rows, 300), F16), ((200, 300), tk.i8), ((200, 1), F16)
    tk.check(quantized_op, x, codes, scale)
    tk.check(quantized_op, x, codes, scale, ((200,), F16), chips=["bm1688"])


def test_an_empty_epilogue_is_the_compilers_kernel() -> None:
    attach_linear()
    given = ((70, 200), F16), ((150, 200), F16), ((150,), F16)
    mine = tk.build(lambda *values: linear_op(*values, function="none"), *given)

    def plain(x: Any, weight: Any, bias: Any) -> Any:
        return tpu.MatMulOp(x, weight, bias, right_transpose=True)

    theirs = tk.build(plain, *given)
    assert mine.kernel.gdma.tobytes() == theirs.kernel.gdma.tobytes()
    assert mine.kernel.bdc.tobytes() == theirs.kernel.bdc.tobytes()


def test_what_an_epilogue_takes() -> None:
    chip = load_chip("bm1684x")
    special = chip.special_function_passes
    assert epilogue_cost(lambda tile: tile, chip) == Epilogue()
    assert epilogue_cost(lambda tile: tile + 1, chip) == Epilogue(1, 1, 1)
    assert epilogue_cost(tk.silu, chip) == Epilogue(2, special + 1, 2)
    # A sum of squares of both neighbours: two tiles wait for the third.
    cost = epilogue_cost(lambda t: (t + 1) * (t + 2) * (t + 3), chip)
    assert (cost.commands, cost.passes) == (5, 5)
    assert cost.tiles >= 2


def test_tilings_count_the_tiles_of_the_epilogue() -> None:
    chip = load_chip("bm1684x")
    plain = Problem(512, 4096, 4096, F16, F16, 8192)
    rich = Problem(512, 4096, 4096, F16, F16, 8192, epilogue=Epilogue(9, 9, 6))
    tiling = choose_tiling(plain, chip)
    assert buffers(rich, tiling).product.element == F32
    assert lane_bytes(rich, tiling, chip) > lane_bytes(plain, tiling, chip)
    assert lane_bytes(rich, choose_tiling(rich, chip), chip) <= chip.lane_bytes


def test_operands_must_go_together() -> None:
    @tk.kernel(linear_op)
    def kernel(op: Any, x: Any, weight: Any, bias: Any, y: Any, chip: Any) -> None:
        tk.matmul(x, weight, None, bias, y, transpose_right=False)

    assert kernel.op_class is linear_op
    with pytest.raises(IRError, match="matmul of f16") as caught:
        tk.build(linear_op, ((4, 64), F16), ((8, 64), F16))
    assert "transpose_right=False" in str(caught.value.hint)


def test_an_epilogue_keeps_the_shape() -> None:
    @tk.kernel(linear_op)
    def kernel(op: Any, x: Any, weight: Any, bias: Any, y: Any, chip: Any) -> None:
        tk.matmul(x, weight, None, bias, y, epilogue=tk.sum)

    assert kernel.op_class is linear_op
    with pytest.raises(IRError, match="the epilogue makes"):
        tk.build(linear_op, ((70, 64), F16), ((80, 64), F16))
