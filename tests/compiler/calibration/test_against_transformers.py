"""What is observed, against hooks on the linear layers of transformers' model of the checkpoint."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.compiler.calibration.models import TINY_LLAMA, hessian_of, language_model
from tests.compiler.importers.packed.packers import Recipe, write_packed
from tests.compiler.importers.packed.test_bits import llama
from transformers import AutoModelForCausalLM

from tilewright.compiler.calibration import calibrate, token_data
from tilewright.compiler.importers.huggingface import load_model

Array = npt.NDArray[Any]

PROMPTS = [[7, 3, 3, 40], [1], [9, 8, 7, 6, 5, 4, 3, 2, 1], [49, 0]]


def watched(original: Any) -> dict[str, tuple[Array, Array]]:
    """Inputs and outputs `[rows, ...]` of each linear layer of a model that runs all prompts."""
    seen: dict[str, list[tuple[Array, Array]]] = defaultdict(list)

    def watch(key: str) -> Any:
        def hook(_: Any, given: Any, result: Any) -> None:
            seen[key].append((given[0][0].numpy(), result[0].numpy()))

        return hook

    for name, layer in original.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(watch(f"{name}.weight"))
    with torch.no_grad():
        for prompt in PROMPTS:
            original(torch.tensor([prompt]))
    return {
        key: (np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs]))
        for key, pairs in seen.items()
    }


def test_ranges_and_second_moments(tmp_path: Path) -> None:
    model = language_model(tmp_path, 16, TINY_LLAMA)
    calibration = calibrate(model, token_data(model, PROMPTS), hessian=True)
    seen = watched(AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float64))
    assert set(calibration.ranges) == set(seen)
    assert len(seen) == 2 * 7 + 1
    for key, layer in calibration.ranges.items():
        x, y = seen[key]
        assert layer.count == len(x) == 16
        assert layer.input_absmax == pytest.approx(float(np.abs(x).max()), rel=1e-4)
        assert layer.output_absmax == pytest.approx(float(np.abs(y).max()), rel=1e-4)
        np.testing.assert_allclose(hessian_of(calibration, key), x.T @ x / len(x), atol=1e-4)


@pytest.mark.parametrize("recipe", [Recipe(desc_act=True), Recipe("awq")], ids=["gptq", "awq"])
def test_a_packed_checkpoint_has_the_ranges_of_its_dense_weights(
    tmp_path: Path, recipe: Recipe
) -> None:
    original = llama()
    write_packed(tmp_path, original, recipe)
    model = load_model(tmp_path, seq=16)
    calibration = calibrate(model, token_data(model, PROMPTS))
    seen = watched(original.double())
    assert set(calibration.ranges) == set(seen)
    for key, layer in calibration.ranges.items():
        x, y = seen[key]
        assert layer.input_absmax == pytest.approx(float(np.abs(x).max()), rel=1e-3)
        assert layer.output_absmax == pytest.approx(float(np.abs(y).max()), rel=1e-3)
