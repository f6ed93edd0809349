"""The suite on the quantizers of this compiler."""

from __future__ import annotations

import pytest

from tilewright.compiler.weights.quantize import quantize_w8a16
from tilewright.dialects.element_types import BF16, F16, ElementType
from tilewright.testing import check_weight_quantizer


@pytest.mark.parametrize("scale", [F16, BF16], ids=lambda e: e.name)
def test_w8a16(scale: ElementType) -> None:
    check_weight_quantizer(lambda weight: quantize_w8a16(weight, scale), "w8a16", examples=50)
