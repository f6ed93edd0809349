"""The pass `awq-scale`: inputs that matter get finer steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme
from tilewright.passes.tuning.clipping import clip_to_least_error
from tilewright.passes.tuning.data import Array, TuningData, tuning_data
from tilewright.passes.tuning.folds import NORM, Fold, find_folds
from tilewright.passes.tuning.layers import LinearLayer, linear_layers
from tilewright.passes.tuning.report import LayerReport
from tilewright.passes.tuning.rescaling import (
    apply_fold,
    by_class,
    check_not_stored,
    input_factors,
    normalized,
)
from tilewright.passes.tuning.rounding import Measured, energy, measure, round_to_nearest


@dataclass(frozen=True)
class AwqScalePass(ModulePass):
    """Multiply the columns of weights by factors that make quantization err less where inputs are
    large, and divide what makes these inputs by them (Lin et al., AWQ: Activation-aware Weight
    Quantization, arXiv 2306.00978).

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

    The factors are `s = mean|x_k|^alpha`, divided by `sqrt(max s * min s)`; of `grid` values of
    alpha from 0 to 1 the one with the least output error `tr(dW H dW^T)` after rounding to nearest
    is taken, summed over the layers that read the input. Inputs that nothing can be divided for
    (`passes/tuning/folds.py` says which can) and layers that would not gain stay as they are.

    Requires a verified module of `func` and `top` ops, and runs inside `tuning`; raises
    `OptionError` elsewhere, and after `gptq`. With statistics without Hessians inputs are taken as
    uncorrelated. Guarantees that the output errors of the layers that read an input do not grow,
    taken together.

    Option `grid`: values of alpha. Option `rows`: output channels of a layer that are looked at
    for the choice, 0 for all. Option `clip`: afterwards, limit the weights of each group to the
    part of their range, from 1 down to 0.5, with the least output error.
    """

    name = "awq-scale"

    grid: int = 20
    rows: int = 512
    clip: bool = False

    def __post_init__(self) -> None:
        if self.grid < 1 or self.rows < 0:
            raise OptionError("grid is at least 1, rows at least 0")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        data = tuning_data(self.name)
        layers = linear_layers(op, data)
        for fold in find_folds(op):
            _Search(self, fold, layers, data).run()
        if self.clip:
            for layer in layers.values():
                _clip(self.name, layer, data)


@dataclass
class _Search:
    """The choice of factors for one input."""

    options: AwqScalePass
    fold: Fold
    layers: dict[str, LinearLayer]
    data: TuningData

    def run(self) -> None:
        weights = self._quantized()
        if not weights or self._makes_int8():
            return
        check_not_stored(self.options.name, self.fold, self.data)
        alpha, factor = self._best(weights)
        measured = [self._measure(layer, factor) for layer in weights]
        is_better = sum(after.output_error - before.output_error for before, after in measured) < 0
        for layer, (before, after) in zip(weights, measured, strict=True):
            report = LayerReport(
                self.options.name,
                layer.key,
                layer.quant,
                is_better,
                before.error,
                after.error,
                "" if is_better else "no factors make the error smaller",
                (("alpha", alpha), ("largest factor", float(factor.max()))),
            )
            self.data.record(report)
        if is_better:
            apply_fold(self.fold, factor, self.layers, self.data)

    def _quantized(self) -> list[LinearLayer]:
        layers = [self.layers[key] for key in self.fold.consumers]
        return [each for each in layers if each.scheme and each.scheme.fits(each.depth)]

    def _makes_int8(self) -> bool:
        """Whether a calibrated range of outputs would change, which nobody knows afterwards."""
        if self.fold.kind == NORM:
            return False
        producers = (self.layers.get(producer.key) for producer in self.fold.producers)
        return any(each and each.scheme and each.scheme.int8_activations for each in producers)

    def _best(self, layers: list[LinearLayer]) -> tuple[float, Array]:
        """The best alpha and its factors `[C]`."""
        statistics = self.data.statistics(layers[0].key, reason=self.options.name)
        size = by_class(self.fold, statistics.mean_abs)
        samples = [(self._sample(layer), layer) for layer in layers]
        best = (np.inf, 0.0, np.ones(self.fold.classes))
        for step in range(self.options.grid):
            alpha = step / self.options.grid
            factor = normalized(size**alpha)
            error = sum(
                energy(sample - self._rounded(sample, layer.scheme, factor), statistics)
                for sample, layer in samples
                if layer.scheme is not None
            )
            if error < best[0]:
                best = (error, alpha, factor)
        return best[1:]

    def _sample(self, layer: LinearLayer) -> Array:
        """Output channels, evenly spaced."""
        weight = layer.read(self.data)
        step = max(1, len(weight) // self.options.rows) if self.options.rows else 1
        return np.ascontiguousarray(weight[::step])

    def _rounded(self, weight: Array, scheme: Scheme, factor: Array) -> Array:
        """What becomes of a weight if its columns are multiplied before they are rounded."""
        scale = input_factors(self.fold, factor)
        scaled = (weight * scale).astype(np.float32)
        values = round_to_nearest(scaled, scheme, self.data.scale_element).values()
        return (values / scale).astype(np.float32)

    def _measure(self, layer: LinearLayer, factor: Array) -> tuple[Measured, Measured]:
        """The layer without the factors, and with them."""
        assert layer.scheme is not None
        weight = layer.read(self.data)
        statistics = self.data.statistics(layer.key, reason=self.options.name)
        nearest = self._rounded(weight, layer.scheme, np.ones(self.fold.classes))
        rescaled = self._rounded(weight, layer.scheme, factor)
        return measure(weight, nearest, statistics), measure(weight, rescaled, statistics)


def _clip(pass_name: str, layer: LinearLayer, data: TuningData) -> None:
    """Limit the weights of a layer where that makes its output error smaller."""
    if layer.scheme is None or not layer.scheme.fits(layer.depth):
        return
    if data.weights.is_stored(layer.key):
        return
    weight = layer.read(data)
    statistics = data.statistics(layer.key, reason=pass_name)
    clipped = clip_to_least_error(weight, layer.scheme, data.scale_element, statistics)
    before, after = (
        measure(
            weight, round_to_nearest(each, layer.scheme, data.scale_element).values(), statistics
        )
        for each in (weight, clipped)
    )
    is_better = after.output_error < before.output_error
    if is_better:
        layer.replace(data, clipped)
    why = "" if is_better else "limits do not make the error smaller"
    data.record(
        LayerReport(
            f"{pass_name} clip", layer.key, layer.quant, is_better, before.error, after.error, why
        )
    )
