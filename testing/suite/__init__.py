"""The suite: properties of quantizers, by subject, and what runs them."""

from tilewright.testing.suite import accuracy
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
    "check_property",
    "check_weight_quantizer",
    "examine_weight_quantizer",
    "quantizer_property",
]
