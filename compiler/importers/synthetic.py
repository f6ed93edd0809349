"""Checkpoints with random weights in the real layouts, for tests and demonstrations without a
download.

Values come from one block of random numbers that is scaled and read from a different place for each
tensor, so that 12.5 GB are written as fast as the disk takes them, in little memory.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.importers.huggingface import CONFIG_NAME, build_model
from tilewright.compiler.models.config import Fields
from tilewright.compiler.output import atomic_output, storage_errors
from tilewright.compiler.weights.container import INDEX_NAME, SINGLE_NAME, WEIGHT_ELEMENTS
from tilewright.compiler.weights.safetensors_header import HeaderEntry, format_header
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import OptionError

Array = npt.NDArray[Any]

BLOCK_ELEMENTS = (1 << 21) - 9
"""A prime: no row length divides it, so that a matrix longer than the block repeats no row."""
SHARD_BYTES = 2_000_000_000
NORM_SPREAD = 0.1
"""Standard deviation of normalization weights around 1."""
BIAS_SPREAD = 0.02

CHATGLM2_6B: dict[str, Any] = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "num_layers": 28,
    "padded_vocab_size": 65024,
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "kv_channels": 128,
    "num_attention_heads": 32,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "layernorm_epsilon": 1e-05,
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "seq_length": 32768,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}
"""The configuration of ChatGLM2-6B, as published."""

CHATGLM_DEMO: dict[str, Any] = {
    **CHATGLM2_6B,
    "num_layers": 4,
    "padded_vocab_size": 1024,
    "hidden_size": 256,
    "ffn_hidden_size": 688,
    "kv_channels": 32,
    "num_attention_heads": 8,
    "seq_length": 2048,
}
"""A small model in the layout of ChatGLM2-6B."""

PRESETS: dict[str, dict[str, Any]] = {"chatglm2-6b": CHATGLM2_6B, "chatglm-demo": CHATGLM_DEMO}


@dataclass(frozen=True)
class _Shard:
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    size_bytes: int


def write_checkpoint(
    directory: Path | str,
    config: Mapping[str, Any],
    *,
    dtype: str = "f16",
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `config.json` and random weights of element type `dtype` (f32, f16 or bf16) into
    `directory`.

    Matrices have standard deviation `1 / sqrt(K)`, so that activations keep their size. Equal
    arguments give equal bytes. Raises `OptionError`, `StorageError`, and for the configuration what
    `load_model` does.
    """
    names = {element.name: (name, element) for name, element in WEIGHT_ELEMENTS.items()}
    if dtype not in names:
        raise OptionError(f"a checkpoint of {dtype!r}", hint=f"one of {', '.join(names)}")
    if shard_bytes < 1:
        raise OptionError(f"shards of {shard_bytes} bytes")
    model = build_model(Fields(config, CONFIG_NAME), seq=1)
    stored, element = names[dtype]
    shards = _split(model.shapes(), element, shard_bytes)
    directory = Path(directory)
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / CONFIG_NAME, {**config, "torch_dtype": _TORCH_NAMES[dtype]})
    files = [SINGLE_NAME]
    if len(shards) > 1:
        files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        weight_map = {
            key: file for file, shard in zip(files, shards, strict=True) for key, _ in shard.tensors
        }
        total = sum(shard.size_bytes for shard in shards)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(directory / INDEX_NAME, index)
    numbers = _Numbers(seed, element)
    for file, shard in zip(files, shards, strict=True):
        _write_shard(directory / file, shard, stored, element, numbers)


_TORCH_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def _split(
    shapes: Mapping[str, tuple[int, ...]], element: ElementType, shard_bytes: int
) -> list[_Shard]:
    """Tensors in order, in shards of at most `shard_bytes` where they are not larger themselves."""
    shards: list[_Shard] = []
    tensors: list[tuple[str, tuple[int, ...]]] = []
    size = 0
    for key, shape in shapes.items():
        tensor_bytes = int(np.prod(shape)) * element.size_bytes
        if tensors and size + tensor_bytes > shard_bytes:
            shards.append(_Shard(tuple(tensors), size))
            tensors, size = [], 0
        tensors.append((key, shape))
        size += tensor_bytes
    return [*shards, _Shard(tuple(tensors), size)]


class _Numbers:
    """Normally distributed values by mean and spread, from one random block."""

    def __init__(self, seed: int, element: ElementType) -> None:
        generator = np.random.default_rng(seed)
        self._block = generator.standard_normal(BLOCK_ELEMENTS, dtype=np.float32)
        self._element = element
        self._seed = seed
        self._scaled: dict[tuple[float, float], Array] = {}

    def chunks(self, key: str, shape: Sequence[int]) -> list[Array]:
        """Pieces that make up the tensor, views of a block in its element type."""
        mean, spread = _distribution(key, shape)
        if (mean, spread) not in self._scaled:
            values = mean + spread * self._block
            self._scaled[mean, spread] = values.astype(self._element.dtype)
        block = self._scaled[mean, spread]
        start = zlib.crc32(f"{self._seed}:{key}".encode()) % len(block)
        chunks: list[Array] = []
        left = int(np.prod(shape))
        while left > 0:
            chunks.append(block[start : start + left])
            left -= len(chunks[-1])
            start = 0
        return chunks


def _distribution(key: str, shape: Sequence[int]) -> tuple[float, float]:
    if len(shape) == 1:
        return (0.0, BIAS_SPREAD) if key.endswith(".bias") else (1.0, NORM_SPREAD)
    return 0.0, float(shape[-1]) ** -0.5


def _write_shard(
    path: Path, shard: _Shard, stored: str, element: ElementType, numbers: _Numbers
) -> None:
    entries: list[HeaderEntry] = []
    begin = 0
    for key, shape in shard.tensors:
        size = int(np.prod(shape)) * element.size_bytes
        entries.append(HeaderEntry(key, stored, tuple(shape), begin, size))
        begin += size
    header = format_header(entries)
    with atomic_output(path) as output:
        output.require_space(len(header) + shard.size_bytes)
        output.write_at(0, header)
        offset = len(header)
        for key, shape in shard.tensors:
            for chunk in numbers.chunks(key, shape):
                output.write_at(offset, chunk.view(np.uint8).data)
                offset += chunk.nbytes


def _write_json(path: Path, value: object) -> None:
    with atomic_output(path) as output:
        output.write_at(0, (json.dumps(value, indent=2) + "\n").encode())
