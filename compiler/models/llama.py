"""Llama 2 and 3, and what its relatives share with it (`model_type: llama`).

A decoder with RMSNorm, grouped keys and values, RoPE over halves of each head, and SwiGLU; queries,
keys and values have a matrix each, and so have gate and up projection.

Source: `transformers/models/llama/modeling_llama.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tilewright.compiler import dsl
from tilewright.compiler.models.causal_lm import CausalLM, ModelSummary, Positions
from tilewright.compiler.models.config import Fields
from tilewright.compiler.models.rotary import Rotary, RotaryEmbedding, read_rotary


@dataclass(frozen=True)
class DecoderConfig:
    """The fields of `config.json` that Llama, Qwen2 and GLM-4 share, and which layers have bias."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    rotary: Rotary
    eos_token_ids: tuple[int, ...]

    @property
    def kv_size(self) -> int:
        """Columns of the keys, and of the values, of a position."""
        return self.num_key_value_heads * self.head_dim

    def summary(self, architecture: str, positions: int) -> ModelSummary:
        return ModelSummary(
            architecture=architecture,
            layers=self.num_hidden_layers,
            hidden_size=self.hidden_size,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            max_positions=self.max_position_embeddings,
            positions=positions,
            eos_token_ids=self.eos_token_ids,
        )


def read_decoder(
    fields: Fields,
    *,
    qkv_bias: bool,
    out_bias: bool,
    mlp_bias: bool,
    partial_rotary: float = 1.0,
    interleaved: bool = False,
) -> DecoderConfig:
    """Raises `ModelReadError` for missing or contradicting fields, else `UnsupportedError`."""
    fields.require_supported("hidden_act", "silu", "silu")
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    groups = fields.size("num_key_value_heads", heads)
    if not fields.has("head_dim"):
        fields.require(
            hidden % heads == 0,
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}",
        )
    head_dim = fields.size("head_dim", hidden // heads)
    fields.require(
        heads % groups == 0,
        f"num_attention_heads {heads} is not a multiple of num_key_value_heads {groups}",
    )
    positions = fields.size("max_position_embeddings")
    rotary = read_rotary(
        fields, head_dim, positions, partial=partial_rotary, interleaved=interleaved
    )
    return DecoderConfig(
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.size("intermediate_size"),
        num_hidden_layers=fields.size("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps"),
        max_position_embeddings=positions,
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        mlp_bias=mlp_bias,
        rotary=rotary,
        eos_token_ids=fields.numbers("eos_token_id"),
    )


class SelfAttention(dsl.Module):
    """Grouped attention with separate projections."""

    def __init__(self, config: DecoderConfig) -> None:
        hidden, q_size = config.hidden_size, config.num_attention_heads * config.head_dim
        self.heads = config.num_attention_heads
        self.groups = config.num_key_value_heads
        self.rotary = config.rotary
        self.q_proj = dsl.Linear(hidden, q_size, bias=config.qkv_bias)
        self.k_proj = dsl.Linear(hidden, config.kv_size, bias=config.qkv_bias)
        self.v_proj = dsl.Linear(hidden, config.kv_size, bias=config.qkv_bias)
        self.o_proj = dsl.Linear(q_size, hidden, bias=config.out_bias)

    def forward(
        self, x: dsl.Operand, at: Positions, k_cache: dsl.State, v_cache: dsl.State
    ) -> dsl.Tensor:
        q = self.rope(self.q_proj(x), at, self.heads)
        k = dsl.cache_update(k_cache, self.rope(self.k_proj(x), at, self.groups), at.ids)
        v = dsl.cache_update(v_cache, self.v_proj(x), at.ids)
        y = dsl.attention(q, k, v, at.mask, num_heads=self.heads, num_kv_heads=self.groups)
        return self.o_proj(y)

    def rope(self, x: dsl.Operand, at: Positions, heads: int) -> dsl.Tensor:
        return dsl.rope(
            x,
            at.cos,
            at.sin,
            num_heads=heads,
            rotary_dim=self.rotary.rotary_dim,
            interleaved=self.rotary.interleaved,
        )


class MLP(dsl.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig) -> None:
        hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = dsl.Linear(hidden, inner, bias=bias)
        self.up_proj = dsl.Linear(hidden, inner, bias=bias)
        self.down_proj = dsl.Linear(inner, hidden, bias=bias)

    def forward(self, x: dsl.Operand) -> dsl.Tensor:
        return self.down_proj(dsl.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(dsl.Module):
    """A decoder layer with its KV caches."""

    outlined = True

    def __init__(self, config: DecoderConfig, positions: int) -> None:
        self.k_cache = dsl.State(positions, config.kv_size)
        self.v_cache = dsl.State(positions, config.kv_size)
        self.input_layernorm = dsl.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = dsl.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = self.make_mlp(config)

    def make_mlp(self, config: DecoderConfig) -> dsl.Module:
        """For relatives of Llama that differ in it."""
        return MLP(config)

    def forward(self, x: dsl.Operand, at: Positions) -> dsl.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), at, self.k_cache, self.v_cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(dsl.Module):
    """Embedding, layers and final normalization."""

    def __init__(
        self, config: DecoderConfig, positions: int, layer_class: type[DecoderLayer]
    ) -> None:
        self.embed_tokens = dsl.Embedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = RotaryEmbedding(config.rotary, positions)
        self.layers = [layer_class(config, positions) for _ in range(config.num_hidden_layers)]
        self.norm = dsl.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Llama(CausalLM):
    """Llama for `positions` positions."""

    IGNORED: ClassVar[tuple[str, ...]] = (
        "model.rotary_emb.inv_freq",
        "model.layers.*.self_attn.rotary_emb.inv_freq",
    )
    """Tensors of published checkpoints that are not read."""
    ARCHITECTURE: ClassVar[str] = "llama"
    layer_class: ClassVar[type[DecoderLayer]] = DecoderLayer

    def __init__(self, fields: Fields, positions: int) -> None:
        config = self.read_config(fields, positions)
        super().__init__(config.summary(self.ARCHITECTURE, positions))
        self.ignorable = self.IGNORED
        self.model = Decoder(config, positions, self.layer_class)
        self.lm_head = dsl.Linear(config.hidden_size, config.vocab_size, role="head")
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
            self.ignorable = (*self.IGNORED, "lm_head.weight")

    def read_config(self, fields: Fields, positions: int) -> DecoderConfig:
        """The configuration of this architecture."""
        bias = fields.flag("attention_bias", False)
        return read_decoder(
            fields, qkv_bias=bias, out_bias=bias, mlp_bias=fields.flag("mlp_bias", False)
        )

    def hidden_states(
        self, input_ids: dsl.Operand, position_ids: dsl.Operand, attention_mask: dsl.Operand
    ) -> dsl.Tensor:
        cos, sin = self.model.rotary_emb(position_ids)
        at = Positions(position_ids, cos, sin, attention_mask)
        x = self.model.embed_tokens(input_ids)
        for layer in self.model.layers:
            x = layer(x, at)
        return x

    def logits(self, hidden: dsl.Operand) -> dsl.Tensor:
        return self.lm_head(self.model.norm(hidden))
