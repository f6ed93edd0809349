"""Weights `[N, K]` as codes of 8 or 4 bits, with a scale for each output channel."""

import numpy as np


def quantize(weight, bits=8):
    scale = np.abs(weight).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 0.5)
    codes = np.round(weight / scale).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return codes.astype(np.int8), scale.astype(np.float16)


def dequantize(codes, scale):
    return codes * scale.astype(np.float32)


def pack(codes):
    """4-bit codes, two in a byte, the first one in the low nibble."""
    even = np.pad(codes, ((0, 0), (codes.shape[1] % 2, 0))).view(np.uint8) & 15
    return even[:, 0::2] | even[:, 1::2] << 4


def unpack(packed, length):
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    return ((nibbles.astype(np.int8) ^ 8) - 8)[:, -length:]


def matmul(x, codes, scale):
    """`x[M, K]` in f16 times the weight, `[M, N]` in f16."""
    return (x @ codes.T.astype(x.dtype)) * scale.T.astype(x.dtype)
