"""torchao: `quantize_` of a linear layer, with the configurations that need no accelerator."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from peers.peer import ENDS_AT_HALF, PER_CHANNEL, Array, Peer, int4, int8, uint4
from peers.torch_peers import tensor
from tilewright.testing import Quantizer

_GROUP = 32


def peers() -> list[Peer]:
    """int8 per channel and in groups, int4 in groups with and without zero points.

    Scales of f16 weights are computed in f16, and stored in f32.
    """
    torch = import_module("torch")
    ao = import_module("torchao.quantization")
    groups = ao.PerGroup(_GROUP)
    whole, grouped = ao.Int8WeightOnlyConfig(), ao.Int8WeightOnlyConfig(granularity=groups)
    mapping = ao.MappingType
    asymmetric, symmetric = (
        ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=groups, mapping_type=kind)
        for kind in (mapping.ASYMMETRIC, mapping.SYMMETRIC)
    )
    claims = "absmax / 127.5 (at least 1.2e-7), half to even, f16 scales"
    return [
        Peer(
            "torchao int8",
            "torchao",
            f"Int8WeightOnlyConfig: {claims}",
            PER_CHANNEL,
            quantizer(torch, ao, whole),
            np.float16,
            ENDS_AT_HALF,
        ),
        Peer(
            "torchao int8 g32",
            "torchao",
            f"Int8WeightOnlyConfig(PerGroup(32)): {claims}",
            int8(_GROUP),
            quantizer(torch, ao, grouped),
            np.float16,
            ENDS_AT_HALF,
        ),
        Peer(
            "torchao int4 g32",
            "torchao",
            "IntxWeightOnlyConfig, symmetric: absmax / 7.5, half to even, scales as weights (f32)",
            int4(_GROUP),
            quantizer(torch, ao, symmetric),
            conventions=ENDS_AT_HALF,
        ),
        Peer(
            "torchao uint4 g32",
            "torchao",
            "IntxWeightOnlyConfig, asymmetric: range with 0 / 15, half to even, scales f32",
            uint4(_GROUP),
            quantizer(torch, ao, asymmetric, shift=8),
        ),
    ]


def quantizer(torch: Any, ao: Any, config: Any, shift: int = 0) -> Quantizer:
    """What `quantize_` makes of a layer's weight; `shift` makes signed codes 0..15.

    Rows of a single weight are an error for it; a zero more changes nothing that it computes.
    """

    def quantize(weight: Array) -> tuple[Array, ...]:
        rows, depth = weight.shape
        given = np.pad(weight, ((0, 0), (0, 1))) if depth == 1 else weight
        layer = torch.nn.Linear(given.shape[1], rows, bias=False)
        layer.weight = torch.nn.Parameter(tensor(torch, given), requires_grad=False)
        ao.quantize_(layer, config)
        made = layer.weight
        scale = made.scale.numpy().astype(weight.dtype)
        if not shift:
            return made.qdata.numpy()[:, :depth], scale
        return made.qdata.numpy() + shift, scale, made.zero_point.numpy() + shift

    return Quantizer(quantize)
