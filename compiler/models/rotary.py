"""Rotary position embedding: the tables of cosines and sines, and how a configuration describes
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np

from tilewright.compiler import dsl
from tilewright.compiler.models.config import Fields
from tilewright.dialects.errors import UnsupportedError

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's change of the frequencies: long waves are slowed by `factor`, with a smooth
    passage.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int

    def apply(self, frequencies: Array) -> Array:
        waves = 2 * pi / frequencies.astype(np.float64)
        smooth = (self.original_positions / waves - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        smooth = np.clip(smooth, 0.0, 1.0)
        scaled = (1 - smooth) * frequencies / self.factor + smooth * frequencies
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding of the first `rotary_dim` of `head_dim` columns, in neighbouring pairs if
    `interleaved`, else halves.
    """

    head_dim: int
    rotary_dim: int
    theta: float
    interleaved: bool
    position_factor: float = 1.0
    """Positions are divided by it (linear scaling)."""
    scaling: Llama3Scaling | None = None

    def angles(self, positions: int) -> Array:
        """The angle of each pair at each position, `[positions, rotary_dim / 2]`, in f32 as in the
        published models.
        """
        exponents = np.arange(0, self.rotary_dim, 2, dtype=np.float32) / np.float32(self.rotary_dim)
        frequencies = np.float32(1) / np.float32(self.theta) ** exponents
        frequencies /= np.float32(self.position_factor)
        if self.scaling is not None:
            frequencies = self.scaling.apply(frequencies)
        return np.outer(np.arange(positions, dtype=np.float32), frequencies)

    def cos(self, positions: int) -> Array:
        """`[positions, head_dim]`; 1 in the columns that are not rotated."""
        return self._spread(np.cos(self.angles(positions)), 1.0)

    def sin(self, positions: int) -> Array:
        """`[positions, head_dim]`; 0 in the columns that are not rotated."""
        return self._spread(np.sin(self.angles(positions)), 0.0)

    def _spread(self, values: Array, rest: float) -> Array:
        table = np.full((len(values), self.head_dim), rest, np.float32)
        spread = np.repeat(values, 2, axis=1) if self.interleaved else np.tile(values, 2)
        table[:, : self.rotary_dim] = spread
        return table


def read_rotary(
    fields: Fields, head_dim: int, positions: int, *, partial: float = 1.0, interleaved: bool
) -> Rotary:
    """RoPE as transformers describes it: `rope_parameters` (version 5), or `rope_theta` and
    `rope_scaling` (before).
    """
    new = fields.has("rope_parameters")
    rope = fields.child("rope_parameters" if new else "rope_scaling")
    theta = (rope if rope.has("rope_theta") else fields).number("rope_theta", 10000.0)
    factors = rope if rope.has("partial_rotary_factor") else fields
    rotary_dim = int(head_dim * factors.number("partial_rotary_factor", partial))
    fields.require(
        0 < rotary_dim <= head_dim and rotary_dim % 2 == 0,
        f"{rotary_dim} of a head's {head_dim} columns are rotated, but they go in pairs",
    )
    kind = rope.text("rope_type", rope.text("type", "default"))
    position_factor, scaling = 1.0, None
    if kind == "linear":
        position_factor = rope.number("factor")
    elif kind == "llama3":
        scaling = Llama3Scaling(
            rope.number("factor"),
            rope.number("low_freq_factor"),
            rope.number("high_freq_factor"),
            rope.size("original_max_position_embeddings", positions),
        )
        fields.require(
            scaling.high_freq_factor > scaling.low_freq_factor,
            "high_freq_factor is not above low_freq_factor",
        )
    elif kind != "default":
        raise UnsupportedError(
            f"RoPE of type {kind!r} is not supported",
            where=fields.source,
            hint="supported: default, linear, llama3",
        )
    return Rotary(head_dim, rotary_dim, theta, interleaved, position_factor, scaling)


class RotaryEmbedding(dsl.Module):
    """The rows of the tables of cosines and sines for given positions."""

    def __init__(self, rotary: Rotary, positions: int) -> None:
        self.cos = dsl.Table(lambda: rotary.cos(positions), positions, rotary.head_dim)
        self.sin = dsl.Table(lambda: rotary.sin(positions), positions, rotary.head_dim)

    def forward(self, position_ids: dsl.Operand) -> tuple[dsl.Tensor, dsl.Tensor]:
        return dsl.gather(self.cos, position_ids), dsl.gather(self.sin, position_ids)
