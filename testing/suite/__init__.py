"""The suite: properties of quantizers, by subject, and what runs them."""

from tilewright.testing.suite import (
    accuracy,
    calibration,
    integers,
    lowering,
    packing,
    products,
    special,
    storage,
    structure,
    zero_points,
)
from tilewright.testing.suite.property import PROPERTIES, Property, quantizer_property
from tilewright.testing.suite.report import PropertyReport, PropertyResult, Verdict
from tilewright.testing.suite.runner import (
    check_property,
    check_weight_quantizer,
    examine_weight_quantizer,
)

__all__ = [
    "PROPERTIES",
    "Property",
    "PropertyReport",
    "PropertyResult",
    "Verdict",
    "accuracy",
    "calibration",
    "check_property",
    "check_weight_quantizer",
    "examine_weight_quantizer",
    "integers",
    "lowering",
    "packing",
    "products",
    "quantizer_property",
    "special",
    "storage",
    "structure",
    "zero_points",
]
