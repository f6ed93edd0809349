"""Packed checkpoints that cannot be read: what is said, and of which tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.compiler.importers.packed.packers import Recipe, write_packed
from tests.compiler.importers.packed.test_bits import llama

from tilewright.compiler.importers.huggingface import load_model
from tilewright.dialects.errors import ModelReadError, TilewrightError, UnsupportedError

Tensors = dict[str, torch.Tensor]

DOWN = "model.layers.0.mlp.down_proj"


def written(folder: Path, recipe: Recipe) -> Path:
    write_packed(folder, llama(num_hidden_layers=1), recipe)
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"].update(changes)
    file.write_text(json.dumps(config))


def change_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(
        {key: each.contiguous() for key, each in tensors.items()}, folder / "model.safetensors"
    )


def raised(folder: Path) -> TilewrightError:
    """What is raised from opening to reading every weight."""
    with pytest.raises(TilewrightError) as caught:
        read_all(folder)
    return caught.value


def read_all(folder: Path) -> None:
    model = load_model(folder, seq=8)
    with model.open_weights() as source:
        for key in model.shapes:
            source.quantized(key)


def cut(part: str, axis: int) -> Callable[[Tensors], object]:
    """Leave out the last row or column of a part of the down projection."""

    def change(tensors: Tensors) -> None:
        old = tensors[f"{DOWN}.{part}"]
        tensors[f"{DOWN}.{part}"] = old.narrow(axis, 0, old.shape[axis] - 1)

    return change


def put(part: str, index: Any, value: Any) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        tensors[f"{DOWN}.{part}"][index] = value

    return change


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quant_method": "bitsandbytes"}, "checkpoints quantized by 'bitsandbytes'"),
        ({"quant_method": "compressed-tensors"}, "checkpoints quantized by 'compressed-tensors'"),
        ({"quant_method": "fp8"}, "checkpoints quantized by 'fp8'"),
        ({"bits": 3}, "gptq checkpoints of 3 bits"),
        ({"bits": 2}, "gptq checkpoints of 2 bits"),
        ({"quant_method": "awq", "bits": 8}, "awq checkpoints of 8 bits"),
        ({"group_size": 8}, "groups of 8 inputs"),
        ({"group_size": 40}, "groups of 40 inputs"),
        ({"group_size": 2048}, "groups of 2048 inputs"),
        ({"group_size": 48}, "groups of 48 do not divide the 128 inputs of"),
        ({"checkpoint_format": "marlin"}, "gptq checkpoints of format 'marlin'"),
        ({"is_marlin_format": True}, "gptq checkpoints of format 'marlin'"),
        ({"pack_dtype": "int8"}, "pack_dtype = 'int8'"),
        ({"quant_method": "awq", "version": "gemv"}, "awq checkpoints of version 'gemv'"),
        ({"quant_method": "awq", "version": "exllama"}, "awq checkpoints of version 'exllama'"),
        ({"quant_method": "awq", "backend": "llm-awq"}, "awq checkpoints of version 'llm-awq'"),
        ({"quant_method": "awq", "zero_point": False}, "zero_point = False"),
    ],
)
def test_what_is_not_supported(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    change_config(written(tmp_path, Recipe()), **changes)
    error = raised(tmp_path)
    assert isinstance(error, UnsupportedError), error
    assert said in error.what
    assert "config.json" in (error.where or "")
    assert error.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": None}, "field 'bits' is missing"),
        ({"bits": "4"}, "field 'bits' is '4', not a positive whole number"),
        ({"group_size": 0}, "field 'group_size' is 0"),
        ({"group_size": None}, "field 'group_size' is missing"),
        ({"quant_method": 4}, "field 'quant_method' is 4, not a string"),
        ({"desc_act": "yes"}, "field 'desc_act' is 'yes', not true or false"),
        ({"modules_to_not_convert": [1]}, "field 'modules_to_not_convert' is [1]"),
        ({"dynamic": {"+:(": {}}}, "'+:(' is no regular expression"),
        ({"modules_to_not_convert": ["down_proj"]}, f"{DOWN!r} is packed, but"),
        ({"dynamic": {"-:.*down": {}}}, f"{DOWN!r} is packed, but"),
    ],
)
def test_configurations_that_make_no_sense(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    change_config(written(tmp_path, Recipe()), **changes)
    error = raised(tmp_path)
    assert isinstance(error, ModelReadError), error
    assert said in error.what
    assert "config.json" in (error.where or "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut("qweight", 0), f"{DOWN}.qweight: [15, 64] instead of [16, 64]"),
        (cut("qzeros", 1), f"{DOWN}.qzeros: [4, 7] instead of [4, 8]"),
        (cut("scales", 0), f"{DOWN}.scales: [3, 64] instead of [4, 64]"),
        (lambda t: t.pop(f"{DOWN}.qzeros"), f"1 missing: {DOWN}.qzeros"),
        (lambda t: t.pop(f"{DOWN}.scales"), f"1 missing: {DOWN}.scales"),
        (lambda t: t.pop(f"{DOWN}.qweight"), f"1 missing: {DOWN}.weight"),
        (lambda t: t.pop(f"{DOWN}.g_idx"), f"the checkpoint has no tensor '{DOWN}.g_idx'"),
        (cut("g_idx", 0), f"tensor '{DOWN}.g_idx' has shape [127], not [128]"),
        (put("g_idx", 5, 4), f"tensor '{DOWN}.g_idx' puts input 5 into group 4"),
        (put("g_idx", 5, -1), f"tensor '{DOWN}.g_idx' puts input 5 into group -1"),
        (put("g_idx", slice(0, 64), 3), f"tensor '{DOWN}.g_idx' puts"),
        (put("scales", (1, 2), float("nan")), f"weight '{DOWN}.scales' holds nan at index [1, 2]"),
        (
            lambda t: t.update({f"{DOWN}.qweight": t[f"{DOWN}.qweight"].to(torch.int64)}),
            f"tensor '{DOWN}.qweight' is stored as I64, not as I32",
        ),
        (
            lambda t: t.update({f"{DOWN}.weight": torch.zeros(64, 128)}),
            f"{DOWN!r} is there twice",
        ),
        (
            lambda t: t.update({f"{DOWN}.bias": torch.ones(64)}),
            f"tensor '{DOWN}.bias' is not zero, but the layer has no bias",
        ),
        (lambda t: t.update({"more.qweight": torch.zeros(2)}), "1 extra: more.qweight"),
    ],
)
def test_tensors_that_do_not_fit(
    change: Callable[[Tensors], object], said: str, tmp_path: Path
) -> None:
    change_tensors(written(tmp_path, Recipe(desc_act=True)), change)
    error = raised(tmp_path)
    assert isinstance(error, ModelReadError), error
    assert said in f"{error.what}; {error.why}"
    assert str(tmp_path) in (error.where or "")


def test_the_bits_of_the_configuration_are_not_those_of_the_tensors(tmp_path: Path) -> None:
    change_config(written(tmp_path, Recipe()), bits=8)
    error = raised(tmp_path)
    assert "layers.0.self_attn.q_proj.qweight: [8, 64] instead of [16, 64]" in (error.why or "")


def test_an_order_that_the_configuration_denies(tmp_path: Path) -> None:
    change_config(written(tmp_path, Recipe(desc_act=True)), desc_act=False)
    error = raised(tmp_path)
    assert error.what.endswith("g_idx' is not in order, but desc_act is false")
    assert "set desc_act in" in (error.hint or "")


def test_zero_points_that_are_not_symmetric(tmp_path: Path) -> None:
    change_config(written(tmp_path, Recipe()), sym=True)
    error = raised(tmp_path)
    assert "the zero points of" in error.what
    assert "sym is true, so that all of them are 8" in (error.why or "")


def test_an_8_bit_zero_point_of_256(tmp_path: Path) -> None:
    folder = written(tmp_path, Recipe(bits=8))
    change_tensors(folder, put("qzeros", (1, 2), -1))
    error = raised(folder)
    assert isinstance(error, UnsupportedError)
    assert error.what == (
        f"the zero point 256 of output channel 8 in '{DOWN}.qzeros' is not supported"
    )


def test_packed_tensors_without_a_configuration(tmp_path: Path) -> None:
    folder = written(tmp_path, Recipe())
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    error = raised(folder)
    assert isinstance(error, ModelReadError)
    assert "quantization_config" in f"{error.why} {error.hint}"
