"""From a packed checkpoint to the simulator: the same codes, and what transformers computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.compiler.importers.packed.packers import Recipe, write_packed
from tests.compiler.importers.packed.test_bits import llama
from tests.compiler.models.harness import transformers_logits

from tilewright.backends.reference import numerics
from tilewright.compiler.artifact import Artifact, open_artifact
from tilewright.compiler.compile import compile_to_artifact
from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.packed.checkpoint import dequantize
from tilewright.compiler.importers.packed.schemes import default_quant
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.quantization.choose import choose_schemes
from tilewright.compiler.runtime import LanguageModelSession, Session
from tilewright.dialects.element_types import F16
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import parse_scheme

PROMPT, FOLLOWING = [3, 1, 4, 1, 5], [9, 2]
TOLERANCE = {"f16": 0.02, "bf16": 0.16}
"""Of logits of about 1: activations are rounded some 40 times on the way, by up to 2^-11 (2^-8) of
their size each, at random: sqrt(40) 2^-11 times 4 for the worst of 288 logits is 0.012 (0.1).
Zero points that are one too large move them by 3, an inverted order of inputs by 2.3."""
RECIPES = {
    "gptq-4-sym": (Recipe(sym=True), "f16", "w4a16-g32-absmax"),
    "gptq-4-asym-order": (Recipe(desc_act=True), "f16", "w4a16-g32"),
    "gptq-8-sym-order": (Recipe(bits=8, sym=True, desc_act=True), "f16", "w8a16-g32"),
    "gptq-8-channel": (Recipe(bits=8, group_size=-1), "f16", "w8a16-zp"),
    "gptq-bf16": (Recipe(scales=torch.bfloat16, desc_act=True), "bf16", "w4a16-g32"),
    "gptq-f32-scales": (Recipe(scales=torch.float32), "f16", "w4a16-g32"),
    "awq": (Recipe("awq"), "f16", "w4a16-g32"),
    "awq-in-bf16": (Recipe("awq"), "bf16", "w4a16-g32"),
}


def compiled(folder: Path, act: str = "f16", **options: str) -> Artifact:
    """The checkpoint compiled as `tw compile` does, without `--quant` unless it is given."""
    quant = options.get("quant") or default_quant(folder, act)
    output = folder / "model.twm"
    compile_to_artifact(folder, output, CompileOptions(quant, act), seq=8)
    return open_artifact(output)


def logits(artifact: Artifact) -> np.ndarray:
    session = Session(artifact.program, artifact.chip, artifact.weight)
    model = LanguageModelSession(session, 96)
    rows = [model.prefill(PROMPT)]
    rows += [model.decode(token, place) for place, token in enumerate(FOLLOWING, len(PROMPT))]
    return np.stack(rows)


@pytest.mark.parametrize("name", RECIPES)
def test_the_simulator_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    recipe, act, scheme = RECIPES[name]
    original = llama()
    write_packed(tmp_path, original, recipe)
    model = load_model(tmp_path, seq=8)
    assert set(model.packed.values()) == {scheme}
    artifact = compiled(tmp_path, act)
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    np.testing.assert_allclose(logits(artifact), expected, atol=TOLERANCE[act], rtol=0)


def test_the_artifact_holds_the_codes_of_the_checkpoint(tmp_path: Path) -> None:
    write_packed(tmp_path, llama(), Recipe(desc_act=True))
    artifact = compiled(tmp_path)
    with load_model(tmp_path, seq=8).open_weights() as source:
        key = "model.layers.1.mlp.down_proj.weight"
        weight = source.quantized(key)
    assert weight is not None
    stored = [artifact.weight(name) for name in artifact.weights() if name.startswith(key)]
    for part in (weight.codes, weight.scale, weight.zero):
        assert part is not None
        assert any(np.array_equal(part, each) and part.dtype == each.dtype for each in stored)


def test_layers_that_stay_dense(tmp_path: Path) -> None:
    original = llama()
    write_packed(tmp_path, original, Recipe("awq"), dense=["v_proj", "layers.0.mlp"])
    model = load_model(tmp_path, seq=8)
    assert len(model.packed) == 14 - 2 - 3
    artifact = compiled(tmp_path)
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    np.testing.assert_allclose(logits(artifact), expected, atol=TOLERANCE["f16"], rtol=0)


def test_a_zero_point_of_16_in_the_first_format(tmp_path: Path) -> None:
    """GPTQ's first format stores zero points one too little; 15 there is 16."""
    original = llama()
    layers = write_packed(tmp_path, original, Recipe())
    name = "model.layers.0.self_attn.q_proj"
    rewrite_zeros(tmp_path, name, 0xFFFFFFFF)
    layer = replace(layers[name], zeros=np.full_like(layers[name].zeros, 16))
    original.load_state_dict({f"{name}.weight": layer.dense().float()}, strict=False)
    with load_model(tmp_path, seq=8).open_weights() as source:
        weight = source.quantized(f"{name}.weight")
        assert weight is not None
        assert weight.zero is not None
        assert set(weight.zero.ravel().tolist()) == {16}
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    np.testing.assert_allclose(
        logits(compiled(tmp_path)), expected, atol=TOLERANCE["f16"] * 2, rtol=0
    )


def rewrite_zeros(folder: Path, name: str, word: int) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[f"{name}.qzeros"].fill_(np.array(word, np.uint32).view(np.int32).item())
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("quant", ["w8a16", "w4a16", "w4a16-g32-absmax"])
def test_another_scheme_than_that_of_the_checkpoint(quant: str, tmp_path: Path) -> None:
    write_packed(tmp_path, llama(), Recipe())
    with pytest.raises(OptionError) as caught:
        compiled(tmp_path, quant=quant)
    assert caught.value.what.endswith(f"_proj.weight' cannot be compiled as {quant}")
    assert "as w4a16-g32" in (caught.value.why or "")
    assert "leave it out of --quant" in (caught.value.hint or "")
    assert "--requantize" in (caught.value.hint or "")


@pytest.mark.parametrize("recipe", [Recipe(desc_act=True), Recipe("awq")], ids=["gptq", "awq"])
def test_its_values_are_quantized_anew(recipe: Recipe, tmp_path: Path) -> None:
    """The codes are those of the exact values, and w8a16 loses next to nothing of them."""
    original = llama()
    write_packed(tmp_path, original, recipe)
    output = tmp_path / "anew.twm"
    compile_to_artifact(tmp_path, output, CompileOptions("w8a16", requantize=True), seq=8)
    artifact = open_artifact(output)
    key = "model.layers.1.mlp.down_proj.weight"
    with load_model(tmp_path, seq=8).open_weights() as source:
        held = source.quantized(key)
        assert held is not None
        values = dequantize(held)
    codes, scale, _ = numerics.quantize(values, parse_scheme("w8a16"), F16)
    names = {name.removeprefix(f"{key}.") for name in artifact.weights() if name.startswith(key)}
    assert names == {"w8a16.codes", "w8a16.scale"} or names == {"codes", "scale"}
    prefix = f"{key}.w8a16." if "w8a16.codes" in names else f"{key}."
    np.testing.assert_array_equal(artifact.weight(f"{prefix}codes"), codes)
    np.testing.assert_array_equal(artifact.weight(f"{prefix}scale"), scale)
    expected = transformers_logits(original, PROMPT, FOLLOWING)
    np.testing.assert_allclose(logits(artifact), expected, atol=0.1, rtol=0)
    assert artifact.manifest.options["requantize"] is True


def test_a_target_has_nothing_to_decide(tmp_path: Path) -> None:
    write_packed(tmp_path, llama(), Recipe())
    model = load_model(tmp_path, seq=8)
    with pytest.raises(OptionError) as caught:
        choose_schemes(model, CompileOptions("f16", quant_target="8bpw"))
    assert "holds all 14 layers quantized already, as w4a16-g32" in (caught.value.why or "")
    assert "--requantize" in (caught.value.hint or "")
    anew = choose_schemes(model, CompileOptions("w8a16", quant_target="8bpw", requantize=True))
    assert anew.allocation.reached <= 8
    assert "w4a16-g32" in anew.assigned.values(), "what is on that grid already loses least"


def test_the_scheme_that_the_checkpoint_has(tmp_path: Path) -> None:
    write_packed(tmp_path, llama(), Recipe())
    assert (logits(compiled(tmp_path, quant="w4a16-g32")) == logits(compiled(tmp_path))).all()


def test_without_a_packed_checkpoint_the_default_is_a_scheme(tmp_path: Path) -> None:
    assert default_quant(tmp_path, "bf16") == "w8a16"
    write_packed(tmp_path, llama(), Recipe())
    assert default_quant(tmp_path, "bf16") == "bf16"
