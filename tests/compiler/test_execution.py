"""Backends: the reference executes what the simulator does, inputs, outputs and states alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.compiler.small_models import TINY_CHATGLM, executable_of, language_model

from tilewright.compiler.executable import Executable
from tilewright.compiler.execution import CompiledModel, Execution
from tilewright.compiler.execution.registry import BACKENDS, backend_names, find_backend
from tilewright.compiler.pipeline import CompileOptions
from tilewright.compiler.runtime import LanguageModelSession
from tilewright.dialects.errors import OptionError

SEQ = 12
PROMPT = [5, 17, 101]
TOLERANCE = {"f32": 1e-5, "f16": 4e-3, "w8a16": 4e-3}
"""Of the largest logit: both round to the storage type after each op, in their own order."""


@pytest.fixture(scope="module")
def executable() -> Executable:
    return executable_of(TINY_CHATGLM, CompileOptions("f16"), SEQ)


def model_of(executable: Executable) -> CompiledModel:
    return CompiledModel(
        executable.program,
        executable.chip,
        executable.tpu_module.clone,
        executable.weights.__getitem__,
    )


def logits_of(session: LanguageModelSession[Execution]) -> list[npt.NDArray[Any]]:
    """Of a prompt and three steps of decoding, which read what those before left in the cache."""
    logits = [session.prefill(PROMPT)]
    for position, token in enumerate((7, 3, 9), start=len(PROMPT)):
        logits.append(session.decode(token, position))
    return logits


@pytest.mark.parametrize("quant", TOLERANCE)
def test_both_backends_give_the_same_logits(quant: str) -> None:
    executable = executable_of(TINY_CHATGLM, CompileOptions(quant), SEQ)
    vocabulary = language_model(executable).prefill(PROMPT).shape[-1]
    results = {
        name: logits_of(
            LanguageModelSession(find_backend(name).open(model_of(executable)), vocabulary)
        )
        for name in BACKENDS
    }
    for reference, simulated in zip(results["reference"], results["simulator"], strict=True):
        assert reference.dtype == simulated.dtype
        assert reference.shape == simulated.shape
        scale = np.abs(reference).max()
        assert np.abs(reference - simulated).max() <= TOLERANCE[quant] * scale
        assert not np.isnan(reference).any()


@pytest.mark.parametrize("name", BACKENDS)
def test_wrong_requests_are_refused_alike(executable: Executable, name: str) -> None:
    execution = find_backend(name).open(model_of(executable))
    inputs = language_model(executable).decode_inputs(3, 0)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: execution.function("train"), "no function 'train'"),
        (lambda: execution.run("train", {}), "no function 'train'"),
        (lambda: execution.run("decode", {}), "takes the inputs"),
        (
            lambda: execution.run("decode", {**inputs, "input_ids": np.zeros(2, np.int32)}),
            r"has shape \[1\], not \[2\]",
        ),
        (
            lambda: execution.run("decode", {**inputs, "input_ids": np.array([2**40])}),
            "out of the range of i32",
        ),
    ]
    for request, said in cases:
        with pytest.raises(OptionError, match=said):
            request()


def test_states_live_as_long_as_the_execution(executable: Executable) -> None:
    """What is decoded depends on the prompt before it; another execution knows nothing of it."""
    vocabulary = language_model(executable).prefill(PROMPT).shape[-1]

    def decoded(prompt: list[int]) -> npt.NDArray[Any]:
        execution = find_backend("reference").open(model_of(executable))
        session = LanguageModelSession(execution, vocabulary)
        session.prefill(prompt)
        return session.decode(7, len(prompt))

    assert np.array_equal(decoded(PROMPT), decoded(PROMPT))
    assert not np.array_equal(decoded(PROMPT), decoded([6, 18, 102]))


def test_an_unknown_backend() -> None:
    with pytest.raises(OptionError, match="no backend 'fpga'") as caught:
        find_backend("fpga")
    assert caught.value.hint == f"one of {', '.join(backend_names())}"
