"""Qwen2 and Qwen2.5 (`model_type: qwen2`): Llama with biases on queries, keys and values.

Source: `transformers/models/qwen2/modeling_qwen2.py`.
"""

from __future__ import annotations

from typing import ClassVar

from tilewright.compiler.models.config import Fields
from tilewright.compiler.models.llama import DecoderConfig, Llama, read_decoder
from tilewright.dialects.errors import UnsupportedError


class Qwen2(Llama):
    """Qwen2 for `positions` positions."""

    ARCHITECTURE: ClassVar[str] = "qwen2"

    def read_config(self, fields: Fields, positions: int) -> DecoderConfig:
        if fields.flag("use_sliding_window", False):
            window = fields.size("sliding_window", 4096)
            if positions > window:
                raise UnsupportedError(
                    f"a sliding window of {window} positions is not supported",
                    where=fields.source,
                    hint=f"up to {window} positions it makes no difference",
                )
        return read_decoder(fields, qkv_bias=True, out_bias=False, mlp_bias=False)
