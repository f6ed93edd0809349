"""ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B in the layout in which they were published (`model_type:
chatglm`).

A decoder with RMSNorm, grouped keys and values, RoPE on the first half of each head in neighbouring
pairs, and SwiGLU; one matrix makes queries, keys and values, one the gate and the up projection.

Source: `modeling_chatglm.py` in the repositories THUDM/chatglm2-6b, THUDM/chatglm3-6b and
THUDM/glm-4-9b-chat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tilewright.compiler import dsl
from tilewright.compiler.models.causal_lm import CausalLM, ModelSummary, Positions
from tilewright.compiler.models.config import Fields
from tilewright.compiler.models.rotary import Rotary, RotaryEmbedding
from tilewright.dialects.errors import UnsupportedError

ROPE_THETA = 10000.0
"""The base of RoPE before `rope_ratio`; not a field of the configuration."""


@dataclass(frozen=True)
class ChatGLMConfig:
    """The fields of `config.json` that matter, under its names."""

    num_layers: int
    padded_vocab_size: int
    hidden_size: int
    ffn_hidden_size: int
    kv_channels: int
    num_attention_heads: int
    multi_query_group_num: int
    layernorm_epsilon: float
    add_qkv_bias: bool
    add_bias_linear: bool
    apply_residual_connection_post_layernorm: bool
    post_layer_norm: bool
    tie_word_embeddings: bool
    seq_length: int
    rotary: Rotary
    eos_token_ids: tuple[int, ...]

    @classmethod
    def read(cls, fields: Fields) -> ChatGLMConfig:
        """Raises `ModelReadError` for missing or contradicting fields, `UnsupportedError` for
        settings that are unknown.
        """
        if fields.has("position_encoding_2d") or fields.has("inner_hidden_size"):
            raise UnsupportedError(
                "the first ChatGLM-6B is not supported",
                where=fields.source,
                hint="ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B are",
            )
        fields.require_supported("rmsnorm", True, True)
        fields.require_supported("multi_query_attention", True, False)
        fields.require_supported("pre_seq_len", None, None)
        fields.require_supported("quantization_bit", 0, 0)
        hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
        groups = fields.size("multi_query_group_num")
        if not fields.has("kv_channels"):
            fields.require(
                hidden % heads == 0,
                f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}",
            )
        head_dim = fields.size("kv_channels", hidden // heads)
        fields.require(
            heads % groups == 0,
            f"num_attention_heads {heads} is not a multiple of multi_query_group_num {groups}",
        )
        fields.require(head_dim % 4 == 0, f"kv_channels {head_dim} is not a multiple of 4")
        return cls(
            num_layers=fields.size("num_layers"),
            padded_vocab_size=fields.size("padded_vocab_size"),
            hidden_size=hidden,
            ffn_hidden_size=fields.size("ffn_hidden_size"),
            kv_channels=head_dim,
            num_attention_heads=heads,
            multi_query_group_num=groups,
            layernorm_epsilon=fields.number("layernorm_epsilon"),
            add_qkv_bias=fields.flag("add_qkv_bias", False),
            add_bias_linear=fields.flag("add_bias_linear", False),
            apply_residual_connection_post_layernorm=fields.flag(
                "apply_residual_connection_post_layernorm", False
            ),
            post_layer_norm=fields.flag("post_layer_norm", True),
            tie_word_embeddings=fields.flag("tie_word_embeddings", False),
            seq_length=fields.size("seq_length"),
            rotary=_read_rotary(fields, head_dim),
            eos_token_ids=fields.numbers("eos_token_id"),
        )


def _read_rotary(fields: Fields, head_dim: int) -> Rotary:
    """`rope_ratio` multiplies the base, except in chatglm2-6b-32k, whose code divides the positions
    by it.
    """
    ratio = fields.number("rope_ratio", 1.0)
    theta, position_factor = ROPE_THETA * ratio, 1.0
    if "chatglm2" in fields.text("_name_or_path", "").lower():
        theta, position_factor = ROPE_THETA, ratio
    return Rotary(head_dim, head_dim // 2, theta, True, position_factor)


class SelfAttention(dsl.Module):
    """Grouped attention; one matrix makes the queries of all heads, then the keys, then the values
    of all groups.
    """

    def __init__(self, config: ChatGLMConfig) -> None:
        self.heads = config.num_attention_heads
        self.groups = config.multi_query_group_num
        self.q_size = self.heads * config.kv_channels
        self.kv_size = self.groups * config.kv_channels
        self.rotary_dim = config.rotary.rotary_dim
        self.query_key_value = dsl.Linear(
            config.hidden_size,
            self.q_size + 2 * self.kv_size,
            bias=config.add_qkv_bias or config.add_bias_linear,
        )
        self.dense = dsl.Linear(self.q_size, config.hidden_size, bias=config.add_bias_linear)

    def forward(
        self, x: dsl.Operand, at: Positions, k_cache: dsl.State, v_cache: dsl.State
    ) -> dsl.Tensor:
        qkv = self.query_key_value(x)
        q = qkv[:, : self.q_size]
        k = qkv[:, self.q_size : self.q_size + self.kv_size]
        v = qkv[:, self.q_size + self.kv_size :]
        q = self.rope(q, at, self.heads)
        k = dsl.cache_update(k_cache, self.rope(k, at, self.groups), at.ids)
        v = dsl.cache_update(v_cache, v, at.ids)
        y = dsl.attention(q, k, v, at.mask, num_heads=self.heads, num_kv_heads=self.groups)
        return self.dense(y)

    def rope(self, x: dsl.Operand, at: Positions, heads: int) -> dsl.Tensor:
        return dsl.rope(
            x, at.cos, at.sin, num_heads=heads, rotary_dim=self.rotary_dim, interleaved=True
        )


class MLP(dsl.Module):
    """SwiGLU; the first half of `dense_h_to_4h` is the gate."""

    def __init__(self, config: ChatGLMConfig) -> None:
        hidden, inner, bias = config.hidden_size, config.ffn_hidden_size, config.add_bias_linear
        self.inner = inner
        self.dense_h_to_4h = dsl.Linear(hidden, 2 * inner, bias=bias)
        self.dense_4h_to_h = dsl.Linear(inner, hidden, bias=bias)

    def forward(self, x: dsl.Operand) -> dsl.Tensor:
        h = self.dense_h_to_4h(x)
        return self.dense_4h_to_h(dsl.silu(h[:, : self.inner]) * h[:, self.inner :])


class GLMBlock(dsl.Module):
    """A decoder layer with its KV caches."""

    outlined = True

    def __init__(self, config: ChatGLMConfig, positions: int) -> None:
        hidden, eps = config.hidden_size, config.layernorm_epsilon
        kv_size = config.multi_query_group_num * config.kv_channels
        self.normalized_residual = config.apply_residual_connection_post_layernorm
        self.k_cache = dsl.State(positions, kv_size)
        self.v_cache = dsl.State(positions, kv_size)
        self.input_layernorm = dsl.RMSNorm(hidden, eps=eps)
        self.self_attention = SelfAttention(config)
        self.post_attention_layernorm = dsl.RMSNorm(hidden, eps=eps)
        self.mlp = MLP(config)

    def forward(self, x: dsl.Operand, at: Positions) -> dsl.Tensor:
        h = self.input_layernorm(x)
        y = self.self_attention(h, at, self.k_cache, self.v_cache)
        x = (h if self.normalized_residual else x) + y
        h = self.post_attention_layernorm(x)
        return (h if self.normalized_residual else x) + self.mlp(h)


class Embedding(dsl.Module):
    """The word embeddings."""

    def __init__(self, config: ChatGLMConfig) -> None:
        self.word_embeddings = dsl.Embedding(config.padded_vocab_size, config.hidden_size)

    def forward(self, input_ids: dsl.Operand) -> dsl.Tensor:
        return self.word_embeddings(input_ids)


class Encoder(dsl.Module):
    """The decoder layers."""

    def __init__(self, config: ChatGLMConfig, positions: int) -> None:
        self.layers = [GLMBlock(config, positions) for _ in range(config.num_layers)]
        self.final_layernorm = None
        if config.post_layer_norm:
            self.final_layernorm = dsl.RMSNorm(config.hidden_size, eps=config.layernorm_epsilon)

    def forward(self, x: dsl.Operand, at: Positions) -> dsl.Operand:
        for layer in self.layers:
            x = layer(x, at)
        return x


class Transformer(dsl.Module):
    """Everything that a checkpoint holds."""

    def __init__(self, config: ChatGLMConfig, positions: int) -> None:
        self.embedding = Embedding(config)
        self.rotary_pos_emb = RotaryEmbedding(config.rotary, positions)
        self.encoder = Encoder(config, positions)
        self.output_layer = dsl.Linear(config.hidden_size, config.padded_vocab_size, role="head")
        if config.tie_word_embeddings:
            self.output_layer.weight = self.embedding.word_embeddings.weight


class ChatGLM(CausalLM):
    """ChatGLM for `positions` positions."""

    IGNORED: ClassVar[tuple[str, ...]] = ("transformer.rotary_pos_emb.inv_freq",)
    """Tensors of published checkpoints that are not read."""

    def __init__(self, fields: Fields, positions: int) -> None:
        config = ChatGLMConfig.read(fields)
        super().__init__(
            ModelSummary(
                architecture="chatglm",
                layers=config.num_layers,
                hidden_size=config.hidden_size,
                heads=config.num_attention_heads,
                kv_heads=config.multi_query_group_num,
                head_dim=config.kv_channels,
                vocab_size=config.padded_vocab_size,
                max_positions=config.seq_length,
                positions=positions,
                eos_token_ids=config.eos_token_ids,
            )
        )
        self.transformer = Transformer(config, positions)
        self.ignorable = self.IGNORED
        if config.tie_word_embeddings:
            self.ignorable = (*self.IGNORED, "transformer.output_layer.weight")

    def hidden_states(
        self, input_ids: dsl.Operand, position_ids: dsl.Operand, attention_mask: dsl.Operand
    ) -> dsl.Tensor:
        cos, sin = self.transformer.rotary_pos_emb(position_ids)
        at = Positions(position_ids, cos, sin, attention_mask)
        return self.transformer.encoder(self.transformer.embedding(input_ids), at)

    def logits(self, hidden: dsl.Operand) -> dsl.Tensor:
        norm = self.transformer.encoder.final_layernorm
        return self.transformer.output_layer(hidden if norm is None else norm(hidden))
