"""Oracles and bounds: how far a result of quantized arithmetic may be off, and why."""

from tilewright.testing.bounds.graphs import graph_error_bound, largest_weight_error
from tilewright.testing.bounds.noise import (
    cosine_from_snr,
    expected_snr_db,
    expected_square_max,
    expected_square_range,
    snr_db,
)
from tilewright.testing.bounds.products import (
    dequantized_matmul_error_bound,
    f32_accumulator_is_exact,
    gamma,
    int32_accumulator_is_exact,
    matmul_error_bound,
    output_error_bound,
    requantization_error,
    zero_point_bias,
)
from tilewright.testing.bounds.weights import quantization_error_bound

__all__ = [
    "cosine_from_snr",
    "dequantized_matmul_error_bound",
    "expected_snr_db",
    "expected_square_max",
    "expected_square_range",
    "f32_accumulator_is_exact",
    "gamma",
    "graph_error_bound",
    "int32_accumulator_is_exact",
    "largest_weight_error",
    "matmul_error_bound",
    "output_error_bound",
    "quantization_error_bound",
    "requantization_error",
    "snr_db",
    "zero_point_bias",
]
