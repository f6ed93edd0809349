"""Property tests of quantized arithmetic, for any quantizer: strategies, bounds and a suite.

    from tilewright.testing import check_weight_quantizer

    def test_my_quantizer():
        check_weight_quantizer(my_quantizer, "w8a16")

`strategies` draws numbers by bit pattern, weights, graphs and configurations; `bounds` says how far
a result may be off, and why; `suite` holds the properties. docs/testing.md shows all of it.
"""

from tilewright.testing.quantizer import PropertyError, Quantizer, Subject, WeightQuantizer
from tilewright.testing.suite import (
    PROPERTIES,
    Property,
    PropertyReport,
    PropertyResult,
    Verdict,
    check_property,
    check_weight_quantizer,
    examine_weight_quantizer,
    quantizer_property,
)

__all__ = [
    "PROPERTIES",
    "Property",
    "PropertyError",
    "PropertyReport",
    "PropertyResult",
    "Quantizer",
    "Subject",
    "Verdict",
    "WeightQuantizer",
    "check_property",
    "check_weight_quantizer",
    "examine_weight_quantizer",
    "quantizer_property",
]
