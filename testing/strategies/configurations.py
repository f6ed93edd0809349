"""Quantization schemes, and whole configurations of a quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tilewright.dialects.quantization import CodeFormat, Scheme
from tilewright.testing.formats import BFLOAT16
from tilewright.testing.strategies.shapes import matrix_shapes

_GROUPS = (0, 16, 32, 64, 128)
_FLOATS = (np.dtype(np.float16), BFLOAT16.dtype, np.dtype(np.float32))


@st.composite
def schemes(
    draw: st.DrawFn, *, formats: tuple[CodeFormat, ...] = tuple(CodeFormat), grouped: bool = True
) -> Scheme:
    """Schemes of this compiler: int8 and int4, symmetric and with zero points, 8-bit floats, per
    channel and in groups. Each has a name (`Scheme.name`) and can be parsed from it.

        @given(schemes())
        def test_names(scheme):
            assert parse_scheme(scheme.name) == scheme
    """
    code = draw(st.sampled_from(formats))
    group = draw(st.sampled_from(_GROUPS)) if grouped else 0
    zero_point = code is CodeFormat.U4 or (code is CodeFormat.I8 and draw(st.booleans()))
    return Scheme(code, group, zero_point)


@dataclass(frozen=True)
class QuantizerConfig:
    """What a quantizer is asked for: the scheme, the type that scales are stored in, that of the
    weights, and the weight's shape `(N, K)`, which fits the scheme.
    """

    scheme: Scheme
    scale: np.dtype[Any]
    weight: np.dtype[Any]
    shape: tuple[int, int]


@st.composite
def quantizer_configs(draw: st.DrawFn) -> QuantizerConfig:
    """Any scheme with scales in f16, bf16 or f32, weights in any of them, and a shape that fits.

    @given(quantizer_configs())
    def test_shapes(config): ...
    """
    scheme = draw(schemes())
    scale, weight = draw(st.sampled_from(_FLOATS)), draw(st.sampled_from(_FLOATS))
    return QuantizerConfig(scheme, scale, weight, draw(matrix_shapes(scheme)))
