"""Runs of an imported model by the float64 reference, and of its original by transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.compiler.language_model import LanguageModel

Array = npt.NDArray[Any]
HIDDEN = float(np.finfo(np.float32).min)


def checkpoint_weights(model: LanguageModel) -> Callable[[str, Operation], Array]:
    """The weights of `model` from its checkpoint and its tables."""
    container = model.open_weights()
    arrays = {key: container.read(key).astype(np.float32) for key in model.shapes}
    container.close()
    arrays.update(model.tables())
    return lambda key, op: arrays[key]


def reference_logits(
    model: LanguageModel, prompt: Sequence[int], following: Sequence[int]
) -> Array:
    """Logits after the prompt and after each of the `following` tokens, `[1 + n, vocabulary]`.

    The prompt is padded with token 0 on the right; the mask hides the padding.
    """
    weights, length = checkpoint_weights(model), model.summary.positions
    states: dict[str, Array] = {}

    def run(name: str, inputs: list[Array]) -> Array:
        results = run_function(
            model.module, name, inputs, weights=weights, states=states, semantics="float64"
        )
        return results[0][0]

    padded = np.zeros(length, np.int32)
    padded[: len(prompt)] = prompt
    positions = np.arange(length, dtype=np.int32)
    causal = np.where(positions[:, None] >= positions[None, :], 0.0, HIDDEN)
    last = np.array([len(prompt) - 1], np.int32)
    logits = [run("prefill", [padded, positions, causal.astype(np.float32), last])]
    for position, token in enumerate(following, len(prompt)):
        inputs = [np.array([token], np.int32), np.array([position], np.int32)]
        mask = np.where(positions <= position, 0.0, HIDDEN).astype(np.float32)
        logits.append(run("decode", [*inputs, mask[None]]))
    return np.stack(logits)


def transformers_logits(original: Any, prompt: Sequence[int], following: Sequence[int]) -> Array:
    """The same by transformers in float64, over the whole sequence at once."""
    ids = torch.tensor([[*prompt, *following]])
    with torch.no_grad():
        logits = original.double()(input_ids=ids, use_cache=False).logits[0]
    return logits[len(prompt) - 1 :].numpy()


def randomize(original: Any, seed: int) -> Any:
    """Every weight of a transformers model drawn anew, norms around 1, so that no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in original.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(0.2 * values + (1.0 if "norm" in name else 0.0))
            else:
                parameter.copy_(values / parameter.shape[-1] ** 0.5)
    return original
