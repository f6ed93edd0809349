"""ChatGLM's published layout, against GLM of transformers with its tensors renamed and joined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.compiler.models.harness import randomize, reference_logits, transformers_logits
from transformers import GlmConfig, GlmForCausalLM

from tilewright.compiler.importers.huggingface import load_model

PROMPT = (5, 3, 99, 17, 3, 0, 42)
FOLLOWING = (7, 7, 101, 1)
LENGTH = 13

NAMES = {
    "model.embed_tokens.": "transformer.embedding.word_embeddings.",
    "model.norm.": "transformer.encoder.final_layernorm.",
    "lm_head.": "transformer.output_layer.",
    "model.layers.": "transformer.encoder.layers.",
    ".self_attn.o_proj.": ".self_attention.dense.",
    ".mlp.gate_up_proj.": ".mlp.dense_h_to_4h.",
    ".mlp.down_proj.": ".mlp.dense_4h_to_h.",
}


def published_tensors(original: Any) -> dict[str, torch.Tensor]:
    """The tensors of a GLM of transformers under ChatGLM's names, with joined projections."""
    state: dict[str, torch.Tensor] = original.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if ".k_proj." in key or ".v_proj." in key:
            continue
        if ".q_proj." in key:
            value = torch.cat([state[key.replace(".q_", f".{part}_")] for part in "qkv"])
            key = key.replace(".self_attn.q_proj.", ".self_attention.query_key_value.")
        for old, new in NAMES.items():
            key = key.replace(old, new)
        tensors[key] = value.contiguous().clone()
    return tensors


def published_config(config: GlmConfig) -> dict[str, Any]:
    """`config.json` with ChatGLM's fields."""
    rope: Any = config.rope_parameters
    return {
        "model_type": "chatglm",
        "num_layers": config.num_hidden_layers,
        "padded_vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.intermediate_size,
        "kv_channels": config.head_dim,
        "num_attention_heads": config.num_attention_heads,
        "multi_query_attention": True,
        "multi_query_group_num": config.num_key_value_heads,
        "layernorm_epsilon": config.rms_norm_eps,
        "add_qkv_bias": config.attention_bias,
        "add_bias_linear": False,
        "rmsnorm": True,
        "post_layer_norm": True,
        "seq_length": config.max_position_embeddings,
        "rope_ratio": rope["rope_theta"] / 10000,
        "original_rope": True,
        "apply_query_key_layer_scaling": True,
        "eos_token_id": [1, 2],
    }


def make_original(seed: int, **changes: Any) -> Any:
    """A small GLM of transformers with odd sizes and random weights."""
    settings: dict[str, Any] = {
        "vocab_size": 133,
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 20,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        **changes,
    }
    return randomize(GlmForCausalLM(GlmConfig(**settings)), seed)


def publish(original: Any, folder: Path, **changes: Any) -> None:
    """Write `original` as ChatGLM's repositories hold it."""
    tensors = published_tensors(original)
    tensors["transformer.rotary_pos_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors")
    config = {**published_config(original.config), **changes}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 3, "head_dim": 12, "attention_bias": False},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    ],
)
def test_logits_of_prefill_and_decode_are_those_of_transformers(
    changes: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    original = make_original(seed, **changes)
    publish(original, tmp_path)
    logits = reference_logits(load_model(tmp_path, seq=LENGTH), PROMPT, FOLLOWING)
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


def test_positions_of_chatglm2_32k_are_divided_by_the_ratio(tmp_path: Path) -> None:
    original = make_original(0)
    publish(original, tmp_path, _name_or_path="THUDM/chatglm2-6b-32k", rope_ratio=4)
    table = load_model(tmp_path, seq=9).tables()["transformer.rotary_pos_emb.sin"]
    np.testing.assert_allclose(table[8, 0], np.sin(2.0), rtol=1e-6)
    assert table[8, 10:].tolist() == [0.0] * 10


def test_residuals_after_normalization(tmp_path: Path) -> None:
    publish(make_original(0), tmp_path)
    plain = load_model(tmp_path, seq=LENGTH)
    publish(make_original(0), tmp_path, apply_residual_connection_post_layernorm=True)
    changed = load_model(tmp_path, seq=LENGTH)
    difference = reference_logits(plain, PROMPT, ()) - reference_logits(changed, PROMPT, ())
    assert np.abs(difference).max() > 0.1


def test_a_tied_head_reads_the_embedding(tmp_path: Path) -> None:
    original = make_original(4, tie_word_embeddings=True)
    publish(original, tmp_path, tie_word_embeddings=True)
    model = load_model(tmp_path, seq=LENGTH)
    assert "transformer.output_layer.weight" not in model.shapes
    logits = reference_logits(model, PROMPT, FOLLOWING)
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


def test_no_final_normalization(tmp_path: Path) -> None:
    publish(make_original(0), tmp_path, post_layer_norm=False)
    model = load_model(tmp_path, seq=LENGTH)
    assert "transformer.encoder.final_layernorm.weight" not in model.shapes


@pytest.mark.parametrize("layers", [1, 5])
def test_all_layers_cost_one_call(layers: int, tmp_path: Path) -> None:
    publish(make_original(0), tmp_path, num_layers=layers)
    text = str(load_model(tmp_path, seq=LENGTH).module)
    assert text.count("func.func private") == 2
    assert text.count("top.Call") == 2
    assert text.count("transformer.encoder.layers.") == 2 * layers
    assert text.count("top.Attention") == 2
