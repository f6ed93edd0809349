"""Codes, zero points and scales come out of a checkpoint to the bit, whatever its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.compiler.importers.packed.packers import Recipe, write_packed
from tests.compiler.models.harness import (
    randomize,
    reference_logits,
    transformers_logits,
)
from transformers import LlamaConfig, LlamaForCausalLM

from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.packed.checkpoint import PackedCheckpoint

LLAMA: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}
RECIPES = {
    f"gptq-{bits}-{'sym' if sym else 'asym'}-{'order' if order else 'plain'}-g{group}": Recipe(
        "gptq", bits, group, sym, order
    )
    for bits in (4, 8)
    for sym in (True, False)
    for order in (True, False)
    for group in (32, -1)
} | {
    "gptq-v2": Recipe(checkpoint_format="gptq_v2"),
    "gptq-bf16": Recipe(scales=torch.bfloat16, desc_act=True),
    "awq": Recipe("awq"),
    "awq-channel": Recipe("awq", group_size=-1),
}


def llama(**changes: Any) -> Any:
    return randomize(LlamaForCausalLM(LlamaConfig(**{**LLAMA, **changes})), 3)


def unpacked(weight: Any) -> Any:
    """The codes of a `QuantizedWeight` as integers, two's complement where they are signed."""
    codes = weight.codes.astype(np.int64)
    if weight.scheme.format.bits == 8:
        return codes
    nibbles = np.stack([codes & 15, (codes >> 4) & 15], -1).reshape(len(codes), -1)
    return nibbles if weight.scheme.zero_point else nibbles - 16 * (nibbles > 7)


@pytest.mark.parametrize("name", RECIPES)
def test_every_part_is_taken_over_to_the_bit(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    layers = write_packed(tmp_path, llama(), recipe)
    assert len(layers) == 14
    with load_model(tmp_path, seq=8).open_weights() as source:
        assert isinstance(source, PackedCheckpoint)
        assert set(source.layers) == {f"{layer}.weight" for layer in layers}
        for layer, truth in layers.items():
            weight = source.quantized(f"{layer}.weight")
            assert weight is not None
            depth = weight.shape[1]
            order = source.orders.get(f"{layer}.weight", np.arange(depth))
            rows = source.rows.get(f"{layer}.weight", np.arange(weight.shape[0]))
            codes = unpacked(weight)
            offset = truth.codes.T[rows][:, order] - codes
            assert offset.min() == offset.max()
            shift = int(offset[0, 0])
            if weight.zero is None:
                assert (truth.zeros == shift).all()
            else:
                assert (weight.zero.astype(np.int64) + shift == truth.zeros.T[rows]).all()
            assert (
                weight.scale.tobytes()
                == truth.scales.T[rows].contiguous().view(torch.int16).numpy().tobytes()
            )
            dense = truth.dense().numpy()[rows]
            zero = (
                0 if weight.zero is None else np.repeat(weight.zero, depth // len(truth.scales), 1)
            )
            ours = (codes - zero) * np.repeat(
                weight.scale.astype(np.float64), depth // len(truth.scales), 1
            )
            assert (ours == dense[:, order]).all()
            assert (source.read(f"{layer}.weight") == dense[:, order]).all()


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_computes_what_transformers_does_with_the_dense_weights(
    name: str, tmp_path: Path
) -> None:
    original = llama()
    write_packed(tmp_path, original, RECIPES[name])
    prompt, following = [3, 1, 4, 1, 5], [9, 2]
    model = load_model(tmp_path, seq=8)
    np.testing.assert_allclose(
        reference_logits(model, prompt, following),
        transformers_logits(original, prompt, following),
        rtol=1e-5,
        atol=1e-5,
    )
