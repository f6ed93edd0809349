"""Checkpoints compiled into artifacts and run on the simulated machine, against transformers in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.compiler.models.harness import randomize
from tests.compiler.models.test_chatglm import make_original, publish
from transformers import (
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.cli.run_verb import language_model_of
from tilewright.compiler.compile import compile_to_artifact
from tilewright.compiler.pipeline import CompileOptions

Array = npt.NDArray[Any]

SEQ = 24
STEPS = 16
PROMPT = (5, 3, 99, 17, 3, 0, 42)
LEAST_COSINE_W8A16 = 0.999
TIE = {"f32": 1e-4, "f16": 0.02}
"""Logits of random models are of order 1; two that are closer than this are a tie in that
precision.
"""


@dataclass(frozen=True)
class Case:
    """A model of transformers with random weights and odd sizes, and how it is saved."""

    make: Callable[[int], Any]
    save: Callable[[Any, Path], None]


def save_pretrained(original: Any, folder: Path) -> None:
    original.save_pretrained(folder, safe_serialization=True)


def glm(seed: int) -> Any:
    config = GlmConfig(
        vocab_size=133,
        hidden_size=72,
        intermediate_size=100,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        attention_bias=True,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return randomize(GlmForCausalLM(config), seed)


def llama(seed: int) -> Any:
    config = LlamaConfig(
        vocab_size=151,
        hidden_size=60,
        intermediate_size=172,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=12,
        max_position_embeddings=64,
        tie_word_embeddings=seed % 2 == 1,
        pad_token_id=0,
    )
    return randomize(LlamaForCausalLM(config), seed)


def qwen2(seed: int) -> Any:
    config = Qwen2Config(
        vocab_size=160,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return randomize(Qwen2ForCausalLM(config), seed)


CASES = {
    "glm": Case(glm, save_pretrained),
    "llama": Case(llama, save_pretrained),
    "qwen2": Case(qwen2, save_pretrained),
    "chatglm": Case(make_original, publish),
}


def original_logits(original: Any, prompt: Sequence[int], steps: int) -> tuple[list[int], Array]:
    """Greedy tokens of transformers in float32, and the logits they were picked from."""
    ids = list(prompt)
    rows: list[Array] = []
    with torch.no_grad():
        for _ in range(steps):
            logits = original.float()(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            rows.append(logits.numpy())
            ids.append(int(logits.argmax()))
    return ids[len(prompt) :], np.stack(rows)


def simulated_logits(
    folder: Path, options: CompileOptions, prompt: Sequence[int], tokens: Sequence[int]
) -> Array:
    """Logits of the compiled model after the prompt and after each token but the last."""
    path = folder / f"{options.quant}.twm"
    compile_to_artifact(folder, path, options, seq=SEQ)
    artifact = open_artifact(path)
    model = language_model_of(artifact, path)
    rows = [model.prefill(list(prompt))]
    for position, token in enumerate(tokens[:-1], len(prompt)):
        rows.append(model.decode(token, position))
    return np.stack(rows)


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("quant", ["f32", "f16"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", list(CASES))
def test_greedy_tokens_are_those_of_transformers(
    name: str, seed: int, quant: str, tmp_path: Path
) -> None:
    case = CASES[name]
    original = case.make(seed)
    case.save(original, tmp_path)
    tokens, expected = original_logits(original, PROMPT, STEPS)
    logits = simulated_logits(tmp_path, CompileOptions(quant), PROMPT, tokens)
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > TIE[quant]
    assert clear.sum() >= STEPS - 3
    assert logits.argmax(axis=1)[clear].tolist() == np.array(tokens)[clear].tolist()


def rounded_to_int8(original: Any) -> Any:
    """A copy whose linear layers (but the head) hold what int8 codes with a scale a row can say."""
    copied = deepcopy(original).float()
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if parameter.dim() == 2 and "embed" not in name and "lm_head" not in name:
                scale = parameter.abs().amax(1, keepdim=True) / 127
                parameter.copy_((parameter / scale).round() * scale)
    return copied


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", list(CASES))
def test_w8a16_keeps_the_logits(name: str, seed: int, tmp_path: Path) -> None:
    """Over the 16 steps the logits keep their cosine. At a single step a small random model may
    lose more, to int8 itself: transformers with weights rounded to int8 loses as much, and that is
    what we agree with.
    """
    case = CASES[name]
    original = case.make(seed)
    case.save(original, tmp_path)
    tokens, expected = original_logits(original, PROMPT, STEPS)
    logits = simulated_logits(tmp_path, CompileOptions("w8a16"), PROMPT, tokens)
    assert cosine(logits.ravel(), expected.ravel()) >= LEAST_COSINE_W8A16
    ids = torch.tensor([[*PROMPT, *tokens[:-1]]])
    with torch.no_grad():
        all_logits = rounded_to_int8(original)(input_ids=ids, use_cache=False).logits[0]
    int8 = all_logits[len(PROMPT) - 1 :].numpy()
    lost = [1 - cosine(a, b) for a, b in zip(logits, expected, strict=True)]
    lost_by_int8 = [1 - cosine(a, b) for a, b in zip(int8, expected, strict=True)]
    assert max(lost) <= 1.5 * max(lost_by_int8)
    assert min(cosine(a, b) for a, b in zip(logits, int8, strict=True)) > 0.999


def test_w8a16_with_quantized_head_and_embedding_in_bf16(tmp_path: Path) -> None:
    original = llama(0)
    save_pretrained(original, tmp_path)
    tokens, expected = original_logits(original, PROMPT, 4)
    options = CompileOptions("w8a16", "bf16", quant_head=True, quant_embedding=True)
    logits = simulated_logits(tmp_path, options, PROMPT, tokens)
    assert min(cosine(a, b) for a, b in zip(logits, expected, strict=True)) > 0.995
