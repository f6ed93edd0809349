"""Quantizing the largest weight of a 6B model, beside a copy of it and the quantizers of others.

All in one run, in turns: a NumPy copy of the f16 weight, our schemes with 1 and 2 threads into
buffers that are there, and what others offer for int8 channels and int4 groups. torch is written as
well as it can be (blocks that stay in the cache, buffers that are there) and as people write it.
Libraries that are not installed are named as such: `pip install onnxruntime torchao optimum-quanto
bitsandbytes gguf`.

    python benchmarks/quantize_weight.py [--rounds 9] [--rows 13696]

Prints median times, the median of the rounds' ratios to the copy, and the limits of issue 4: w8a16
within 1.25 x the copy, w4a16 in groups within 3 x, each 5 x as fast as the fastest peer of its
kind, with as many threads as the machine has, up to 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from timing import report, seconds

from tilewright.compiler.weights.quantize import quantize_weight
from tilewright.dialects.element_types import F16
from tilewright.dialects.quantization import parse_scheme

Array = npt.NDArray[Any]
Action = Callable[[], object]

ROWS, DEPTH = 13696, 4096
"""`mlp.dense_4h_to_h` of ChatGLM2-6B, transposed: 112 MB."""
SCHEMES = ("w8a16", "w8a16-g64", "w4a16", "w4a16-absmax", "f8e4m3")
THREADS = (1, 2)
GROUP = 64
TORCH_BLOCK = 256
"""Rows that torch does best with: 4 MB in f32."""

COPY = "numpy copy"
COPY_LIMITS = {"w8a16": 1.25, "w4a16": 3.0}
PEER_LIMIT = 5.0


def ours(weight: Array) -> dict[str, Action]:
    """Our schemes by name and threads."""
    actions: dict[str, Action] = {}
    for name in SCHEMES:
        scheme = parse_scheme(name)
        codes = np.zeros((len(weight), scheme.format.row_bytes(DEPTH)), np.int8)
        quantize_weight(weight[:8], scheme, F16)  # compiles, or loads what was compiled before

        def quantize(threads: int, scheme: Any = scheme, codes: Array = codes) -> Action:
            return lambda: quantize_weight(weight, scheme, F16, threads=threads, out=codes)

        actions |= {f"{name}, {threads} threads": quantize(threads) for threads in THREADS}
    return actions


def torch_peers(weight: Array) -> dict[str, Action]:
    """torch, blocked and naive."""
    import torch

    w = torch.from_numpy(weight)
    codes = torch.zeros(w.shape, dtype=torch.int8)
    packed = torch.zeros((len(weight), DEPTH // 2), dtype=torch.uint8)
    buffer = torch.zeros((TORCH_BLOCK, DEPTH))

    def channels() -> None:
        for start in range(0, len(w), TORCH_BLOCK):
            rows = w[start : start + TORCH_BLOCK]
            block = buffer[: len(rows)]
            block.copy_(rows)
            scale = block.abs().amax(1, keepdim=True) / 127
            codes[start : start + TORCH_BLOCK].copy_(block.div_(scale).round_())

    def groups() -> None:
        for start in range(0, len(w), TORCH_BLOCK):
            rows = w[start : start + TORCH_BLOCK]
            block = buffer[: len(rows)]
            block.copy_(rows)
            grouped = block.view(len(rows), -1, GROUP)
            low, high = torch.aminmax(grouped, dim=2, keepdim=True)
            scale = (high.clamp_(min=0) - low.clamp_(max=0)) / 15
            zero = (-low / scale).round_()
            grouped.div_(scale).round_().add_(zero).clamp_(0, 15)
            whole = block.to(torch.uint8)
            packed[start : start + TORCH_BLOCK] = whole[:, ::2] | (whole[:, 1::2] << 4)

    def naive() -> None:
        wide = w.float()
        scale = wide.abs().amax(1, keepdim=True) / 127
        (wide / scale).round().clamp(-127, 127).to(torch.int8)

    return {
        "8: torch, blocked": channels,
        "8: torch, naive": naive,
        "4: torch, blocked": groups,
    }


def onnxruntime_peers(weight: Array) -> dict[str, Action]:
    """The C++ quantizers of ONNX Runtime, from f32 `[K, N]` as they want it."""
    binding = importlib.import_module("onnxruntime.capi._pybind_state")
    source = np.ascontiguousarray(weight.T.astype(np.float32))
    count, blocks = len(weight), DEPTH // GROUP

    def peer(bits: int) -> Action:
        packed = np.zeros((count, blocks, GROUP * bits // 8), np.uint8)
        scales = np.zeros(count * blocks, np.float32)
        zeros = np.zeros(count * (-(-blocks * bits // 8)), np.uint8)
        quantize = getattr(binding, f"quantize_matmul_{bits}bits")
        return lambda: quantize(packed, source, scales, zeros, GROUP, count, DEPTH, False)

    return {f"{bits}: onnxruntime, groups, C++": peer(bits) for bits in (8, 4)}


def torchao_peers(weight: Array) -> dict[str, Action]:
    """torchao's weight-only int8."""
    import torch

    quantization = importlib.import_module("torchao.quantization")
    layer = torch.nn.Linear(DEPTH, len(weight), bias=False, dtype=torch.float16)
    layer.weight.data = torch.from_numpy(weight)

    def quantize() -> None:
        model = torch.nn.Sequential(torch.nn.Linear(1, 1))
        model[0] = torch.nn.Linear(1, 1, bias=False)
        model[0].weight = layer.weight
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())

    return {"8: torchao": quantize}


def quanto_peers(weight: Array) -> dict[str, Action]:
    """optimum-quanto's qint8."""
    import torch

    quanto = importlib.import_module("optimum.quanto")
    w = torch.from_numpy(weight)
    optimizer = quanto.AbsmaxOptimizer()

    def quantize() -> object:
        return quanto.quantize_weight(w, quanto.qint8, 0, optimizer(w, quanto.qint8, 0))

    return {"8: optimum-quanto": quantize}


def bitsandbytes_peers(weight: Array) -> dict[str, Action]:
    """bitsandbytes' vector-wise int8."""
    import torch

    functional = importlib.import_module("bitsandbytes.functional")
    w = torch.from_numpy(weight)
    return {"8: bitsandbytes": lambda: functional.int8_vectorwise_quant(w)}


def gguf_peers(weight: Array) -> dict[str, Action]:
    """gguf's Q8_0 and Q4_0 in Python."""
    gguf = importlib.import_module("gguf")
    types = gguf.GGMLQuantizationType
    source = weight.astype(np.float32)
    return {
        "8: gguf Q8_0": lambda: gguf.quants.quantize(source, types.Q8_0),
        "4: gguf Q4_0": lambda: gguf.quants.quantize(source, types.Q4_0),
    }


PEERS: dict[str, Callable[[Array], dict[str, Action]]] = {
    "torch": torch_peers,
    "onnxruntime": onnxruntime_peers,
    "torchao": torchao_peers,
    "optimum-quanto": quanto_peers,
    "bitsandbytes": bitsandbytes_peers,
    "gguf": gguf_peers,
}


def peers(weight: Array) -> dict[str, Action]:
    """The quantizers of others, by bits and name."""
    actions: dict[str, Action] = {}
    for name, make in PEERS.items():
        try:
            actions |= make(weight)
        except (ImportError, AttributeError) as error:
            print(f"{name:32} not installed ({error})")
    return actions


def main() -> None:
    """Measure in turns, print the table, then the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    weight = np.empty((options.rows, DEPTH), np.float16)
    for rows in np.array_split(weight, 16):
        rows[...] = rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(0.02)
    copy = np.zeros_like(weight)
    actions: dict[str, Action] = {COPY: lambda: np.copyto(copy, weight)}
    actions |= ours(weight)
    others = peers(weight)
    times: dict[str, list[float]] = {name: [] for name in (*actions, *others)}
    for action in (*actions.values(), *others.values()):
        action()
    for turn in range(options.rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
        if turn % 3 == 0:
            for name, action in others.items():
                times[name].append(seconds(action))
    for name, taken in times.items():
        ratio = median(taken) / median(times[COPY])
        print(f"{name:32} {median(taken) * 1e3:9.1f} ms  best {min(taken) * 1e3:8.1f} ms", end="")
        print(f"  {ratio:7.2f} x the copy")
    print()
    threads = min(THREADS[-1], os.cpu_count() or 1)
    for name, limit in COPY_LIMITS.items():
        for count in THREADS:
            paired = zip(times[f"{name}, {count} threads"], times[COPY], strict=True)
            what = f"{name}, {count} threads / copy (median of the rounds)"
            report(what, median(a / b for a, b in paired), limit, "x")
    for name in COPY_LIMITS:
        bits = str(parse_scheme(name).format.bits)
        rivals = {peer: min(times[peer]) for peer in others if peer.startswith(bits)}
        if rivals:
            fastest = min(rivals, key=lambda peer: rivals[peer])
            ratio = min(times[f"{name}, {threads} threads"]) / rivals[fastest]
            what = f"{name}, {threads} threads / {fastest[3:]} (best of each)"
            report(what, ratio, 1 / PEER_LIMIT, "x")


if __name__ == "__main__":
    main()
