"""Calibration: the `top` module runs in floating point on every sample, as the compiler's reference
has it, and its linear layers are watched."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from tilewright.backends.reference import numerics
from tilewright.backends.reference.executor import run_function
from tilewright.compiler.calibration.calibration import Calibration, model_fingerprint
from tilewright.compiler.calibration.methods import Method, MethodName
from tilewright.compiler.calibration.observe import LayerObserver, layer_of
from tilewright.compiler.calibration.samples import CalibrationData, input_names
from tilewright.compiler.language_model import ImportedModel, Tables
from tilewright.compiler.weights.source import WeightSource
from tilewright.compiler.workbench.blas_threads import threads_for
from tilewright.dialects.context import make_context
from tilewright.dialects.element_types import F32
from tilewright.dialects.errors import FitError, IRError, ModelReadError, UnsupportedError
from tilewright.dialects.graph import shape_of, storage_of
from tilewright.dialects.scopes import walk_calls
from tilewright.passes.add_score_function import LAST_POSITION, PREFILL, AddScoreFunctionPass

Array = npt.NDArray[Any]
OnSample = Callable[[int, int], None]
"""Called as `on_sample(done, total)`."""

_LEAST_PRODUCT = 1 << 31
"""Multiplications of a product that is worth threads: some 40 ms on one core, in f32. Where other
programs run, waiting for the other thread takes as long."""
_EVERY_ROW = "prefill.every_row"
"""What the prefill with all logits is called."""
_KEPT_BYTES = 1 << 30
"""Weights that are kept in f32 from one sample to the next; the others are read again."""


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
    `UnsupportedError` where no linear layer with a weight was reached, `FitError` where `hessian`
    asks for more memory than there is.
    """
    method = method if isinstance(method, Method) else Method(method)
    if not data.samples:
        raise ModelReadError("there are no samples to calibrate with", where=data.record.name)
    if weights is None:
        with model.open_weights() as container:
            return calibrate(
                model, data, method, hessian=hessian, weights=container, on_sample=on_sample
            )
    module, function, names = _observed_function(model, data.function)
    if hessian:
        _require_memory(module, function)
    observer = LayerObserver(hessian=hessian)
    reader = FloatWeights(weights, model.tables())
    with threads_for(module, _LEAST_PRODUCT):
        for index, sample in enumerate(data.samples):
            observer.begin(sample.where, positions=sample.positions, real=sample.tokens)
            run_function(
                module,
                function,
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


def _observed_function(model: ImportedModel, function: str) -> tuple[ModuleOp, str, list[str]]:
    """What runs for a function: the module, the function in it and the names of its inputs.

    For the prefill of a language model it is that with the logits of every row, so that the head is
    seen with all of its inputs, too; nothing else changes.
    """
    names = input_names(model, function)
    if function != PREFILL or LAST_POSITION not in names:
        return model.module, function, names
    module = model.module.clone()
    try:
        AddScoreFunctionPass(_EVERY_ROW).apply(make_context(), module)
    except IRError:  # What is behind the last position mixes rows: it is there for one row alone.
        return model.module, function, names
    return module, _EVERY_ROW, [name for name in names if name != LAST_POSITION]


class FloatWeights:
    """The weights of a `top` module in its types (f32, i32 for orders of inputs), read when they
    are asked for; a first part of them is kept for the next sample."""

    def __init__(self, source: WeightSource, tables: Tables) -> None:
        self._source = source
        self._tables = tables
        self._kept: dict[str, Array] = {}
        self._left = _KEPT_BYTES

    def __call__(self, key: str, op: Operation) -> Array:
        if key in self._kept:
            return self._kept[key]
        array = self._read(key, storage_of(op.results[0]).dtype)
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            self._kept[key] = array
        return array

    def _read(self, key: str, dtype: np.dtype[Any]) -> Array:
        if key in self._tables:
            return self._tables[key].astype(dtype, copy=False)
        quantized = self._source.quantized(key)
        if quantized is not None:
            codes = numerics.plain_codes(
                quantized.codes, quantized.scheme.format, quantized.shape[1]
            )
            return numerics.dequantize(
                codes, quantized.scale, F32, quantized.zero, quantized.scheme.format
            )
        rows = self._source.info(key).shape[0]
        return self._source.read_rows(key, 0, rows).astype(dtype)


def hessian_bytes(module: ModuleOp, function: str) -> int:
    """What the second moments of the inputs of all linear layers of a function take."""
    inputs = {
        (scope, layer[0].x)
        for op, scope in walk_calls(module, function)
        if (layer := layer_of(op)) is not None
    }
    return sum(8 * shape_of(value)[-1] ** 2 for _, value in inputs)


def _require_memory(module: ModuleOp, function: str) -> None:
    """Raise `FitError` where this machine has less memory than the second moments take."""
    needed = hessian_bytes(module, function)
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > has:
        raise FitError(
            "the second moments of the inputs do not fit the memory of this machine",
            why=f"they take {needed:,} bytes, and it has {has:,}",
            hint="calibrate without --hessian (AWQ, SmoothQuant and int8 do not need it)",
        )
