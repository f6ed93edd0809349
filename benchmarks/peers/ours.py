"""Ours: rounding to nearest, as `tw compile --quant` does it, with f16 scales."""

from __future__ import annotations

import numpy as np

from peers.peer import Array, Peer
from tilewright.backends.reference import numerics
from tilewright.compiler.weights.quantize import quantize_weight
from tilewright.dialects.element_types import F16
from tilewright.dialects.quantization import CodeFormat, Scheme, parse_scheme
from tilewright.testing import Quantizer

_CLAIMS = {
    "w8a16": "absmax / 127",
    "w4a16": "range with 0 / 15, groups of 64",
    "w4a16-absmax": "absmax / 7, groups of 64",
}


def peers() -> list[Peer]:
    """The schemes that have likes among the peers."""
    rounding = "half away from zero, f16 scales rounded up before the codes (f32 where f16 fails)"
    return [
        Peer(
            f"tilewright {name}",
            "tilewright",
            f"{claims}, {rounding}",
            parse_scheme(name),
            quantizer(parse_scheme(name)),
            np.float16,
        )
        for name, claims in _CLAIMS.items()
    ]


def quantizer(scheme: Scheme) -> Quantizer:
    """Our quantizer, and what it can do besides."""

    def quantize(weight: Array, by: Scheme = scheme) -> tuple[Array, ...]:
        made = quantize_weight(weight, by, F16)
        codes = numerics.plain_codes(made.codes, by.format, weight.shape[1])
        return (codes, made.scale) if made.zero is None else (codes, made.scale, made.zero)

    def dequantize(codes: Array, scale: Array, zero: Array | None = None) -> Array:
        return numerics.dequantize(codes, scale, F16, zero, scheme.format)

    return Quantizer(
        quantize,
        with_scheme=lambda by: lambda weight: quantize(weight, by),
        dequantize=dequantize,
        pack=numerics.pack_nibbles,
        unpack=lambda packed, depth: numerics.unpack_nibbles(
            packed, depth, signed=scheme.format is CodeFormat.I4
        ),
    )
