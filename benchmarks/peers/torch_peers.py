"""torch: as people write it by hand, and what torch.ao offers for weights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from peers.peer import ENDS_AT_HALF, PER_CHANNEL, Array, Peer, Quantize
from tilewright.testing import Quantizer


def peers() -> list[Peer]:
    """Per channel, int8."""
    torch = import_module("torch")
    return [
        Peer(
            "torch by hand, f32",
            "torch",
            "absmax / 127, half to even, f32 scales",
            PER_CHANNEL,
            Quantizer(by_hand(torch, torch.float32)),
        ),
        Peer(
            "torch by hand, f16",
            "torch",
            "absmax / 127, half to even, f16 scales; quantization.py of ChatGLM",
            PER_CHANNEL,
            Quantizer(by_hand(torch, torch.float16)),
            np.float16,
        ),
        Peer(
            "torch.quantize_per_channel",
            "torch",
            "PerChannelMinMaxObserver: absmax / 127.5 (at least 1.2e-7), half to even, f64 scales",
            PER_CHANNEL,
            per_channel(torch),
            conventions=ENDS_AT_HALF,
        ),
        Peer(
            "torch.fake_quantize",
            "torch",
            "fake_quantize_per_channel_affine; absmax / 127 (1 for zeros) is given, half to even",
            PER_CHANNEL,
            Quantizer(fake(torch)),
        ),
    ]


def by_hand(torch: Any, dtype: Any) -> Quantize:
    """`round(w / s)` with `s = absmax / 127`, all in one type."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        given = tensor(torch, weight).to(dtype)
        scale = given.abs().amax(dim=1, keepdim=True) / 127
        return torch.round(given / scale).to(torch.int8).numpy(), scale.numpy()

    return quantize


def per_channel(torch: Any) -> Quantizer:
    """The observer for weights with its defaults, and the quantized tensor that it leads to."""
    observers = import_module("torch.ao.quantization")

    def quantize(weight: Array) -> tuple[Array, ...]:
        given = tensor(torch, weight)
        observer = observers.PerChannelMinMaxObserver(
            ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric
        )
        observer(given)
        scale, zero = observer.calculate_qparams()
        made = torch.quantize_per_channel(given, scale, zero, 0, torch.qint8)
        return made.int_repr().numpy(), made.q_per_channel_scales().numpy()

    return Quantizer(quantize)


def fake(torch: Any) -> Quantize:
    """What fake quantization makes of weights, as codes: multiples of the scale."""

    def quantize(weight: Array) -> tuple[Array, ...]:
        given = tensor(torch, weight)
        scale = given.abs().amax(dim=1) / 127
        scale[scale == 0] = 1
        zero = torch.zeros(len(scale), dtype=torch.int32)
        made = torch.fake_quantize_per_channel_affine(given, scale, zero, 0, -127, 127)
        return torch.round(made / scale[:, None]).to(torch.int8).numpy(), scale.numpy()

    return quantize


def tensor(torch: Any, weight: Array) -> Any:
    """The weight as a tensor: in its own memory, where its layout allows."""
    return torch.from_numpy(np.ascontiguousarray(weight))
