"""What all language models share: the functions `prefill` and `decode` around a stack of layers.

A model holds `positions` positions at most. Its KV caches have that many rows, prompts are padded
on the right to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler import dsl


@dataclass(frozen=True)
class ModelSummary:
    """A language model in numbers."""

    architecture: str
    """`model_type` of the configuration."""
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    """Positions that the model was made for."""
    positions: int
    """Positions that this program holds."""
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Positions:
    """What every layer needs to know of the tokens' places."""

    ids: dsl.Operand
    """i32[S]: where the rows go in the KV caches."""
    cos: dsl.Operand
    sin: dsl.Operand
    """The RoPE tables' rows, f32[S, D]."""
    mask: dsl.Operand
    """[S, L]: 0 where a position may look, the lowest finite value where not."""


class CausalLM(dsl.Module, ABC):
    """The base of the language models. Subclasses give `hidden_states` and `logits`."""

    ignorable: tuple[str, ...] = ()
    """Patterns of tensors that checkpoints may hold and that are not read."""

    def __init__(self, summary: ModelSummary) -> None:
        self.summary = summary

    @abstractmethod
    def hidden_states(
        self, input_ids: dsl.Operand, position_ids: dsl.Operand, attention_mask: dsl.Operand
    ) -> dsl.Tensor:
        """The output of the last layer, `[S, hidden]`."""

    @abstractmethod
    def logits(self, hidden: dsl.Operand) -> dsl.Tensor:
        """Final normalization and output head: `[S, vocabulary]`."""

    def prefill(
        self,
        input_ids: dsl.Operand,
        position_ids: dsl.Operand,
        attention_mask: dsl.Operand,
        last_position: dsl.Operand,
    ) -> dsl.Tensor:
        """Logits after a prompt; fills the KV caches. Only the prompt's last row goes through the
        head.
        """
        hidden = self.hidden_states(input_ids, position_ids, attention_mask)
        return self.logits(dsl.gather(hidden, last_position)).named("logits")

    def decode(
        self, input_ids: dsl.Operand, position_ids: dsl.Operand, attention_mask: dsl.Operand
    ) -> dsl.Tensor:
        """Logits after one more token; adds a row to the KV caches."""
        hidden = self.hidden_states(input_ids, position_ids, attention_mask)
        return self.logits(hidden).named("logits")

    def trace(self) -> ModuleOp:
        """The `top` module with `prefill` and `decode`."""
        length = self.summary.positions
        prefill = dsl.function(
            input_ids=dsl.i32(length),
            position_ids=dsl.i32(length),
            attention_mask=dsl.f32(length, length),
            last_position=dsl.i32(1),
        )
        decode = dsl.function(
            input_ids=dsl.i32(1), position_ids=dsl.i32(1), attention_mask=dsl.f32(1, length)
        )
        return dsl.trace(prefill(self.prefill), decode(self.decode))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors that a checkpoint must hold."""
        return {key: leaf.shape for key, leaf in self.leaves() if isinstance(leaf, dsl.Parameter)}

    def tables(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The weights that are computed rather than read, computed now."""
        return {key: leaf.compute() for key, leaf in self.leaves() if isinstance(leaf, dsl.Table)}
