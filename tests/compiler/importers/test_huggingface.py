"""Configurations that are read, and those that are refused, with what is said about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.synthetic import CHATGLM2_6B, CHATGLM_DEMO, write_checkpoint
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}
MISSING = object()


def write(folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    """`config.json` with changes; `MISSING` leaves a field out."""
    fields = {key: value for key, value in {**config, **changes}.items() if value is not MISSING}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_chatglm2_6b_needs_its_configuration_only(tmp_path: Path) -> None:
    file = write(tmp_path, CHATGLM2_6B) / "config.json"
    model = load_model(file, seq=512)
    assert (model.summary.layers, model.summary.vocab_size) == (28, 65024)
    assert model.summary.eos_token_ids == (2,)
    assert len(model.shapes) == 28 * 7 + 3
    layer = "transformer.encoder.layers.27."
    assert model.shapes[f"{layer}self_attention.query_key_value.weight"] == (4608, 4096)
    assert model.shapes[f"{layer}mlp.dense_h_to_4h.weight"] == (27392, 4096)
    assert model.name == tmp_path.name
    assert sum(a * (b[0] if b else 1) for a, *b in model.shapes.values()) == 6_243_584_000


def test_llama_in_the_layout_before_transformers_5(tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 4.0}
    write(tmp_path, LLAMA, rope_theta=100.0, rope_scaling=scaling)
    old = load_model(tmp_path, seq=16).tables()
    write(
        tmp_path,
        LLAMA,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
    )
    new = load_model(tmp_path, seq=16).tables()
    key = "model.rotary_emb.cos"
    assert old[key].tolist() == new[key].tolist()
    assert len(set(old[key][:, 0].tolist())) == 16


def test_end_tokens_of_the_generation_configuration_come_first(tmp_path: Path) -> None:
    write(tmp_path, LLAMA)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    assert load_model(tmp_path, seq=8).summary.eos_token_ids == (7, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({name: MISSING}, f"field {name!r} is missing")
            for name in LLAMA
            if name not in ("eos_token_id", "num_key_value_heads")
        ),
        ({"hidden_size": "32"}, "field 'hidden_size' is '32', not a positive whole number"),
        ({"hidden_size": True}, "field 'hidden_size' is True"),
        ({"num_hidden_layers": 0}, "field 'num_hidden_layers' is 0"),
        ({"rms_norm_eps": -1}, "field 'rms_norm_eps' is -1, not a positive number"),
        ({"rms_norm_eps": "x"}, "field 'rms_norm_eps' is 'x'"),
        ({"attention_bias": 1}, "field 'attention_bias' is 1, not true or false"),
        ({"eos_token_id": "a"}, "field 'eos_token_id' is 'a'"),
        ({"eos_token_id": [1, "a"]}, "field 'eos_token_id' is [1, 'a']"),
        ({"rope_scaling": 3}, "field 'rope_scaling' is 3, not an object"),
        ({"rope_scaling": {"type": "linear"}}, "field 'factor' is missing"),
        ({"rope_scaling": {"type": 1}}, "field 'type' is 1, not a string"),
        ({"model_type": 3}, "field 'model_type' is 3, not a string"),
        ({"num_attention_heads": 5}, "hidden_size 32 is not a multiple of num_attention_heads 5"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of"),
        ({"head_dim": 7}, "7 of a head's 7 columns are rotated"),
    ],
)
def test_configurations_that_make_no_sense(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelReadError) as caught:
        load_model(write(tmp_path, LLAMA, **changes), seq=8)
    assert message in caught.value.what
    assert "config.json" in (caught.value.where or "")


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (LLAMA, {"model_type": "gpt2"}, "models of type 'gpt2' are not supported"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
        (LLAMA, {"rope_scaling": {"rope_type": "yarn"}}, "RoPE of type 'yarn' is not supported"),
        (
            LLAMA,
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 7},
            "a sliding window of 7 positions is not supported",
        ),
        (CHATGLM_DEMO, {"rmsnorm": False}, "rmsnorm = False is not supported"),
        (CHATGLM_DEMO, {"multi_query_attention": False}, "multi_query_attention = False"),
        (CHATGLM_DEMO, {"pre_seq_len": 128}, "pre_seq_len = 128 is not supported"),
        (CHATGLM_DEMO, {"quantization_bit": 4}, "quantization_bit = 4 is not supported"),
        (CHATGLM_DEMO, {"position_encoding_2d": True}, "the first ChatGLM-6B is not supported"),
    ],
)
def test_settings_that_are_not_supported(
    config: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        load_model(write(tmp_path, config, **changes), seq=8)
    assert message in caught.value.what
    assert caught.value.hint


def test_unknown_types_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="chatglm, glm, llama, qwen2"):
        load_model(write(tmp_path, LLAMA, model_type="gpt2"), seq=8)


@pytest.mark.parametrize("seq", [0, -3, 17])
def test_more_positions_than_the_model_has(seq: int, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"{seq} positions"):
        load_model(write(tmp_path, LLAMA), seq=seq)


def test_a_missing_configuration(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match=r"there is no config\.json"):
        load_model(tmp_path, seq=8)


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": \x00}'])
def test_a_damaged_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelReadError, match="JSON"):
        load_model(tmp_path, seq=8)


def test_a_checkpoint_of_another_size(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, LLAMA)
    write(tmp_path, LLAMA, num_hidden_layers=3)
    with pytest.raises(ModelReadError, match="9 missing"):
        load_model(tmp_path, seq=8).open_weights()
    write(tmp_path, LLAMA, num_hidden_layers=1)
    with pytest.raises(ModelReadError, match="9 extra"):
        load_model(tmp_path, seq=8).open_weights()
    write(tmp_path, LLAMA, intermediate_size=47)
    with pytest.raises(ModelReadError, match="6 of another shape"):
        load_model(tmp_path, seq=8).open_weights()


def test_a_tied_head_may_be_stored_too(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, LLAMA)
    model = load_model(write(tmp_path, LLAMA, tie_word_embeddings=True), seq=8)
    model.open_weights().close()
    assert "lm_head.weight" not in model.shapes
