"""Conditions compare as patterns do: floats in f32."""

from __future__ import annotations

import pytest
from tests.passes.rules.support import function, rewrite

X = "tensor<4x8xf32>"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("value == 0.1", True),
        ("0.1 == value", True),
        ("value != 0.1", False),
        ("value in [0.2, 0.1]", True),
        ("value in [0.2, 0.3]", False),
        ("[value, 2] == [0.1, 2]", True),
        ("[value, 2] == [0.1, 3]", False),
        ("[value] == [0.1, 2]", False),
        ("value <= 0.1 and value >= 0.1", True),
        ("value < 0.1 or value > 0.1", False),
        ("value > 0 and value < 1", True),
        ("value == 0.1000001", False),
        ("value + dim(x, 0) == 4.1 and dim(x, 0) < 4.5", True),
    ],
)
def test_a_captured_float_against_a_literal(condition: str, holds: bool) -> None:
    """The attribute holds f32(0.1), which is larger than 0.1."""
    text = f"""rule R {{
      match {{ y = top.MulConst(x) {{value: value}} }}
      where {condition}
      replace y with top.Relu(x)
    }}"""
    module = function(f"%y = top.MulConst %x {{value = 0.1 : f32}} : {X} -> {X}")
    assert rewrite(text, module) == int(holds)


def test_whole_numbers_are_compared_exactly() -> None:
    """f32 does not tell 2^24 from 2^24 + 1."""
    module = function(f"%y = top.Neg %x : {X} -> {X}")
    text = """rule R {
      match { y = top.Neg(x) }
      where CONDITION
      replace y with top.Relu(x)
    }"""
    assert rewrite(text.replace("CONDITION", "16777216 == 16777217"), module) == 0
    assert rewrite(text.replace("CONDITION", "16777216 < 16777217"), module) == 1
