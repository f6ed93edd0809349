"""The pass `smooth-quant`: outliers move from the inputs into the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.dialects.errors import OptionError
from tilewright.passes.tuning.data import Array, Statistics, TuningData, tuning_data
from tilewright.passes.tuning.folds import NORM, Fold, find_folds
from tilewright.passes.tuning.layers import LinearLayer, linear_layers
from tilewright.passes.tuning.report import LayerReport
from tilewright.passes.tuning.rescaling import apply_fold, check_not_stored, normalized
from tilewright.passes.tuning.rounding import (
    Measured,
    energy,
    round_to_nearest,
    second_moments,
)

INT8_STEPS = 127


@dataclass(frozen=True)
class SmoothQuantPass(ModulePass):
    """Divide the inputs of int8 layers by factors that even out their channels, and multiply the
    columns of the weights by them (Xiao et al., SmoothQuant, arXiv 2211.10438).

    The module stays as it is: only weights change (`passes/tuning`), and the float function stays
    the same but for roundings.

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x32xf32> {
      %g = top.Weight "norm.weight" : tensor<64xf32>
      %h = top.RMSNorm %x weight %g {eps = 9.99999974E-6 : f32} :
        tensor<4x64xf32>, tensor<64xf32> -> tensor<4x64xf32>
      %w = top.Weight "proj.weight" : tensor<32x64xf32>
      %y = top.MatMul %h, %w {right_transpose} :
        tensor<4x64xf32>, tensor<32x64xf32> -> tensor<4x32xf32>
      func.return %y : tensor<4x32xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x32xf32> {
      %g = top.Weight "norm.weight" : tensor<64xf32>  // divided by s
      %h = top.RMSNorm %x weight %g {eps = 9.99999974E-6 : f32} :
        tensor<4x64xf32>, tensor<64xf32> -> tensor<4x64xf32>
      %w = top.Weight "proj.weight" : tensor<32x64xf32>  // columns multiplied by s
      %y = top.MatMul %h, %w {right_transpose} :
        tensor<4x64xf32>, tensor<32x64xf32> -> tensor<4x32xf32>
      func.return %y : tensor<4x32xf32>
    }
    ```

    The factors are `s_k = max|x_k|^alpha / max|w_k|^(1 - alpha)`, over all inputs of the
    calibration and all int8 layers that read them, divided by `sqrt(max s * min s)`. They go into
    the normalization before the layers; inputs that come from elsewhere stay as they are, for the
    range of another layer's output would change.

    Guarantees that the output errors of the layers that read an input do not grow, taken together:
    else they stay as they are. That error is the one of the weights,
    `tr(dW H dW^T)`, and the one of the inputs: uniform within a step of `max|x| / 127`, so of
    energy `step^2 / 12`, but never more than the input itself, which may be rounded to 0.
    Calibrated ranges of inputs change with the factors: `TuningData.input_scales` has what they
    were divided by.

    Requires a verified module of `func` and `top` ops, and runs inside `tuning`; raises
    `OptionError` elsewhere, and after `gptq`.

    Option `alpha`: how much of the outliers goes into the weights, from 0 to 1.
    """

    name = "smooth-quant"

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"alpha is {self.alpha}, not a number from 0 to 1")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        data = tuning_data(self.name)
        layers = linear_layers(op, data)
        for fold in find_folds(op):
            if fold.kind == NORM:
                self._smooth(fold, layers, data)

    def _smooth(self, fold: Fold, layers: dict[str, LinearLayer], data: TuningData) -> None:
        readers = [layers[key] for key in fold.consumers]
        readers = [each for each in readers if each.scheme and each.scheme.int8_activations]
        if not readers:
            return
        check_not_stored(self.name, fold, data)
        statistics = data.statistics(readers[0].key, reason=self.name)
        weights = {each.key: each.read(data) for each in readers}
        factor = smoothing_factors(statistics.absmax, list(weights.values()), self.alpha)
        ones = np.ones(len(factor))
        measured = [
            [_measure(weights[each.key], each, scale, statistics, data) for scale in (ones, factor)]
            for each in readers
        ]
        is_better = sum(after.output_error - before.output_error for before, after in measured) < 0
        for reader, (before, after) in zip(readers, measured, strict=True):
            data.record(
                LayerReport(
                    self.name,
                    reader.key,
                    reader.quant,
                    is_better,
                    before.error,
                    after.error,
                    "" if is_better else "the output error would not shrink",
                    (("largest factor", float(factor.max())),),
                )
            )
        if is_better:
            apply_fold(fold, factor, layers, data)


def smoothing_factors(absmax: Array, weights: list[Array], alpha: float) -> Array:
    """`absmax_x^alpha / absmax_w^(1 - alpha)`, normalized, f64 `[K]`; an input or a column that is
    always 0 has the mean factor, for it does not matter."""
    of_weights = np.max([np.max(np.abs(weight), axis=0) for weight in weights], axis=0)
    inputs, columns = absmax.astype(np.float64), of_weights.astype(np.float64)
    is_there = (inputs > 0) & (columns > 0)
    factor = np.ones(len(inputs))
    factor[is_there] = inputs[is_there] ** alpha / columns[is_there] ** (1 - alpha)
    if is_there.any():
        factor[~is_there] = factor[is_there].mean()
    return normalized(factor)


def _measure(
    weight: Array, layer: LinearLayer, scale: Array, statistics: Statistics, data: TuningData
) -> Measured:
    """The layer with its columns multiplied by `scale` and its inputs divided by it, in int8."""
    assert layer.scheme is not None
    scaled = (weight * scale).astype(np.float32)
    values = round_to_nearest(scaled, layer.scheme, data.scale_element).values()
    difference = weight - (values / scale).astype(np.float32)
    step = float(np.max(statistics.absmax / scale)) / INT8_STEPS
    of_an_input = np.minimum(step**2 / 12, second_moments(statistics) / scale**2)
    of_inputs = float(np.sum(values.astype(np.float64) ** 2 @ of_an_input))
    return Measured(
        energy(weight, statistics),
        energy(difference, statistics) + of_inputs,
        float(np.sum(weight.astype(np.float64) ** 2)),
        float(np.sum(difference.astype(np.float64) ** 2)),
    )
