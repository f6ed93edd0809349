"""Packed checkpoints of every family of models, and the files that AutoGPTQ and AutoAWQ write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.compiler.importers.packed.packers import Recipe, pack_state, write, write_packed
from tests.compiler.importers.packed.test_bits import llama
from tests.compiler.models.harness import reference_logits
from tests.compiler.small_models import TINY_CHATGLM, TINY_LLAMA

from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.packed.config import ZeroOffset, read_packing
from tilewright.compiler.importers.packed.layouts import gptq_zeros
from tilewright.compiler.importers.synthetic import write_checkpoint
from tilewright.compiler.models.config import Fields

CHATGLM = {
    **TINY_CHATGLM,
    "num_layers": 2,
    "hidden_size": 96,
    "ffn_hidden_size": 128,
    "kv_channels": 16,
}
SMALL = {**TINY_LLAMA, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "vocab_size": 96}
FAMILIES = {
    "chatglm": CHATGLM,
    "llama": {**SMALL, "num_attention_heads": 4, "num_key_value_heads": 2},
    "qwen2": {**SMALL, "model_type": "qwen2", "num_attention_heads": 4, "num_key_value_heads": 2},
    "glm": {**SMALL, "model_type": "glm", "num_attention_heads": 4, "num_key_value_heads": 2},
}


@pytest.mark.parametrize("recipe", [Recipe(desc_act=True), Recipe("awq")], ids=["gptq", "awq"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_what_its_dense_weights_make_it(
    family: str, recipe: Recipe, tmp_path: Path
) -> None:
    config = FAMILIES[family]
    write_checkpoint(tmp_path / "dense", config, dtype="f32")
    state = load_file(tmp_path / "dense" / "model.safetensors")
    names = [
        key.removesuffix(".weight")
        for key, value in state.items()
        if key.endswith(".weight") and value.dim() == 2 and "layers." in key
    ]
    packed, layers = pack_state(state, names, recipe)
    write(tmp_path / "packed", packed, {**config, "quantization_config": recipe.config()})
    state |= {f"{name}.weight": layer.dense(torch.float32) for name, layer in layers.items()}
    write(tmp_path / "dense", state, config)
    prompt, following = [3, 1, 4], [1, 5]
    model = load_model(tmp_path / "packed", seq=8)
    assert len(model.packed) == len(names)
    assert bool(model.rows) == recipe.desc_act
    np.testing.assert_allclose(
        reference_logits(model, prompt, following),
        reference_logits(load_model(tmp_path / "dense", seq=8), prompt, following),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("recipe", "name", "fields"),
    [
        (Recipe(), "quantize_config.json", {"bits": 4, "group_size": 32, "sym": False}),
        (
            Recipe("awq"),
            "quant_config.json",
            {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"},
        ),
    ],
)
def test_a_configuration_in_a_file_of_its_own(
    recipe: Recipe, name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    write_packed(tmp_path, llama(num_hidden_layers=1), recipe)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / name).write_text(json.dumps(fields))
    assert set(load_model(tmp_path, seq=8).packed.values()) == {"w4a16-g32"}


def test_a_configuration_alone_says_what_to_expect(tmp_path: Path) -> None:
    write_packed(tmp_path, llama(), Recipe(), dense=["v_proj"])
    whole = load_model(tmp_path, seq=8).packed
    (tmp_path / "model.safetensors").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"] = ["v_proj"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path, seq=8).packed == whole


def test_layers_that_differ() -> None:
    dynamic = {
        "-:.*v_proj": {},
        "+:.*layers\\.1\\.": {"bits": 8},
        ".*down": {"group_size": 64, "sym": True},
    }
    fields = {"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": dynamic}
    packing = read_packing(Fields(fields, "config.json"))
    assert packing.says_dense("layers.0.v_proj")
    assert not packing.says_dense("layers.0.q_proj")
    assert packing.of_layer("layers.1.q_proj").bits == 8
    down = packing.of_layer("layers.0.down")
    assert (down.bits, down.group, down.symmetric) == (4, 64, True)
    assert packing.of_layer("layers.0.q_proj") == packing


def test_a_bias_of_zeros_that_the_model_lacks_is_passed_over(tmp_path: Path) -> None:
    write_packed(tmp_path, llama(num_hidden_layers=1), Recipe())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.bias"] = torch.zeros(64)
    write(tmp_path, tensors, json.loads((tmp_path / "config.json").read_text()))
    with load_model(tmp_path, seq=8).open_weights() as source:
        assert source.quantized("model.layers.0.mlp.down_proj.weight") is not None


def test_symmetric_zero_points_of_the_second_format_under_the_name_of_the_first(
    tmp_path: Path,
) -> None:
    """GPTQModel has written such files; vLLM reads them so, too."""
    recipe = Recipe(sym=True, checkpoint_format="gptq_v2")
    layers = write_packed(tmp_path, llama(num_hidden_layers=1), recipe)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq"
    (tmp_path / "config.json").write_text(json.dumps(config))
    name = "model.layers.0.self_attn.q_proj"
    with load_model(tmp_path, seq=8).open_weights() as source:
        assert (source.read(f"{name}.weight") == layers[name].dense().numpy()).all()


def test_words_of_gptqmodel_have_borrowed() -> None:
    """Zero points 0, 8, 15 ... less one in each place of the word: the 0 borrows from the 8."""
    zeros = [0, 8, 15, 0, 1, 7, 0, 3]
    word = sum(zero << (4 * place) for place, zero in enumerate(zeros)) - 0x11111111
    stored = np.array([[word % (1 << 32)]], np.uint32).view(np.int32)
    assert gptq_zeros(stored, 4, add_to_words=True).ravel().tolist() == zeros
    fields = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False}
    made = {**fields, "meta": {"quantizer": "gptqmodel:1.4.0"}}
    assert read_packing(Fields(made, "c")).zero_offset is ZeroOffset.WORD
    assert read_packing(Fields(fields, "c")).zero_offset is ZeroOffset.CODE
