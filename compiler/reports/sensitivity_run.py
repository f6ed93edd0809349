"""`tw sensitivity`: the figures of all layers of a model in several schemes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilewright.compiler.calibration import Calibration, CalibrationData, calibrate, check_model
from tilewright.compiler.language_model import ImportedModel
from tilewright.compiler.quantization.linear_weights import LinearWeight
from tilewright.compiler.reports.float_runs import FloatRuns, scored
from tilewright.compiler.reports.int8_layers import Int8Observer, activation_noise
from tilewright.compiler.reports.sensitivity import (
    LayerFigures,
    NotPossible,
    QuantizedMatrix,
    layer_figures,
    matrix_sums,
    possible_schemes,
    with_shares,
)
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.element_types import F16, ElementType
from tilewright.dialects.errors import OptionError, UnsupportedError
from tilewright.dialects.quantization import Scheme, parse_scheme
from tilewright.dialects.scopes import functions_of

OnStep = Callable[[str], None]
"""Hears what is being done, a line each."""


@dataclass(frozen=True)
class Sensitivity:
    """The figures of each layer in each scheme, worst first."""

    model: str
    samples: int
    tokens: int
    rows: tuple[LayerFigures, ...]
    not_possible: tuple[NotPossible, ...]
    order: tuple[str, ...] = ()
    """The layers in order of execution."""

    def to_json(self) -> dict[str, Any]:
        """What `tw sensitivity --json` prints (docs/json.md)."""
        return {
            "model": self.model,
            "samples": self.samples,
            "tokens": self.tokens,
            "layers": [row.to_json() for row in self.rows],
            "not_possible": [vars(each) for each in self.not_possible],
        }


def sensitivity(
    model: ImportedModel,
    data: CalibrationData | None,
    schemes: Sequence[str],
    *,
    calibration: Calibration | None = None,
    end_to_end: bool = False,
    element: ElementType = F16,
    on_step: OnStep = lambda line: None,
) -> Sensitivity:
    """Measure every linear layer of a model in every scheme.

    The inputs of layers are those of `data` (a language model's prefill at every position) or,
    without data, the second moments that a `calibration` kept (`tw calibrate --hessian`). A
    calibration also gives `int8` its ranges; without one they are the largest values of `data`.
    `element` is the type of activations and scales. With `end_to_end` the float model runs once
    more for each row of the report and sample.

    Raises what `calibrate` and `check_model` raise; `OptionError` where neither data nor second
    moments are given, or data are missing for `int8` and `end_to_end`.
    """
    wanted = list(dict.fromkeys(parse_scheme(name).name for name in schemes))
    if not wanted:
        raise OptionError("there are no schemes to look at", hint="--schemes w8a16,w4a16")
    if data is None:
        _check_without_data(calibration, wanted, end_to_end)
    with model.open_weights() as source:
        if calibration is not None:
            check_model(calibration, model.module, source)
        return _measured(model, data, wanted, calibration, source, end_to_end, element, on_step)


def _check_without_data(
    calibration: Calibration | None, schemes: Sequence[str], end_to_end: bool
) -> None:
    if calibration is None:
        raise OptionError(
            "there are no inputs to measure the layers on",
            hint="--data tokens.jsonl, or --calibration of tw calibrate --hessian",
        )
    for asked, name in ((end_to_end, "--end-to-end"), ("int8" in schemes, "int8")):
        if asked:
            raise OptionError(
                f"{name} needs --data",
                why="the model is run for it; a calibration holds no samples",
            )


def _measured(
    model: ImportedModel,
    data: CalibrationData | None,
    schemes: Sequence[str],
    calibration: Calibration | None,
    source: WeightSource,
    end_to_end: bool,
    element: ElementType,
    on_step: OnStep,
) -> Sensitivity:
    moments = calibration
    if data is not None:
        model, data = scored(model, data)
        on_step(f"running the float model on {len(data.samples)} samples")
        moments = calibrate(model, data, hessian=True, weights=source)
    assert moments is not None
    samples = data or CalibrationData(_first_function(model), (), moments.data)
    runs = FloatRuns(model, samples, source)
    layers = {layer.key: (layer, matrix) for layer, matrix in runs.layers()}
    if not layers:
        raise UnsupportedError(f"{model.name} has no linear layers", why="nothing is quantized")
    possible, refused = possible_schemes({k: layer for k, (layer, _) in layers.items()}, schemes)
    ranges = (calibration or moments).ranges
    int8 = {
        key: QuantizedMatrix.of(matrix, parse_scheme("int8"), element, key)
        for key, (_, matrix) in layers.items()
        if any(scheme.int8_activations for scheme in possible[key])
    }
    observer = Int8Observer(int8, ranges)
    for sample in samples.samples if int8 else ():
        observer.begin(sample)
        runs.run(sample, on_op=observer)
    rows: list[LayerFigures] = []
    count = sum(len(each) for each in possible.values())
    if end_to_end:
        on_step(f"end to end: {count} x {len(samples.samples)} runs of the float model")
    for key, (layer, matrix) in layers.items():
        statistics = moments.statistics(key)
        hessian = None if statistics is None else statistics.hessian
        if hessian is None:
            raise OptionError(
                f"the calibration has no second moments of the inputs of {key}",
                hint="tw calibrate --hessian, or --data here",
            )
        for scheme in possible[key]:
            rows.append(_row(layer, matrix, scheme, hessian, moments, observer, element))
            if end_to_end and not scheme.int8_activations:
                made = QuantizedMatrix.of(matrix, scheme, element, key).made
                rows[-1] = replace(rows[-1], end_to_end=runs.end_to_end(layer, made))
        on_step(f"[{len(rows):4d}/{count:4d}] {key}")
    return Sensitivity(
        model.name,
        moments.samples,
        moments.tokens,
        tuple(with_shares(rows)),
        tuple(refused),
        tuple(layers),
    )


def _row(
    layer: LinearWeight,
    weight: np.ndarray,
    scheme: Scheme,
    hessian: np.ndarray,
    moments: Calibration,
    observer: Int8Observer,
    element: ElementType,
) -> LayerFigures:
    matrix = QuantizedMatrix.of(weight, scheme, element, layer.key)
    rows = moments.ranges[layer.key].count
    if not scheme.int8_activations:
        return layer_figures(layer, matrix, hessian, rows)
    signal = float(matrix_sums(matrix, hessian).signal.sum())
    added = activation_noise(matrix, observer.ranges[layer.key], signal)
    return layer_figures(layer, matrix, hessian, rows, observer.sums[layer.key], added)


def _first_function(model: ImportedModel) -> str:
    public = [n for n, f in functions_of(model.module).items() if f.sym_visibility is None]
    return public[0]
