"""Small models in memory and on disk, and what flows through them, computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.calibration import Calibration, InputStatistics
from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.mlir import load_mlir, save_mlir
from tilewright.compiler.importers.synthetic import CHATGLM_DEMO, write_checkpoint
from tilewright.compiler.language_model import ImportedModel, LanguageModel
from tilewright.dialects.context import parse_module

Array = npt.NDArray[Any]

TINY_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}
TINY_CHATGLM: dict[str, Any] = {
    **CHATGLM_DEMO,
    "num_layers": 2,
    "padded_vocab_size": 50,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "kv_channels": 8,
    "num_attention_heads": 4,
    "multi_query_group_num": 2,
    "seq_length": 64,
}

LAYERS = """
func.func private @block(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %up = top.Weight "up" : tensor<12x8xf32>
  %gate = top.Weight "gate" : tensor<8x12xf32>
  %down = top.Weight "down" : tensor<8x12xf32>
  %u = top.MatMul %x, %up {right_transpose} :
    tensor<4x8xf32>, tensor<12x8xf32> -> tensor<4x12xf32>
  %g = top.MatMul %x, %gate : tensor<4x8xf32>, tensor<8x12xf32> -> tensor<4x12xf32>
  %h = top.Mul %u, %g : tensor<4x12xf32>, tensor<4x12xf32> -> tensor<4x12xf32>
  %y = top.MatMul %h, %down {right_transpose} :
    tensor<4x12xf32>, tensor<8x12xf32> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
func.func @main(%x: tensor<4x8xf32>, %bias: tensor<8xf32>) -> tensor<4x8xf32> {
  %y = top.Call @block(%x) {scopes = ["a.", "b."]} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %z = top.Add %y, %bias : tensor<4x8xf32>, tensor<8xf32> -> tensor<4x8xf32>
  func.return %z : tensor<4x8xf32>
}
"""
LAYER_KEYS = [f"{scope}.{name}" for scope in "ab" for name in ("up", "gate", "down")]


def layers_model(folder: Path) -> tuple[ImportedModel, dict[str, Array]]:
    """Two blocks of three linear layers, and their weights."""
    rng = np.random.default_rng(5)
    shapes = {"up": (12, 8), "gate": (8, 12), "down": (8, 12)}
    weights = {
        f"{scope}.{name}": rng.standard_normal(shape).astype(np.float32)
        for scope in "ab"
        for name, shape in shapes.items()
    }
    save_mlir(folder / "layers.mlir", parse_module(LAYERS, "layers.mlir"), weights)
    return load_mlir(folder / "layers.mlir"), weights


def flow(x: Array, weights: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
    """Input and output of each layer for `x[..., 8]`, in float64, by key."""
    values: dict[str, tuple[Array, Array]] = {}
    x = x.astype(np.float64)
    for scope in "ab":
        up, gate, down = (
            weights[f"{scope}.{n}"].astype(np.float64) for n in ("up", "gate", "down")
        )
        u, g = x @ up.T, x @ gate
        values |= {f"{scope}.up": (x, u), f"{scope}.gate": (x, g)}
        values[f"{scope}.down"] = (u * g, (u * g) @ down.T)
        x = values[f"{scope}.down"][1]
    return values


def language_model(folder: Path, seq: int, config: dict[str, Any] = TINY_CHATGLM) -> LanguageModel:
    """A checkpoint with random weights, written on first use."""
    path = folder / config["model_type"]
    if not path.exists():
        write_checkpoint(path, config, dtype="f32", seed=1)
    return load_model(path, seq=seq)


def statistics_of(calibration: Calibration, key: str) -> InputStatistics:
    """The statistics of a layer that has been seen."""
    statistics = calibration.statistics(key)
    assert statistics is not None
    return statistics


def hessian_of(calibration: Calibration, key: str) -> Array:
    """Its second moments, which have been gathered."""
    hessian = statistics_of(calibration, key).hessian
    assert hessian is not None
    return hessian
