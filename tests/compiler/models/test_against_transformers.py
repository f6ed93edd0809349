"""The models of transformers with random weights, saved by transformers and imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compiler.models.harness import (
    randomize,
    reference_logits,
    transformers_logits,
)
from transformers import (
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tilewright.compiler.importers.huggingface import load_model

PROMPT = (5, 3, 99, 17, 3, 0, 42)
FOLLOWING = (7, 7, 101, 1)
LENGTH = 13
TOLERANCE = 1e-6
"""Both compute in float64; the RoPE tables are f32 in both."""

ODD: dict[str, Any] = {
    "vocab_size": 133,
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
UNGROUPED: dict[str, Any] = {**ODD, "num_key_value_heads": 6}
GLM_EXTRA: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": [1, 2]}

CASES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**ODD)),
    "llama-wide-heads": (LlamaForCausalLM, LlamaConfig(**ODD, head_dim=20, rms_norm_eps=1e-5)),
    "llama-biases": (LlamaForCausalLM, LlamaConfig(**ODD, attention_bias=True, mlp_bias=True)),
    "llama-tied": (LlamaForCausalLM, LlamaConfig(**ODD, tie_word_embeddings=True)),
    "llama-theta": (
        LlamaForCausalLM,
        LlamaConfig(**ODD, rope_parameters={"rope_type": "default", "rope_theta": 77.0}),
    ),
    "llama-linear": (
        LlamaForCausalLM,
        LlamaConfig(**ODD, rope_parameters={"rope_type": "linear", "factor": 2.5}),
    ),
    "llama3": (LlamaForCausalLM, LlamaConfig(**ODD, rope_parameters=LLAMA3_ROPE)),
    "llama-ungrouped": (LlamaForCausalLM, LlamaConfig(**UNGROUPED)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**ODD)),
    "qwen2-tied": (Qwen2ForCausalLM, Qwen2Config(**ODD, tie_word_embeddings=True)),
    "qwen2-window": (
        Qwen2ForCausalLM,
        Qwen2Config(**ODD, use_sliding_window=True, sliding_window=13, max_window_layers=1),
    ),
    "glm": (GlmForCausalLM, GlmConfig(**ODD, **GLM_EXTRA, head_dim=20)),
    "glm-multi-query": (
        GlmForCausalLM,
        GlmConfig(**{**ODD, "num_key_value_heads": 3}, **GLM_EXTRA, head_dim=12),
    ),
    "glm-no-bias": (
        GlmForCausalLM,
        GlmConfig(**ODD, **GLM_EXTRA, head_dim=8, attention_bias=False),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_of_prefill_and_decode_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model_class, config = CASES[name]
    original = randomize(model_class(config), seed=len(name))
    original.save_pretrained(tmp_path)
    logits = reference_logits(load_model(tmp_path, seq=LENGTH), PROMPT, FOLLOWING)
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


def test_a_sharded_checkpoint_gives_the_same_logits(tmp_path: Path) -> None:
    model_class, config = CASES["qwen2"]
    original = randomize(model_class(config), seed=1)
    original.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    logits = reference_logits(load_model(tmp_path, seq=LENGTH), PROMPT, FOLLOWING)
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


def test_the_length_of_the_program_does_not_change_the_logits(tmp_path: Path) -> None:
    model_class, config = CASES["glm"]
    randomize(model_class(config), seed=2).save_pretrained(tmp_path)
    short, long = (
        reference_logits(load_model(tmp_path, seq=seq), PROMPT, FOLLOWING) for seq in (11, 30)
    )
    np.testing.assert_allclose(short, long, rtol=0, atol=1e-9)
