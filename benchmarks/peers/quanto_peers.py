"""optimum-quanto: its default optimizers (absmax for 8 bits, min and max for 4)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from peers.peer import PER_CHANNEL, Array, Peer, conventions_of, uint4
from peers.torch_peers import tensor
from tilewright.testing import Quantizer

_GROUP = 32
_SHIFT = conventions_of(
    (
        "zero-is-exact",
        "zero-points-in-range",
        "shapes-and-types",
        "idempotence",
        "one-sided-range",
        "mirrored-zero-points",
        "saturation",
    ),
    "shifts are floats unless zeropoint=True: 0 is no code, values are q * s - shift in f32",
)


def peers() -> list[Peer]:
    """qint8 per channel of f32 and f16 weights, qint4 in groups with both kinds of shifts."""
    torch = import_module("torch")
    quanto = import_module("optimum.quanto")
    types: list[npt.DTypeLike] = [np.float32, np.float16]
    eight = [
        Peer(
            f"quanto qint8, {'f16' if dtype is np.float16 else 'f32'}",
            "optimum-quanto",
            "AbsmaxOptimizer: absmax / 127, half to even, scales as weights",
            PER_CHANNEL,
            qint8(torch, quanto),
            dtype,
        )
        for dtype in types
    ]
    return [
        *eight,
        Peer(
            "quanto qint4 g32",
            "optimum-quanto",
            "MaxOptimizer: (max - min) / 15, half to even, scales and shifts f32",
            uint4(_GROUP),
            qint4(torch, quanto, zeropoint=False),
            conventions=_SHIFT,
        ),
        Peer(
            "quanto qint4 zp g32",
            "optimum-quanto",
            "MaxOptimizer, zeropoint=True: (max - min) / 15, half to even, scales f32",
            uint4(_GROUP),
            qint4(torch, quanto, zeropoint=True),
        ),
    ]


def qint8(torch: Any, quanto: Any) -> Quantizer:
    """`quantize_weight` to qint8, and back."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        given = tensor(torch, weight)
        scale = quanto.AbsmaxOptimizer()(given, quanto.qint8, 0)
        made = quanto.quantize_weight(given, quanto.qint8, 0, scale)
        return made._data.numpy(), made._scale.numpy()

    def dequantize(codes: Array, scale: Array) -> Array:
        return (torch.from_numpy(scale) * torch.from_numpy(codes)).numpy()

    return Quantizer(quantize, dequantize=dequantize)


def qint4(torch: Any, quanto: Any, zeropoint: bool) -> Quantizer:
    """`quantize_weight` to qint4; a float shift is so many steps of the scale.

    A weight of one group has as many scales as columns for it; a second row is added to these.
    """

    def quantize(weight: Array) -> tuple[Array, ...]:
        one = weight.size == _GROUP
        given = tensor(torch, np.repeat(weight, 2, axis=0) if one else weight)
        scale, shift = quanto.MaxOptimizer()(given, quanto.qint4, 0, _GROUP, zeropoint=zeropoint)
        made = quanto.quantize_weight(given, quanto.qint4, 0, scale, shift, _GROUP)
        groups = weight.size // _GROUP
        codes = made._data.unpack().numpy()[:groups].reshape(weight.shape)
        steps, shifts = made._scale.numpy()[:groups], made._shift.numpy()[:groups]
        return (codes, steps, shifts) if zeropoint else as_steps(codes, steps, shifts)

    return Quantizer(quantize)


def as_steps(codes: Array, scale: Array, shift: Array) -> tuple[Array, ...]:
    """Float shifts as steps of the scale. Groups of one value have scale 0 and are their shift:
    these become 15 steps, or 0, below code 0.
    """
    one_value = scale == 0
    steps = np.where(one_value, np.abs(shift) / 15, scale)
    steps[steps == 0] = 1
    shown = np.where(
        np.broadcast_to(one_value, (len(scale), _GROUP)).reshape(codes.shape), 0, codes
    )
    return shown.astype(np.uint8), steps, shift.astype(np.float64) / steps
