"""Writes GPTQ and AWQ checkpoints as their formats are published, without the code that reads them.

Words are put together code by code from Python integers, the dense weight comes from the published
formula `scales[g_idx] * (codes - zeros[g_idx])` in torch. Formats: `QuantLinear.pack` of AutoGPTQ,
`WQLinear_GEMM.from_linear` of AutoAWQ.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

Array = npt.NDArray[Any]
AWQ_PLACES = [0, 2, 4, 6, 1, 3, 5, 7]


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is quantized; names are those of the configurations."""

    quant_method: Literal["gptq", "awq"] = "gptq"
    bits: int = 4
    group_size: int = 32
    sym: bool = False
    desc_act: bool = False
    checkpoint_format: str = "gptq"
    scales: torch.dtype = torch.float16

    def config(self) -> dict[str, Any]:
        """`quantization_config`, as AutoGPTQ and AutoAWQ write it."""
        common = {"bits": self.bits, "group_size": self.group_size}
        if self.quant_method == "awq":
            return {**common, "quant_method": "awq", "zero_point": True, "version": "gemm"}
        return {
            **common,
            "quant_method": "gptq",
            "sym": self.sym,
            "desc_act": self.desc_act,
            "checkpoint_format": self.checkpoint_format,
        }


@dataclass(frozen=True)
class Quantized:
    """A layer in integers: `codes[K, N]`, `zeros[G, N]`, `scales[G, N]`, `g_idx[K]`."""

    codes: Array
    zeros: Array
    scales: torch.Tensor
    g_idx: Array

    def dense(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """The weight `[N, K]` by the published formula."""
        groups = torch.from_numpy(self.g_idx.astype(np.int64))
        steps = torch.from_numpy((self.codes - self.zeros[self.g_idx]).astype(np.float64))
        return (self.scales.to(dtype)[groups] * steps.to(dtype)).T.contiguous()


def quantize(weight: torch.Tensor, recipe: Recipe, rng: np.random.Generator) -> Quantized:
    """`weight[N, K]` rounded to nearest in groups; with `desc_act`, of inputs in random order."""
    dense = weight.double().numpy().T
    depth = len(dense)
    group = depth if recipe.group_size == -1 else min(recipe.group_size, depth)
    order = rng.permutation(depth) if recipe.desc_act else np.arange(depth)
    g_idx = np.empty(depth, np.int64)
    g_idx[order] = np.arange(depth) // group
    most, middle = 2**recipe.bits - 1, 2 ** (recipe.bits - 1)
    codes = np.empty(dense.shape, np.int64)
    zeros, scales = [], []
    for index in range(depth // group):
        rows = dense[g_idx == index]
        if recipe.sym:
            step = np.abs(rows).max(0) / (middle - 1)
            zero = np.full(len(step), middle)
        else:
            low, high = np.minimum(rows.min(0), 0), np.maximum(rows.max(0), 0)
            step = (high - low) / most
            zero = np.round(-low / step).clip(1, most)
        stored = torch.from_numpy(step).to(recipe.scales)
        codes[g_idx == index] = np.round(rows / stored.double().numpy() + zero).clip(0, most)
        zeros.append(zero.astype(np.int64))
        scales.append(stored)
    return Quantized(codes, np.stack(zeros), torch.stack(scales), g_idx)


def pack(layer: Quantized, recipe: Recipe) -> dict[str, torch.Tensor]:
    """The tensors of a layer under the last parts of their keys."""
    if recipe.quant_method == "awq":
        return {
            "qweight": _words(layer.codes.T, 4, AWQ_PLACES).T,
            "qzeros": _words(layer.zeros.T, 4, AWQ_PLACES).T,
            "scales": layer.scales,
        }
    stored = layer.zeros - (recipe.checkpoint_format == "gptq")
    return {
        "qweight": _words(layer.codes, recipe.bits),
        "qzeros": _words(stored.T, recipe.bits).T,
        "scales": layer.scales,
        "g_idx": torch.from_numpy(layer.g_idx.astype(np.int32)),
    }


def _words(values: Array, bits: int, places: list[int] | None = None) -> torch.Tensor:
    """Rows of `values[R, C]`, 32 / bits at a time, in int32 words `[R * bits / 32, C]`."""
    count = 32 // bits
    rows, cols = values.shape
    words = np.zeros((rows // count, cols), np.int64)
    for row in range(rows // count):
        for col in range(cols):
            word = 0
            for place in range(count):
                source = places[place] if places else place
                word |= int(values[row * count + source, col]) << (bits * place)
            words[row, col] = word
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


def pack_state(
    state: Mapping[str, torch.Tensor], names: Collection[str], recipe: Recipe, *, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, Quantized]]:
    """A checkpoint's tensors with the layers `names` packed, and what they are in integers."""
    packed = {key: value.clone() for key, value in state.items()}
    layers: dict[str, Quantized] = {}
    for name in names:
        # Layers that read the same input have the same order, as in a real checkpoint.
        block, _, last = name.rpartition(".")
        reads = f"{seed} {block} {last if last[0] not in 'qkvgu' else ''}"
        rng = np.random.default_rng(zlib.crc32(reads.encode()))
        layers[name] = quantize(packed.pop(f"{name}.weight"), recipe, rng)
        for part, tensor in pack(layers[name], recipe).items():
            packed[f"{name}.{part}"] = tensor
    return packed, layers


def write_packed(
    folder: Path, original: Any, recipe: Recipe, *, dense: Collection[str] = ()
) -> dict[str, Quantized]:
    """Quantize the projections of a transformers model but those that are to stay `dense`, write
    the checkpoint, and give the model the dense weights that it stands for. Returns the layers by
    name.
    """
    state = original.state_dict()
    names = [key.removesuffix(".weight") for key in state if key.endswith("_proj.weight")]
    chosen = [name for name in names if not any(part in name for part in dense)]
    packed, layers = pack_state(state, chosen, recipe)
    weights = {f"{name}.weight": layer.dense().float() for name, layer in layers.items()}
    original.load_state_dict(weights, strict=False)
    write(folder, packed, {**original.config.to_dict(), "quantization_config": recipe.config()})
    return layers


def write(folder: Path, state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    """A checkpoint of one file, and its configuration."""
    folder.mkdir(exist_ok=True)
    tensors = {key: value.contiguous() for key, value in state.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, default=str))
