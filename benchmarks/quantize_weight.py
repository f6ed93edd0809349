"""Quantizing the largest weight of a 6B model, beside a copy of it and the quantizers of others.

All in one run, in turns: a NumPy copy of the f16 weight, our schemes with 1 and 2 threads into
buffers that are there, and what others offer for int8 channels and int4 groups. torch is written as
well as it can be (blocks that stay in the cache, buffers that are there) and as people write it.
Libraries that are not installed are named as such: `pip install onnxruntime torchao optimum-quanto
bitsandbytes gguf`.

    python benchmarks/quantize_weight.py [--rounds 21] [--rows 13696]

Prints for each the best and the median wall time, the CPU time (of all threads, best), and the best
wall time over that of the copy; then the limits of issue 4: w8a16 within 1.25 x the copy, w4a16 in
groups within 3 x, each 5 x as fast as the fastest peer of as many bits. Ratios are of best times:
other work on a machine only ever adds.

Rows of peers begin with their bits and say their groups. Not all do the same work: some write a
4-bit code in a byte of its own, some leave zero points out.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable
from statistics import median
from time import process_time
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
ROUNDS_A_PEER = 7
"""Peers take a turn every so many rounds: they are slow, and their times differ less."""


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
        "8: torch blocked, channels": channels,
        "8: torch naive, channels": naive,
        f"4: torch blocked, g{GROUP}, zero points": groups,
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

    return {f"{bits}: onnxruntime C++, g{GROUP}, zero points": peer(bits) for bits in (8, 4)}


def torchao_peers(weight: Array) -> dict[str, Action]:
    """torchao's weight-only configurations that a CPU has for f16."""
    torch = importlib.import_module("torch")
    quantization = importlib.import_module("torchao.quantization")
    parameter = torch.nn.Parameter(torch.from_numpy(weight), requires_grad=False)

    def peer(config: Any) -> Action:
        def quantize() -> None:
            layer = torch.nn.Linear(DEPTH, len(weight), bias=False, device="meta")
            layer.weight = parameter
            model = torch.nn.Sequential(layer)
            quantization.quantize_(model, config)
            if type(model[0].weight) is torch.nn.Parameter:
                raise RuntimeError(f"torchao has not quantized by {config}")

        return quantize

    four_bits = quantization.IntxWeightOnlyConfig(
        weight_dtype=torch.int4,
        granularity=quantization.PerGroup(GROUP),
        mapping_type=quantization.MappingType.ASYMMETRIC,
    )
    return {
        "8: torchao Int8WeightOnly, channels": peer(quantization.Int8WeightOnlyConfig()),
        f"4: torchao Intx, g{GROUP}, zero points, a byte each": peer(four_bits),
    }


def quanto_peers(weight: Array) -> dict[str, Action]:
    """optimum-quanto's qint8 by channels, and qint4 in groups with zero points."""
    import torch

    quanto = importlib.import_module("optimum.quanto")
    w = torch.from_numpy(weight)
    absmax, ends = quanto.AbsmaxOptimizer(), quanto.MaxOptimizer()

    def channels() -> object:
        return quanto.quantize_weight(w, quanto.qint8, 0, absmax(w, quanto.qint8, 0))

    def groups() -> object:
        scale, zero = ends(w, quanto.qint4, 0, GROUP, zeropoint=True)
        return quanto.quantize_weight(w, quanto.qint4, 0, scale, zero, GROUP, optimized=False)

    return {
        "8: optimum-quanto qint8, channels": channels,
        f"4: optimum-quanto qint4, g{GROUP}, zero points": groups,
    }


def bitsandbytes_peers(weight: Array) -> dict[str, Action]:
    """bitsandbytes' vector-wise int8 and its 4-bit floats."""
    import torch

    functional = importlib.import_module("bitsandbytes.functional")
    w = torch.from_numpy(weight)

    def floats() -> object:
        return functional.quantize_4bit(w, blocksize=GROUP, quant_type="nf4")

    return {
        "8: bitsandbytes vector-wise, channels": lambda: functional.int8_vectorwise_quant(w),
        f"4: bitsandbytes nf4, g{GROUP}, absmax": floats,
    }


def gguf_peers(weight: Array) -> dict[str, Action]:
    """gguf's quantizers in Python, from f32: blocks of 32 by absmax (Q8_0, Q4_0) and by minimum and
    maximum (Q4_1)."""
    gguf = importlib.import_module("gguf")
    types = gguf.GGMLQuantizationType
    source = weight.astype(np.float32)

    def peer(kind: Any) -> Action:
        return lambda: gguf.quants.quantize(source, kind)

    return {
        "8: gguf Q8_0, g32, absmax": peer(types.Q8_0),
        "4: gguf Q4_0, g32, absmax": peer(types.Q4_0),
        "4: gguf Q4_1, g32, minimum": peer(types.Q4_1),
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
        except ImportError as error:
            print(f"{name:48} not installed ({error})")
    return actions


class Times:
    """Wall and CPU seconds of an action's calls."""

    def __init__(self, action: Action) -> None:
        self.action = action
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def measure(self) -> None:
        """One more call."""
        before = process_time()
        self.wall.append(seconds(self.action))
        self.cpu.append(process_time() - before)

    def best(self) -> float:
        """The least wall time."""
        return min(self.wall)


def random_weight(rows: int) -> Array:
    """Gaussian weights f16 `[rows, DEPTH]`."""
    rng = np.random.default_rng(0)
    weight = np.empty((rows, DEPTH), np.float16)
    for part in np.array_split(weight, 16):
        part[...] = rng.standard_normal(part.shape, dtype=np.float32) * np.float32(0.02)
    return weight


def report_limits(times: dict[str, Times], rivals: list[str]) -> None:
    """The limits of issue 4, and the CPU times of the same ratios."""
    copy = times[COPY]
    threads = min(THREADS[-1], os.cpu_count() or 1)
    for name, limit in COPY_LIMITS.items():
        for count in THREADS:
            taken = times[f"{name}, {count} threads"]
            report(f"{name}, {count} threads / copy", taken.best() / copy.best(), limit, "x")
            report("  CPU time of the same", min(taken.cpu) / min(copy.cpu), limit, "x")
        bits = str(parse_scheme(name).format.bits)
        peers_of_bits = [peer for peer in rivals if peer.startswith(bits)]
        if peers_of_bits:
            fastest = min(peers_of_bits, key=lambda peer: times[peer].best())
            taken, rival = times[f"{name}, {threads} threads"], times[fastest]
            report(f"{name} / {fastest[3:]}", taken.best() / rival.best(), 1 / PEER_LIMIT, "x")
            report("  CPU time of the same", min(taken.cpu) / min(rival.cpu), 1 / PEER_LIMIT, "x")


def main() -> None:
    """Measure in turns, print the table, then the limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    weight = random_weight(options.rows)
    copy = np.zeros_like(weight)
    actions: dict[str, Action] = {COPY: lambda: np.copyto(copy, weight)}
    actions |= ours(weight)
    others = peers(weight)
    times = {name: Times(action) for name, action in (actions | others).items()}
    for taken in times.values():
        taken.action()
    for turn in range(options.rounds):
        for name in actions:
            times[name].measure()
        if turn % ROUNDS_A_PEER == 0:
            for name in others:
                times[name].measure()
    print(f"{'ms':48} {'best':>8} {'median':>8} {'CPU':>8} {'x copy':>8}")
    for name, taken in times.items():
        best, middle, cpu = taken.best(), median(taken.wall), min(taken.cpu)
        print(f"{name:48} {best * 1e3:8.1f} {middle * 1e3:8.1f} {cpu * 1e3:8.1f}", end="")
        print(f" {best / times[COPY].best():8.2f}")
    print()
    report_limits(times, list(others))


if __name__ == "__main__":
    main()
