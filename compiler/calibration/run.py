"""Calibration: the `top` module runs in floating point on every sample, as the compiler's reference
has it, and its linear layers are watched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation

from tilewright.backends.reference import numerics
from tilewright.backends.reference.executor import run_function
from tilewright.compiler.calibration import data as files
from tilewright.compiler.calibration.calibration import (
    Calibration,
    DataRecord,
    model_fingerprint,
)
from tilewright.compiler.calibration.methods import Method, MethodName
from tilewright.compiler.calibration.observe import LayerObserver
from tilewright.compiler.language_model import ImportedModel, LanguageModel, Tables
from tilewright.compiler.runtime import lowest
from tilewright.compiler.weights.source import WeightSource
from tilewright.compiler.workbench.blas_threads import threads_for
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import functions_of

Array = npt.NDArray[Any]
OnSample = Callable[[int, int], None]
"""Called as `on_sample(done, total)`."""

PREFILL = "prefill"
_KEPT_BYTES = 1 << 30
"""Weights that are kept in f32 from one sample to the next; the others are read again."""


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
        value.name_hint or f"input_{index}": (shape_of(value), storage_of(value).dtype)
        for index, value in enumerate(arguments)
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


def calibrate(
    model: ImportedModel,
    data: CalibrationData,
    method: Method | MethodName = "minmax",
    *,
    hessian: bool = False,
    weights: WeightSource | None = None,
    on_sample: OnSample | None = None,
) -> Calibration:
    """Run every sample and take the ranges of all linear layers that it goes through.

    The model runs in f32 (f32 sums of exact products, docs/numerics.md). Padding does not count:
    only rows that stand for tokens do. With `hessian` the second moments of the inputs are kept,
    too, `8 K^2` bytes for a tensor of K channels. `weights` stands for the model's checkpoint.

    Raises `ModelReadError` where there are no samples, or a tensor is not finite,
    `UnsupportedError` where no linear layer with a weight was reached.
    """
    method = method if isinstance(method, Method) else Method(method)
    if not data.samples:
        raise ModelReadError("there are no samples to calibrate with", where=data.record.name)
    if weights is None:
        with model.open_weights() as container:
            return calibrate(
                model, data, method, hessian=hessian, weights=container, on_sample=on_sample
            )
    observer = LayerObserver(hessian=hessian)
    reader = _WeightReader(weights, model.tables())
    arguments = functions_of(model.module)[data.function].body.block.args
    names = [value.name_hint or f"input_{index}" for index, value in enumerate(arguments)]
    with threads_for(model.module):
        for index, sample in enumerate(data.samples):
            observer.begin(sample.where, positions=sample.positions, real=sample.tokens)
            run_function(
                model.module,
                data.function,
                [sample.inputs[name] for name in names],
                weights=reader,
                states={},
                on_op=observer,
            )
            if on_sample is not None:
                on_sample(index + 1, len(data.samples))
    observed = observer.finish(method)
    if not observed.ranges:
        raise UnsupportedError(
            f"@{data.function} has no linear layers with weights",
            why="there is nothing to calibrate",
        )
    tokens = sum(s.tokens for s in data.samples) or max(r.count for r in observed.ranges.values())
    return Calibration(
        method=method,
        samples=len(data.samples),
        tokens=tokens,
        model=model.name,
        fingerprint=model_fingerprint(model.module, weights),
        data=data.record,
        ranges=observed.ranges,
        input_statistics=observed.statistics,
    )


class _WeightReader:
    """The weights of a `top` module in f32, read when they are asked for; a first part of them is
    kept for the next sample."""

    def __init__(self, source: WeightSource, tables: Tables) -> None:
        self._source = source
        self._tables = tables
        self._kept: dict[str, Array] = {}
        self._left = _KEPT_BYTES

    def __call__(self, key: str, op: Operation) -> Array:
        if key in self._kept:
            return self._kept[key]
        array = self._read(key)
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            self._kept[key] = array
        return array

    def _read(self, key: str) -> Array:
        if key in self._tables:
            return self._tables[key].astype(np.float32, copy=False)
        quantized = self._source.quantized(key)
        if quantized is not None:
            codes = numerics.plain_codes(
                quantized.codes, quantized.scheme.format, quantized.shape[1]
            )
            return numerics.dequantize(
                codes, quantized.scale, F32, quantized.zero, quantized.scheme.format
            )
        rows = self._source.info(key).shape[0]
        return self._source.read_rows(key, 0, rows).astype(np.float32)


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
        raise OptionError(f"token ids are run through {PREFILL}, not {function}")
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
            f"{model.name} has {len(public)} functions", hint=f"--function {' or '.join(public)}"
        )
    return public[0]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise OptionError(f"--samples is {limit}, at least 1 is needed")
