"""What is observed, against hooks on the linear layers of transformers' model of the checkpoint."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.compiler.calibration.models import TINY_LLAMA, hessian_of, language_model
from transformers import AutoModelForCausalLM

from tilewright.compiler.calibration import calibrate, token_data

PROMPTS = [[7, 3, 3, 40], [1], [9, 8, 7, 6, 5, 4, 3, 2, 1], [49, 0]]


def test_ranges_and_second_moments(tmp_path: Path) -> None:
    model = language_model(tmp_path, 16, TINY_LLAMA)
    calibration = calibrate(model, token_data(model, PROMPTS), hessian=True)
    inputs: dict[str, list[Any]] = defaultdict(list)
    outputs: dict[str, list[Any]] = defaultdict(list)
    original: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float64)

    def watch(name: str) -> Any:
        def hook(_: Any, given: Any, result: Any) -> None:
            inputs[name].append(given[0][0].numpy())
            outputs[name].append(result[0].numpy())

        return hook

    for name, layer in original.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(watch(f"{name}.weight"))
    with torch.no_grad():
        for prompt in PROMPTS:
            original(torch.tensor([prompt]))
    head = "lm_head.weight"
    for seen in (inputs, outputs):  # a prompt's last row alone makes our logits
        seen[head] = [rows[-1:] for rows in seen[head]]
    assert set(calibration.ranges) == set(inputs)
    assert len(inputs) == 2 * 7 + 1
    for key, layer in calibration.ranges.items():
        x, y = np.concatenate(inputs[key]), np.concatenate(outputs[key])
        assert layer.count == len(x) == (4 if key == head else 16)
        assert layer.input_absmax == pytest.approx(float(np.abs(x).max()), rel=1e-4)
        assert layer.output_absmax == pytest.approx(float(np.abs(y).max()), rel=1e-4)
        np.testing.assert_allclose(hessian_of(calibration, key), x.T @ x / len(x), atol=1e-4)
