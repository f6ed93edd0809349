"""Checkpoints with random weights: readable by others, repeatable, in shards, of sane values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.compiler.models.harness import reference_logits, transformers_logits
from transformers import AutoModelForCausalLM

from tilewright.compiler.importers.huggingface import load_model
from tilewright.compiler.importers.synthetic import CHATGLM_DEMO, write_checkpoint
from tilewright.dialects.errors import ModelReadError, OptionError, StorageError

QWEN2: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 133,
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
}


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_transformers_reads_it_and_agrees(dtype: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, QWEN2, dtype=dtype, seed=3)
    names = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    original: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert original.dtype == names[dtype]
    logits = reference_logits(load_model(tmp_path, seq=12), (1, 2, 3), (9, 8))
    expected = transformers_logits(original, (1, 2, 3), (9, 8))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


def test_shards_hold_the_same_tensors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one", CHATGLM_DEMO, seed=5)
    write_checkpoint(tmp_path / "many", CHATGLM_DEMO, seed=5, shard_bytes=1_000_000)
    whole = load_file(tmp_path / "one" / "model.safetensors")
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 4
    assert max(file.stat().st_size for file in files) < 1_010_000
    parts = {key: value for file in files for key, value in load_file(file).items()}
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[key], value) for key, value in whole.items())
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    sizes = sum(value.nbytes for value in whole.values())
    assert index["metadata"]["total_size"] == sizes
    load_model(tmp_path / "many", seq=8).open_weights().close()


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / name, QWEN2, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_values_keep_activations_in_range(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CHATGLM_DEMO)
    tensors = load_file(tmp_path / "model.safetensors")
    for key, value in tensors.items():
        values = value.float()
        if value.dim() == 2:
            spread = float(values.std()) * value.shape[1] ** 0.5
            assert 0.97 < spread < 1.03, key
        elif key.endswith("norm.weight"):
            assert 0.95 < float(values.mean()) < 1.05, key
    model = load_model(tmp_path, seq=16)
    logits = reference_logits(model, (5, 900, 17), (3,))
    assert 0.5 < logits.std() < 2
    rows = tensors["transformer.output_layer.weight"]
    assert len(torch.unique(rows, dim=0)) == len(rows)


@pytest.mark.parametrize("options", [{"dtype": "f64"}, {"shard_bytes": 0}])
def test_options_that_make_no_sense(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        write_checkpoint(tmp_path, QWEN2, **options)


def test_a_configuration_that_is_not_complete(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match="hidden_size"):
        write_checkpoint(tmp_path, {"model_type": "llama"})
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_checkpoint(tmp_path / "file", QWEN2)
