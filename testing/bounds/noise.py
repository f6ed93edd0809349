"""Quantization noise: the signal-to-noise ratio that a scheme must have, and that it has.

The formulas stand in `backends.reference.noise`, where the compiler's reports find them, too.
"""

from tilewright.backends.reference.noise import (
    cosine_from_snr,
    expected_snr_db,
    expected_square_max,
    expected_square_range,
    snr_db,
)

__all__ = [
    "cosine_from_snr",
    "expected_snr_db",
    "expected_square_max",
    "expected_square_range",
    "snr_db",
]
