"""The suite on the quantizers of this compiler: every scheme, both types of scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.testing import artifacts
from tests.testing.amount import examples
from tests.testing.own import on_the_machine, quantizer

from tilewright.compiler.calibration.methods import METHODS, MethodName
from tilewright.dialects.element_types import BF16, F16, ElementType
from tilewright.dialects.quantization import parse_scheme
from tilewright.testing import PROPERTIES, check_weight_quantizer

SCHEMES = (
    "w8a16",
    "w8a16-g32",
    "w8a16-zp",
    "w8a16-g16-zp",
    "int8",
    "w4a16-g16",
    "w4a16-g32",
    "w4a16-channel",
    "w4a16-g32-absmax",
    "w4a16-channel-absmax",
    "f8e4m3",
    "f8e4m3-g32",
    "f8e5m2",
)
ELEMENTS = pytest.mark.parametrize("element", [F16, BF16], ids=lambda e: e.name)
PRODUCTS = [name for name in PROPERTIES if name.startswith("matmul")]


@ELEMENTS
@pytest.mark.parametrize("name", SCHEMES)
def test_rounding_to_nearest(name: str, element: ElementType) -> None:
    scheme = parse_scheme(name)
    dtypes = (np.float32, element.dtype)
    check_weight_quantizer(quantizer(scheme, element), scheme, examples=examples(15), dtypes=dtypes)


@pytest.mark.parametrize("name", ["w8a16", "w4a16-g16", "w4a16-channel-absmax", "f8e4m3"])
def test_products_on_the_machine(name: str) -> None:
    scheme = parse_scheme(name)
    check_weight_quantizer(
        on_the_machine(scheme, F16), scheme, examples=examples(6), properties=PRODUCTS
    )


@ELEMENTS
@pytest.mark.parametrize(
    "name", ["w8a16", "w8a16-zp", "w4a16-g16", "w4a16-g32-absmax", "f8e4m3-g32"]
)
def test_artifacts(name: str, element: ElementType) -> None:
    scheme = parse_scheme(name)
    stored = replace(
        quantizer(scheme, element),
        serialize=lambda *parts: artifacts.written(scheme, *parts),
        deserialize=lambda data: artifacts.read(scheme, data),
    )
    files = [name for name in PROPERTIES if name.startswith("serialization")]
    report = check_weight_quantizer(stored, scheme, examples=examples(10), properties=files)
    assert not report.not_applicable


@pytest.mark.parametrize("method", METHODS)
def test_calibration(method: MethodName) -> None:
    ours = [name for name in PROPERTIES if name.startswith("calibration")]
    scheme = parse_scheme("int8")
    check_weight_quantizer(
        quantizer(scheme, F16, method), scheme, examples=examples(30), properties=ours
    )
