"""Small language models with random weights, compiled in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.executable import Executable, compile_module
from tilewright.compiler.importers.huggingface import build_model
from tilewright.compiler.importers.synthetic import CHATGLM_DEMO
from tilewright.compiler.models.causal_lm import CausalLM
from tilewright.compiler.models.config import Fields
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.runtime import LanguageModelSession, Session

Array = npt.NDArray[Any]

TINY_CHATGLM: dict[str, Any] = {
    **CHATGLM_DEMO,
    "num_layers": 3,
    "padded_vocab_size": 200,
    "hidden_size": 96,
    "ffn_hidden_size": 136,
    "kv_channels": 16,
    "num_attention_heads": 6,
}
TINY_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 151,
    "hidden_size": 60,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 12,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}


def model_of(config: Mapping[str, Any], seq: int) -> CausalLM:
    return build_model(Fields(dict(config), "config.json"), seq)


def random_weights(model: CausalLM, seed: int = 0) -> dict[str, Array]:
    """Matrices that keep the size of activations, biases around 0, factors around 1."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for key, shape in model.shapes().items():
        values = rng.standard_normal(shape)
        if len(shape) == 2:
            values = values / shape[1] ** 0.5
        else:
            values = 0.1 * values + (0.0 if key.endswith("bias") else 1.0)
        weights[key] = values.astype(np.float32)
    return {**weights, **model.tables()}


def executable_of(config: Mapping[str, Any], options: CompileOptions, seq: int) -> Executable:
    model = model_of(config, seq)
    return compile_module(model.trace(), random_weights(model), options)


def language_model(executable: Executable, session: Session | None = None) -> LanguageModelSession:
    (head,) = [
        port for f in executable.program.functions if f.name == "prefill" for port in f.outputs
    ]
    return LanguageModelSession(session or executable.session, head.shape[-1])
