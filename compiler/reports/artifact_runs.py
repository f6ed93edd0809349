"""Artifacts to compare, and the runs to compare them on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.program import Function
from tilewright.compiler.artifact import Artifact, open_artifact
from tilewright.compiler.calibration.data import (
    check_vocabulary,
    read_inputs,
    read_tokens,
)
from tilewright.compiler.perplexity import windows_of
from tilewright.compiler.reports.model_error import Run
from tilewright.compiler.runtime import SCORE, LanguageModelSession, Session
from tilewright.dialects.context import parse_module
from tilewright.dialects.errors import OptionError

Array = npt.NDArray[Any]

DEFAULT_PROMPT_TOKENS = 5


@dataclass(frozen=True)
class OpenModel:
    """An artifact on a machine of its own."""

    path: Path
    artifact: Artifact
    module: ModuleOp
    session: Session

    @staticmethod
    def of(path: Path) -> OpenModel:
        """Open an artifact; raises `ArtifactError`."""
        artifact = open_artifact(path)
        module = parse_module(artifact.module_text, f"{path}:module.mlir")
        session = Session(artifact.program, artifact.chip, artifact.weight)
        return OpenModel(path, artifact, module, session)

    @property
    def functions(self) -> dict[str, Function]:
        return {function.name: function for function in self.artifact.program.functions}

    @property
    def is_language_model(self) -> bool:
        return {"prefill", "decode"} <= set(self.functions)

    @property
    def vocabulary(self) -> int:
        return int(self.artifact.manifest.model["vocab_size"])

    @property
    def positions(self) -> int:
        """The positions that a language model is compiled for."""
        ports = {port.name: port for port in self.functions["prefill"].inputs}
        return ports["input_ids"].shape[0]

    @property
    def activations(self) -> str:
        """The type of activations."""
        options = self.artifact.manifest.options
        quant = str(options.get("quant", ""))
        return quant if quant in ("f32", "f16", "bf16") else str(options.get("act", "f16"))

    def language_model(self) -> LanguageModelSession:
        return LanguageModelSession(self.session, self.vocabulary)


@dataclass(frozen=True)
class Inputs:
    """Where the inputs of a comparison come from."""

    prompt: list[int]
    data: Path | None = None
    function: str = ""
    seed: int = 0
    samples: int | None = None

    def runs(self, model: OpenModel) -> list[Run]:
        """The runs, for a model. Raises `OptionError` for what the model lacks, `ModelReadError`
        for data that do not fit."""
        if self.function and self.function not in model.functions:
            known = ", ".join(model.functions)
            raise OptionError(
                f"{model.path} has no function {self.function!r}", hint=f"it has {known}"
            )
        if self.samples is not None and self.samples < 1:
            raise OptionError(
                f"--samples is {self.samples}, at least 1 is needed",
                hint="leave it out to use all of them",
            )
        if self.data is not None and self.data.suffix == ".npz":
            return list(self._array_runs(model, self.data))[: self.samples]
        if self.data is not None:
            return list(self._token_runs(model, self.data))
        if model.is_language_model:
            return list(self._prompt_runs(model))
        rng = np.random.default_rng(self.seed)
        return [
            Run(each.name, made_up_inputs(each, rng))
            for each in model.functions.values()
            if self.function in ("", each.name)
        ]

    def _array_runs(self, model: OpenModel, path: Path) -> Iterator[Run]:
        names = [self.function] if self.function else list(model.functions)
        if len(names) > 1:
            raise OptionError(
                "which function the inputs are for is not said",
                hint=f"--function {' or '.join(names)}",
            )
        ports = model.functions[names[0]].inputs
        wanted = {port.name: (port.shape, port.element.dtype) for port in ports}
        for inputs, _ in read_inputs(path, wanted):
            yield Run(names[0], inputs)

    def _token_runs(self, model: OpenModel, path: Path) -> Iterator[Run]:
        if not model.is_language_model:
            raise OptionError(
                f"{model.path} is not a language model: token ids say nothing to it",
                hint="give the inputs of a function in an .npz file",
            )
        samples = read_tokens(path)
        check_vocabulary(samples, model.vocabulary)
        function = SCORE if SCORE in model.functions else "prefill"
        if self.function not in ("", function):
            raise OptionError(
                f"token ids are run through {function}, not {self.function}",
                hint="leave --function out, or give the function's inputs in an .npz file",
            )
        language_model, seq = model.language_model(), model.positions
        ids = [sample.ids.tolist() for sample in samples]
        for window in windows_of(ids, seq)[: self.samples]:
            inputs = language_model.prefill_inputs(window)
            if function == SCORE:
                del inputs["last_position"]
            yield Run(function, inputs, seq, len(window))

    def _prompt_runs(self, model: OpenModel) -> Iterator[Run]:
        language_model, seq = model.language_model(), model.positions
        prompt = self.prompt
        if not prompt:
            count = min(DEFAULT_PROMPT_TOKENS, seq - 1)
            rng = np.random.default_rng(self.seed)
            prompt = [int(i) for i in rng.integers(0, model.vocabulary, max(count, 1))]
        language_model.check_prompt(prompt, 2 if seq > 1 else 1)
        if self.function in ("", "prefill", "decode"):
            yield Run("prefill", language_model.prefill_inputs(prompt), seq, len(prompt))
        if self.function in ("", "decode"):
            # Any token will do, as long as both sides get the same.
            yield Run("decode", language_model.decode_inputs(prompt[-1], len(prompt)))
        if self.function == SCORE:
            inputs = language_model.prefill_inputs(prompt)
            del inputs["last_position"]
            yield Run(SCORE, inputs, seq, len(prompt))


def made_up_inputs(function: Function, rng: np.random.Generator) -> dict[str, Array]:
    """Random inputs: standard normal floats, index 0 for integers."""
    return {
        port.name: rng.standard_normal(port.shape)
        if port.element.is_float
        else np.zeros(port.shape, np.int32)
        for port in function.inputs
    }
