"""bitsandbytes: the int8 weights of LLM.int8(). (nf4 is a table of floats: no scheme of ours.)"""

from __future__ import annotations

from importlib import import_module

import numpy as np

from peers.peer import PER_CHANNEL, Array, Peer
from peers.torch_peers import tensor
from tilewright.testing import Quantizer


def peers() -> list[Peer]:
    """`int8_vectorwise_quant` of f16 weights, as `Linear8bitLt` calls it."""
    torch = import_module("torch")
    functional = import_module("bitsandbytes.functional")

    def quantize(weight: Array) -> tuple[Array, ...]:
        codes, absmax, _ = functional.int8_vectorwise_quant(tensor(torch, weight))
        return codes.numpy(), absmax.numpy().astype(np.float64) / 127

    return [
        Peer(
            "bitsandbytes int8",
            "bitsandbytes",
            "absmax / 127, half to even; absmax is stored, in f32",
            PER_CHANNEL,
            Quantizer(quantize),
            np.float16,
        )
    ]
