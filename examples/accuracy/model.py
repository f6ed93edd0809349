"""A small language model in PyTorch, in the architecture and with the tensor names of ChatGLM2.

Pre-normalization by RMSNorm, grouped keys and values, RoPE on the first half of each head in
neighbouring pairs, SwiGLU. It shares no code with the compiler: what the simulated TPU computes is
held against it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CONFIG: dict[str, Any] = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "num_layers": 4,
    "padded_vocab_size": 128,
    "hidden_size": 256,
    "ffn_hidden_size": 512,
    "kv_channels": 32,
    "num_attention_heads": 8,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "layernorm_epsilon": 1e-05,
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "apply_residual_connection_post_layernorm": False,
    "seq_length": 1024,
    "tie_word_embeddings": False,
    "eos_token_id": 0,
}
ROPE_THETA = 10000.0


class Attention(nn.Module):
    """Queries of all heads, then keys and values of the groups, of one matrix."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.heads = config["num_attention_heads"]
        self.groups = config["multi_query_group_num"]
        self.size = config["kv_channels"]
        width = (self.heads + 2 * self.groups) * self.size
        self.query_key_value = nn.Linear(config["hidden_size"], width, bias=config["add_qkv_bias"])
        self.dense = nn.Linear(self.heads * self.size, config["hidden_size"], bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        sizes = [self.heads, self.groups, self.groups]
        parts = self.query_key_value(x).split([n * self.size for n in sizes], dim=-1)
        q, k, v = (
            part.view(batch, length, n, self.size).transpose(1, 2)
            for part, n in zip(parts, sizes, strict=True)
        )
        repeat = self.heads // self.groups
        k, v = rotate(k).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = functional.scaled_dot_product_attention(rotate(q), k, v, is_causal=True)
        return self.dense(y.transpose(1, 2).reshape(batch, length, -1))


def rotate(x: Tensor) -> Tensor:
    """RoPE on `[B, H, S, D]`: pairs of the first D/2 columns turn, each at a speed of its own."""
    length, size = x.shape[-2:]
    turned = size // 2
    exponents = torch.arange(0, turned, 2, dtype=torch.float32) / turned
    angles = torch.outer(torch.arange(length, dtype=torch.float32), ROPE_THETA**-exponents)
    cos, sin = angles.cos(), angles.sin()
    even, odd = x[..., 0:turned:2], x[..., 1:turned:2]
    pairs = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return torch.cat((pairs.flatten(-2), x[..., turned:]), dim=-1)


class MLP(nn.Module):
    """SwiGLU; the first half of `dense_h_to_4h` is the gate."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["ffn_hidden_size"]
        self.dense_h_to_4h = nn.Linear(hidden, 2 * inner, bias=False)
        self.dense_4h_to_h = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.dense_h_to_4h(x).chunk(2, dim=-1)
        return self.dense_4h_to_h(functional.silu(gate) * up)


class Layer(nn.Module):
    """A decoder layer."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config["layernorm_epsilon"]
        self.input_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.self_attention = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attention(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Embedding(nn.Module):
    """The word embeddings."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config["padded_vocab_size"], config["hidden_size"])


class Encoder(nn.Module):
    """The decoder layers."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_layers"]))
        self.final_layernorm = nn.RMSNorm(config["hidden_size"], eps=config["layernorm_epsilon"])


class Transformer(nn.Module):
    """Everything that a checkpoint holds."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embedding = Embedding(config)
        self.encoder = Encoder(config)
        self.output_layer = nn.Linear(
            config["hidden_size"], config["padded_vocab_size"], bias=False
        )


class LanguageModel(nn.Module):
    """Token ids `[B, S]` to logits `[B, S, V]`."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.transformer = Transformer(config)
        depth = config["num_layers"]
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("dense.weight", "4h_to_h.weight"))
                nn.init.normal_(parameter, std=0.02 / ((2 * depth) ** 0.5 if residual else 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.transformer.embedding.word_embeddings(ids)
        for layer in self.transformer.encoder.layers:
            x = layer(x)
        return self.transformer.output_layer(self.transformer.encoder.final_layernorm(x))
