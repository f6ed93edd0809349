"""Which weight gets which scheme: options, table, rules; and what is refused, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.compiler.small_models import TINY_LLAMA, model_of

from tilewright.backends.chip import load_chip
from tilewright.compiler.pipeline import CompileOptions, build_program, chosen_schemes, lower
from tilewright.compiler.quantization.assignment import QuantChoice
from tilewright.compiler.quantization.linear_weights import LinearWeight, linear_weights
from tilewright.compiler.quantization.table import write_table
from tilewright.dialects import tpu
from tilewright.dialects.errors import OptionError, TilewrightError, UnsupportedError
from tilewright.dialects.quantization import CodeFormat
from tilewright.dialects.scopes import walk_calls
from tilewright.dialects.tpu.structure import WeightForm

SEQ = 8
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
WIDE: dict[str, Any] = {**TINY_LLAMA, "hidden_size": 64, "intermediate_size": 160, "head_dim": 16}


def schemes(config: dict[str, Any] | None = None, **options: Any) -> dict[str, str]:
    weights = linear_weights(model_of(config or WIDE, SEQ).trace())
    return chosen_schemes(weights, CompileOptions(**options))


def lowered(**options: Any) -> dict[str, set[str]]:
    """The schemes of the tensors of the tpu module by resolved key, `dense` for dense ones."""
    module = lower(model_of(WIDE, SEQ).trace(), CompileOptions(**options))
    found: dict[str, set[str]] = {}
    for op, scope in walk_calls(module, "decode"):
        if isinstance(op, tpu.WeightOp):
            scheme = "dense" if op.form.data == WeightForm.DENSE else op.scheme_name
            found.setdefault(scope + op.key.data, set()).add(scheme)
    return found


def test_head_and_embedding_stay_dense_unless_asked_for() -> None:
    cases: tuple[tuple[dict[str, Any], str, str], ...] = (
        ({}, "f16", "f16"),
        ({"act": "bf16"}, "bf16", "bf16"),
        ({"quant_head": True}, "w4a16-g32", "f16"),
        ({"quant_embedding": True}, "f16", "w8a16"),
        ({"quant_rules": ("lm_head=w8a16-g64", "embed_tokens=w8a16")}, "w8a16-g64", "w8a16"),
        ({"quant_head": True, "quant_rules": ("lm_head=f16",)}, "f16", "f16"),
    )
    for options, head, embedding in cases:
        chosen = schemes(quant="w4a16-g32", **options)
        assert (chosen[HEAD], chosen[EMBEDDING]) == (head, embedding)
        assert chosen[DOWN] == "w4a16-g32"


def test_the_head_of_an_int8_model_keeps_16_bit_activations() -> None:
    head = LinearWeight("head", 100, 64, is_head=True)
    assert QuantChoice("int8", "f16", quant_head=True).default_of(head) == "w8a16"
    assert QuantChoice("int8", "f16").default_of(head) == "f16"


def test_rules_come_after_the_table(tmp_path: Path) -> None:
    weights = linear_weights(model_of(WIDE, SEQ).trace())
    path = tmp_path / "t.quant"
    table = {**schemes(quant="w8a16"), DOWN: "w4a16-channel"}
    write_table(path, weights, table)
    assert schemes(quant_table=str(path)) == table
    chosen = schemes(quant_table=str(path), quant_rules=("layers.0.*=f16",))
    assert chosen[DOWN] == "w4a16-channel"
    assert chosen["model.layers.0.mlp.up_proj.weight"] == "f16"
    assert chosen["model.layers.1.mlp.up_proj.weight"] == "w8a16"


def test_the_module_holds_what_was_chosen() -> None:
    """Layers that differ, a head and an embedding that are named, in one module."""
    rules = ("layers.*.mlp.down_proj=w4a16-g32", "layers.0.*=f16", "lm_head=w8a16-g32-zp")
    for each in ((), rules, ("embed_tokens=w8a16", *rules)):
        chosen, found = schemes(quant_rules=each), lowered(quant_rules=each)
        for key, quant in chosen.items():
            assert found[key] == {"dense" if quant == "f16" else quant}, key


def test_layers_with_the_same_schemes_share_functions() -> None:
    def functions(*rules: str) -> int:
        module = lower(model_of(WIDE, SEQ).trace(), CompileOptions(quant_rules=rules))
        return len(list(module.ops))

    assert functions("layers.*.mlp.up_proj=f16") == functions()
    assert functions("layers.1.mlp.up_proj=f16") == functions() + 2, "prefill and decode"


def test_a_mixed_program_is_built() -> None:
    options = CompileOptions(quant_rules=("layers.1.*=f16", "lm_head=w8a16"))
    built = build_program(lower(model_of(WIDE, SEQ).trace(), options), options.chip)
    ops = {kernel.op for kernel in built.program.kernels}
    assert {"tpu.W8A16MatMul", "tpu.MatMul"} <= ops


def test_groups_that_do_not_divide_are_named_all_at_once() -> None:
    """Hidden size 60: no group; intermediate size 172: none either, and 60 for the others."""
    with pytest.raises(OptionError) as raised:
        schemes(TINY_LLAMA, quant="w4a16-g32")
    message = str(raised.value)
    assert "groups do not divide the inputs of 14 weights" in message
    assert "w4a16-g32 for model.layers.*.mlp.down_proj.weight (2): 172 inputs" in message
    assert "w4a16-g32 for model.layers.*.mlp.up_proj.weight (2): 60 inputs" in message
    assert "use w4a16-channel" in message
    assert "'model.layers.*.self_attn.q_proj=w4a16-channel'" in message
    ok = schemes(TINY_LLAMA, quant="w4a16-g32", quant_rules=("layers.*=w4a16-channel",))
    assert ok[DOWN] == "w4a16-channel"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"quant_rules": ("embed_tokens=w4a16",)},
            OptionError,
            ("the embedding cannot be w4a16", EMBEDDING, "w8a16"),
        ),
        ({"quant_rules": ("lm_head=int8",)}, OptionError, ("the head cannot be int8", HEAD)),
        (
            {"act": "bf16", "quant_rules": ("layers.0.*=f16",)},
            OptionError,
            ("cannot be f16 where activations are bf16", "layers.*", "=bf16"),
        ),
        (
            {"quant": "f32", "quant_rules": ("layers.0.*=w8a16",)},
            OptionError,
            ("need 16-bit activations, not f32", "--quant f16"),
        ),
        (
            {"quant": "f8e4m3"},
            UnsupportedError,
            ("bm1684x cannot dequantize f8e4m3 codes", "i8, i4, u4", "--chip bm1690"),
        ),
        (
            {"quant_rules": ("layers.7.*=f16",)},
            OptionError,
            ("matches no weight", "layers.*.mlp.down_proj"),
        ),
    ],
)
def test_what_cannot_be(
    options: dict[str, Any], error: type[TilewrightError], said: tuple[str, ...]
) -> None:
    with pytest.raises(error) as raised:
        schemes(**options)
    for each in said:
        assert each in str(raised.value)


def test_chips_say_what_they_can_dequantize() -> None:
    assert schemes(quant="f8e4m3", chip="bm1690")[DOWN] == "f8e4m3"
    for name in ("bm1684x", "bm1688"):
        assert load_chip(name).code_formats == (CodeFormat.I8, CodeFormat.I4, CodeFormat.U4)
        assert "code_formats" in load_chip(name).sources
    assert load_chip("bm1690").code_formats == tuple(CodeFormat)


def test_bad_rules_are_errors_before_the_model_is_read() -> None:
    with pytest.raises(OptionError, match="this is no rule"):
        CompileOptions(quant_rules=("layers",))
