"""gguf: the reference quantizers of llama.cpp's file format, in Python."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from peers.peer import ROUNDED_SCALE, SIGNED_SCALE, ZERO_SCALE, Array, Peer, int4, int8
from tilewright.testing import Quantizer

_BLOCK = 32


def peers() -> list[Peer]:
    """Q8_0 and Q4_0: blocks of 32 with an f16 scale."""
    quants = import_module("gguf.quants")
    return [
        Peer(
            "gguf Q8_0",
            "gguf",
            "absmax / 127, half away from zero, f16 scales, blocks of 32",
            int8(_BLOCK),
            eight_bits(quants.Q8_0),
            conventions=ROUNDED_SCALE | ZERO_SCALE,
        ),
        Peer(
            "gguf Q4_0",
            "gguf",
            "largest weight / -8, floor(x + 8.5), f16 scales, blocks of 32",
            int4(_BLOCK),
            four_bits(quants.Q4_0),
            conventions=SIGNED_SCALE,
        ),
    ]


def _scale(blocks: Array, rows: int) -> Array:
    """The f16 in the first two bytes of every block."""
    return np.ascontiguousarray(blocks[:, :2]).view(np.float16).reshape(rows, -1)


def eight_bits(kind: Any) -> Quantizer:
    """A scale and 32 bytes a block."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        blocks = kind.quantize(weight).reshape(-1, 2 + _BLOCK)
        codes = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).reshape(weight.shape)
        return codes, _scale(blocks, len(weight))

    def dequantize(codes: Array, scale: Array) -> Array:
        blocks = codes.reshape(-1, _BLOCK).view(np.uint8)
        heads = np.ascontiguousarray(scale).reshape(-1, 1).view(np.uint8)
        return kind.dequantize(np.concatenate([heads, blocks], axis=1)).reshape(codes.shape)

    return Quantizer(quantize, dequantize=dequantize)


def four_bits(kind: Any) -> Quantizer:
    """A scale and 16 bytes a block: the first half of the codes in the low nibbles."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        blocks = kind.quantize(weight).reshape(-1, 2 + _BLOCK // 2)
        nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
        return nibbles.astype(np.int8).reshape(weight.shape) - 8, _scale(blocks, len(weight))

    return Quantizer(quantize)
