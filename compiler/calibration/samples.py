"""Calibration data made ready for a model: the inputs of one of its functions, sample by sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.calibration import data as files
from tilewright.compiler.calibration.calibration import DataRecord
from tilewright.compiler.language_model import ImportedModel, LanguageModel
from tilewright.compiler.runtime import lowest
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import ModelReadError, OptionError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import functions_of

Array = npt.NDArray[Any]

PREFILL = "prefill"


@dataclass(frozen=True)
class Sample:
    """The inputs of one run."""

    inputs: Mapping[str, Array]
    where: str
    positions: int = 0
    """The rows that a language model's tensors have; 0 for other models."""
    tokens: int = 0
    """Of these rows, the first so many stand for tokens."""


@dataclass(frozen=True)
class CalibrationData:
    """Samples for one function of one model."""

    function: str
    samples: tuple[Sample, ...]
    record: DataRecord


def load_data(
    path: Path, model: ImportedModel, *, function: str = "", limit: int | None = None
) -> CalibrationData:
    """The samples of a data file (see `calibration.data`), ready for `model`; the first `limit`.

    Token files are for language models and their prefill, `.npz` files for any `function` (the only
    public one if left out). Raises `ModelReadError` for a file that is damaged or does not fit,
    `OptionError` for options that make no sense.
    """
    _check_limit(limit)
    record = files.data_record(path)
    if path.suffix != ".npz":
        return _token_samples(files.read_tokens(path), model, record, function, limit)
    name = _function_name(model, function)
    arguments = functions_of(model.module)[name].body.block.args
    ports = {
        port: (shape_of(value), storage_of(value).dtype)
        for port, value in zip(input_names(model, name), arguments, strict=True)
    }
    samples = [
        Sample(inputs, where, **_lengths(model, name, inputs, where))
        for inputs, where in files.read_inputs(path, ports)
    ]
    return CalibrationData(name, tuple(samples[:limit]), record)


def token_data(
    model: ImportedModel, sequences: Sequence[Sequence[int]], *, name: str = "memory"
) -> CalibrationData:
    """Samples of token ids that are in memory; raises as `load_data` does."""
    samples = [
        files.TokenSample(np.array(ids, np.int64), f"sample {index} of {name}")
        for index, ids in enumerate(sequences)
    ]
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(len(sample.ids).to_bytes(8, "little") + sample.ids.tobytes())
    return _token_samples(samples, model, DataRecord(name, digest.hexdigest()), "", None)


def input_names(model: ImportedModel, function: str) -> list[str]:
    """The names of a function's inputs, as a compiled program has them."""
    arguments = functions_of(model.module)[function].body.block.args
    return [value.name_hint or f"input_{index}" for index, value in enumerate(arguments)]


def _token_samples(
    samples: Sequence[files.TokenSample],
    model: ImportedModel,
    record: DataRecord,
    function: str,
    limit: int | None,
) -> CalibrationData:
    if not isinstance(model, LanguageModel):
        raise OptionError(
            f"{model.name} is not a language model: token ids say nothing to it",
            hint="give the inputs of a function in an .npz file",
        )
    if function not in ("", PREFILL):
        raise OptionError(
            f"token ids are run through {PREFILL}, not {function}",
            hint="leave --function out, or give the function's inputs in an .npz file",
        )
    seq = model.summary.positions
    files.check_vocabulary(samples, model.summary.vocab_size)
    pieces = files.cut(samples, seq)[:limit]
    mask = np.where(np.tri(seq, dtype=bool), 0.0, lowest(F32)).astype(np.float32)
    return CalibrationData(
        PREFILL, tuple(_prefill_sample(piece, seq, mask) for piece in pieces), record
    )


def _prefill_sample(piece: files.TokenSample, seq: int, mask: Array) -> Sample:
    """A prompt, padded on the right; no token sees what comes after it."""
    count = len(piece.ids)
    ids = np.zeros(seq, np.int32)
    ids[:count] = piece.ids
    inputs = {
        "input_ids": ids,
        "position_ids": np.arange(seq, dtype=np.int32),
        "attention_mask": mask,
        "last_position": np.array([count - 1], np.int32),
    }
    return Sample(inputs, piece.where, positions=seq, tokens=count)


def _lengths(
    model: ImportedModel, function: str, inputs: Mapping[str, Array], where: str
) -> dict[str, int]:
    """How many rows of a language model's prefill stand for tokens: `last_position` says it."""
    if not isinstance(model, LanguageModel) or function != PREFILL:
        return {}
    seq = model.summary.positions
    last = int(inputs["last_position"][0])
    if not 0 <= last < seq:
        raise ModelReadError(
            f"the last position is {last}", where=where, why=f"the model has {seq} positions"
        )
    return {"positions": seq, "tokens": last + 1}


def _function_name(model: ImportedModel, function: str) -> str:
    """The public function to run: `function`, or the only one, or a language model's prefill."""
    public = [n for n, f in functions_of(model.module).items() if f.sym_visibility is None]
    if function:
        if function not in public:
            raise OptionError(
                f"{model.name} has no function {function!r}", hint=f"it has {', '.join(public)}"
            )
        return function
    if isinstance(model, LanguageModel):
        return PREFILL
    if len(public) != 1:
        raise OptionError(
            f"{model.name} has {len(public)} functions: which one the inputs are for is not said",
            hint=f"--function {' or '.join(public)}",
        )
    return public[0]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise OptionError(
            f"--samples is {limit}, at least 1 is needed", hint="leave it out to use all of them"
        )
