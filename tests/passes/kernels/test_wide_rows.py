"""Rows too wide for local memory go in pieces: softmax and normalizations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.passes.kernels.checking import FLOATS, Pitched, check, normal

from tilewright.dialects import tpu
from tilewright.dialects.element_types import F32, ElementType

elements = pytest.mark.parametrize("element", FLOATS, ids=lambda e: e.name)
WIDTH = 40001
"""More than one tile, and not a multiple of anything."""


@elements
@pytest.mark.parametrize("rows", [1, 70])
def test_softmax(rows: int, element: ElementType):
    x = normal((rows, WIDTH), element, scale=3.0)
    assert len(check(tpu.SoftmaxOp, x).kernel.gdma) > 3 * 2
    x[0, :30000] = -np.inf
    x[-1, 1], x[rows // 2, WIDTH - 1] = np.nan, np.inf
    check(tpu.SoftmaxOp, Pitched(x, 3, 6))


@elements
@pytest.mark.parametrize("rows", [1, 70])
@pytest.mark.parametrize("weighted", [False, True])
def test_rms_norm(rows: int, weighted: bool, element: ElementType):
    weight = [normal((WIDTH,), element, 1)] if weighted else []

    def build(x: Any, *rest: Any) -> tpu.RMSNormOp:
        return tpu.RMSNormOp(x, *rest, eps=1e-5)

    check(build, normal((rows, WIDTH), element, scale=3.0), *weight)
    check(build, Pitched(normal((rows, WIDTH), element, scale=0.01), 1, 4), *weight)


@elements
@pytest.mark.parametrize("parts", ["", "w", "b", "wb"])
def test_layer_norm(parts: str, element: ElementType):
    def build(x: Any, *rest: Any) -> tpu.LayerNormOp:
        weight, bias = rest[0] if "w" in parts else None, rest[-1] if "b" in parts else None
        return tpu.LayerNormOp(x, weight, bias, eps=1e-5)

    x = normal((67, 30000), element) + element.dtype.type(2)
    check(build, x, *[normal((30000,), element, number) for number, _ in enumerate(parts)])


def test_layer_norm_of_a_wide_row_far_from_zero():
    x = normal((2, WIDTH), F32) + np.float32(1000)
    check(lambda v: tpu.LayerNormOp(v, eps=1e-12), x)
