"""GLM-4 in the layout of transformers (`model_type: glm`).

Llama with RoPE on part of each head in neighbouring pairs, biases on queries, keys and values, and
one matrix for the gate and the up projection.

Source: `transformers/models/glm/modeling_glm.py`.
"""

from __future__ import annotations

from typing import ClassVar

from tilewright.compiler import dsl
from tilewright.compiler.models.config import Fields
from tilewright.compiler.models.llama import DecoderConfig, DecoderLayer, Llama, read_decoder

PARTIAL_ROTARY_FACTOR = 0.5
"""The rotated part of a head unless the configuration says otherwise."""


class MLP(dsl.Module):
    """SwiGLU; the first half of `gate_up_proj` is the gate."""

    def __init__(self, config: DecoderConfig) -> None:
        hidden, self.inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = dsl.Linear(hidden, 2 * self.inner)
        self.down_proj = dsl.Linear(self.inner, hidden)

    def forward(self, x: dsl.Operand) -> dsl.Tensor:
        h = self.gate_up_proj(x)
        return self.down_proj(dsl.silu(h[:, : self.inner]) * h[:, self.inner :])


class GLM4Layer(DecoderLayer):
    """A decoder layer with its KV caches."""

    def make_mlp(self, config: DecoderConfig) -> dsl.Module:
        return MLP(config)


class GLM4(Llama):
    """GLM-4 for `positions` positions."""

    ARCHITECTURE: ClassVar[str] = "glm"
    layer_class: ClassVar[type[DecoderLayer]] = GLM4Layer

    def read_config(self, fields: Fields, positions: int) -> DecoderConfig:
        return read_decoder(
            fields,
            qkv_bias=fields.flag("attention_bias", True),
            out_bias=False,
            mlp_bias=False,
            partial_rotary=PARTIAL_ROTARY_FACTOR,
            interleaved=True,
        )
