"""What a kernel raises of itself is an error at its line, and no bug of ours."""

from __future__ import annotations

import pytest

from tilewright.backends.chip import Chip
from tilewright.dialects import tpu
from tilewright.dialects.errors import IRError
from tilewright.dialects.graph.base import Value
from tilewright.dialects.graph.composite import CompositeOp, composite
from tilewright.passes import kernel_language as tk


@composite("test.Doubled", tpu.TpuOp)
def doubled(x: Value) -> Value:
    return tpu.MulConstOp(x, 2.0).result


def test_an_exception_in_a_kernel_is_said_with_its_line() -> None:
    @tk.kernel(doubled)
    def kernel(op: CompositeOp, x: tk.Tensor, y: tk.Tensor, chip: Chip) -> None:
        raise KeyError("factor")

    with pytest.raises(IRError, match="the kernel kernel cannot be traced") as caught:
        tk.build(kernel, ((4, 8), tk.f16))
    line = kernel.body.__code__.co_firstlineno + 2
    assert f"test_user_errors.py:{line}" in str(caught.value.where)
    assert caught.value.why == "KeyError: 'factor'"
