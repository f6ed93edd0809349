"""Rules for single weights: what patterns match, which rule holds, and what is said of bad ones."""

from __future__ import annotations

import pytest

from tilewright.compiler.quantization.linear_weights import kind_of
from tilewright.compiler.quantization.rules import QuantRule, assign
from tilewright.dialects.errors import OptionError

LLAMA = [
    f"model.layers.{layer}.{name}.weight"
    for layer in (0, 1, 3, 10)
    for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
]
CHATGLM = [
    f"transformer.encoder.layers.{layer}.{name}.weight"
    for layer in (0, 1, 3, 10)
    for name in ("self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
]
KEYS = [*LLAMA, *CHATGLM, "lm_head.weight", "odd"]


def matched(pattern: str) -> set[str]:
    rule = QuantRule.parse(f"{pattern}=w8a16")
    return {key for key in KEYS if rule.matches(key)}


@pytest.mark.parametrize(
    ("pattern", "part", "count"),
    [
        ("layers.*.mlp.down_proj", ".mlp.down_proj.", 4),
        ("layers.*.mlp.dense_4h_to_h", ".mlp.dense_4h_to_h.", 4),
        ("down_proj", ".down_proj.", 4),
        ("down_proj.weight", ".down_proj.", 4),
        ("model.layers.3.mlp.down_proj.weight", "model.layers.3.mlp.down_proj.", 1),
        ("layers.1.*", "layers.1.", 7),
        ("layers.[13].mlp.*", ".mlp.", 8),
        ("layers.?.self_attention.dense", "self_attention.dense", 3),
        ("lm_head", "lm_head", 1),
        ("odd", "odd", 1),
        ("re:^model\\.", "model.", 16),
        ("re:layers\\.(0|10)\\.mlp", ".mlp.", 8),
        ("re:(?=.*down).*proj", "down_proj", 4),
    ],
)
def test_what_patterns_match(pattern: str, part: str, count: int) -> None:
    keys = matched(pattern)
    assert len(keys) == count
    assert all(part in key for key in keys)


@pytest.mark.parametrize("pattern", ["proj", "layers.*.mlp", "own_proj", "ayers.1.*", "LM_HEAD"])
def test_a_name_is_matched_whole(pattern: str) -> None:
    """From a dot to the end: `1.*` is for layer 1, and not for layer 11 too."""
    assert matched(pattern) == set()


def test_the_last_rule_that_matches_holds() -> None:
    texts = ("layers.*=w4a16", "mlp.*=w8a16-g64", "layers.3.*=f16", "re:gate=w4a16-g64")
    chosen = assign(LLAMA, "w8a16", [QuantRule.parse(text) for text in texts])
    assert chosen["model.layers.0.self_attn.q_proj.weight"] == "w4a16"
    assert chosen["model.layers.0.mlp.down_proj.weight"] == "w8a16-g64"
    assert chosen["model.layers.3.mlp.down_proj.weight"] == "f16"
    assert chosen["model.layers.3.mlp.gate_proj.weight"] == "w4a16", "by its canonical name"
    assert list(chosen) == LLAMA


def test_without_a_rule_the_default_holds() -> None:
    assert assign(["a", "b"], "f8e4m3", [QuantRule.parse("b=f16")]) == {"a": "f8e4m3", "b": "f16"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("w8a16", "this is no rule"),
        ("=w8a16", "this is no rule"),
        ("mlp=", "this is no rule"),
        ("mlp=int4", "unknown quantization 'int4'"),
        ("mlp=w4a16-g60", "multiple of 16"),
        ("re:(=f16", "not a regular expression"),
    ],
)
def test_what_is_no_rule(text: str, said: str) -> None:
    with pytest.raises(OptionError) as raised:
        QuantRule.parse(text)
    assert said in str(raised.value)
    assert f"--quant-rule {text!r}" in str(raised.value)


def test_a_rule_that_matches_nothing_says_what_there_is_and_what_is_near() -> None:
    with pytest.raises(OptionError) as raised:
        assign(LLAMA, "w8a16", [QuantRule.parse("layers.*.mlp.dwn_proj=w8a16")])
    error = raised.value
    assert error.what == "the rule matches no weight"
    assert error.hint is not None
    assert error.hint.startswith("did you mean layers.*.mlp.down_proj")
    assert error.why is not None
    assert "model.layers.*.mlp.gate_proj.weight (4)" in error.why


def test_kinds_put_stars_for_numbers_of_layers_only() -> None:
    assert kind_of("model.layers.31.mlp.w1.weight") == "model.layers.*.mlp.w1.weight"
    assert kind_of("h.0.experts.7.up") == "h.*.experts.*.up"
    assert kind_of("dense_4h_to_h.weight") == "dense_4h_to_h.weight"
