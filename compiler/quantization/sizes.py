"""Bytes that weights take in a scheme: codes, scales, zero points, and what int8 layers need."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.compiler.quantization.linear_weights import LinearWeight
from tilewright.dialects.quantization import parse_scheme

_DENSE_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
_SCALE_BYTES = 2
"""Scales have the type of activations (f32 only where f16 ones would be subnormal)."""
_REQUANT_BYTES = 12
"""Bias, multiplier and shift of a channel of an int8 layer."""
_RANGE_BYTES = 8
"""The scales of its input and output."""


def stored_bytes(weight: LinearWeight, quant: str) -> int:
    """Bytes of a weight in a scheme (or dense type) whose groups divide its inputs."""
    if quant in _DENSE_BYTES:
        return weight.elements * _DENSE_BYTES[quant]
    scheme = parse_scheme(quant)
    codes = weight.channels * scheme.format.row_bytes(weight.depth)
    if scheme.int8_activations:
        return codes + weight.channels * _REQUANT_BYTES + _RANGE_BYTES
    per_group = _SCALE_BYTES + (1 if scheme.zero_point else 0)
    return codes + weight.channels * scheme.groups(weight.depth) * per_group


def bits_per_weight(weights: Mapping[str, LinearWeight], assigned: Mapping[str, str]) -> float:
    """Bits a weight, on average over linear layers, and over head and embedding if they are
    quantized; 0 where there are none."""
    counted = {
        key: quant
        for key, quant in assigned.items()
        if weights[key].is_layer or quant not in _DENSE_BYTES
    }
    elements = sum(weights[key].elements for key in counted)
    size = sum(stored_bytes(weights[key], quant) for key, quant in counted.items())
    return 8 * size / elements if elements else 0.0
