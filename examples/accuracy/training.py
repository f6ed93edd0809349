"""Training: AdamW on random windows of the text, warm-up and cosine decay."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from torch.nn import functional

from accuracy.corpus import Tokens
from accuracy.model import CONFIG, LanguageModel

BATCH, LENGTH = 16, 128
HIGHEST_RATE, WARM_UP = 3e-3, 50

Array = npt.NDArray[Any]


def train(tokens: Tokens, steps: int, *, seed: int = 0) -> dict[str, Array]:
    """Train for `steps` batches; the weights in f16, by ChatGLM2's names."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = LanguageModel(CONFIG)
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=HIGHEST_RATE, betas=(0.9, 0.95), fused=True)
    start, smooth = perf_counter(), float("nan")
    for step in range(steps):
        progress = step / steps
        rate = min(1.0, (step + 1) / WARM_UP) * (
            0.05 + 0.95 * math.cos(progress * math.pi / 2) ** 2
        )
        for group in optimizer.param_groups:
            group["lr"] = HIGHEST_RATE * rate
        firsts = generator.integers(0, len(tokens) - LENGTH - 1, BATCH)
        batch = torch.from_numpy(np.stack([tokens[i : i + LENGTH + 1] for i in firsts]))
        logits = model(batch[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        value = float(loss.detach())
        smooth = value if math.isnan(smooth) else 0.95 * smooth + 0.05 * value
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds = perf_counter() - start
            print(f"step {step + 1:5d} of {steps}: loss {smooth:.3f}, {seconds:.0f} s", flush=True)
    return {
        name: parameter.detach().to(torch.float16).numpy()
        for name, parameter in model.named_parameters()
    }


def save_checkpoint(folder: Path, weights: Mapping[str, Array]) -> None:
    """Write `config.json` and `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float16"}, indent=2))
    save_file(dict(weights), folder / "model.safetensors")


def torch_perplexity(weights: Mapping[str, Array], tokens: Tokens, windows: int) -> float:
    """The perplexity that PyTorch computes in float32, on the first windows of the text."""
    model = LanguageModel(CONFIG)
    model.load_state_dict({name: torch.from_numpy(w).float() for name, w in weights.items()})
    batch = torch.from_numpy(tokens[: windows * LENGTH].reshape(windows, LENGTH))
    with torch.no_grad():
        logits = model(batch)[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    return math.exp(float(loss))
