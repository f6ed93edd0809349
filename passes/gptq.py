"""The pass `gptq`: weights are rounded so that errors cancel on calibration inputs."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.dialects.errors import OptionError
from tilewright.passes.tuning.compensated import Compensation, round_with_compensation
from tilewright.passes.tuning.data import ScaledStatistics, TuningData, tuning_data
from tilewright.passes.tuning.layers import LinearLayer, linear_layers
from tilewright.passes.tuning.report import LayerReport
from tilewright.passes.tuning.rounding import measure, round_to_nearest


@dataclass(frozen=True)
class GptqPass(ModulePass):
    """Round the weights of linear layers to integer codes by GPTQ (Frantar et al., arXiv
    2210.17323): the columns that are still to come make up for the error of each column.

    The module stays as it is: the codes, scales and zero points go to the weights that the pass
    works on (`passes/tuning`), and are compiled as they are.

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x32xf32> {
      %w = top.Weight "proj.weight" : tensor<32x64xf32>
      %y = top.MatMul %x, %w {right_transpose} :
        tensor<4x64xf32>, tensor<32x64xf32> -> tensor<4x32xf32>
      func.return %y : tensor<4x32xf32>
    }
    ```

    -->

    ```mlir
    func.func @f(%x: tensor<4x64xf32>) -> tensor<4x32xf32> {
      %w = top.Weight "proj.weight" : tensor<32x64xf32>  // kept as codes, scales, zero points
      %y = top.MatMul %x, %w {right_transpose} :
        tensor<4x64xf32>, tensor<32x64xf32> -> tensor<4x32xf32>
      func.return %y : tensor<4x32xf32>
    }
    ```

    Requires a verified module of `func` and `top` ops, and runs inside `tuning` with statistics
    that have Hessians; raises `OptionError` elsewhere. Rescaling passes (`awq-scale`,
    `smooth-quant`) go before it. Guarantees that no layer's output error grows on the calibration's
    inputs: a layer for which rounding to nearest is better is left to it. So are layers in 8-bit
    floats; those that stay dense are left alone.

    Option `percdamp`: what is added to the Hessian's diagonal, as a part of its mean. Option
    `act_order`: columns with the largest inputs first, the scales of groups those of the weights as
    they are (the stored layout does not change). Without it, option `static_groups`: such scales
    nevertheless; else they are found when a group is reached.
    """

    name = "gptq"

    percdamp: float = 0.01
    act_order: bool = True
    static_groups: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.percdamp < float("inf"):
            raise OptionError(f"percdamp is {self.percdamp}, not a finite number of at least 0")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        data = tuning_data(self.name)
        for layer in linear_layers(op, data).values():
            if layer.scheme is not None:
                data.record(self._round(layer, data))

    def _round(self, layer: LinearLayer, data: TuningData) -> LayerReport:
        scheme = layer.scheme
        assert scheme is not None
        reason = self._obstacle(layer, data)
        if reason:
            return LayerReport(self.name, layer.key, layer.quant, False, why=reason)
        weight = layer.read(data)
        hessian = data.hessian(layer.key, reason=self.name)
        statistics = data.statistics(layer.key, reason=self.name)
        seen = ScaledStatistics(statistics.absmax, statistics.mean_abs, hessian)
        how = Compensation(self.percdamp, self.act_order, self.static_groups)
        rounded = round_with_compensation(weight, hessian, scheme, data.scale_element, how)
        nearest = round_to_nearest(weight, scheme, data.scale_element)
        before = measure(weight, nearest.values(), seen).error
        after = measure(weight, rounded.values(), seen).error
        is_better = after.output_db > before.output_db
        if is_better:
            data.weights.store(layer.key, rounded.codes, rounded.scale, rounded.zero, scheme)
        why = "" if is_better else "its output error would not shrink"
        return LayerReport(self.name, layer.key, layer.quant, is_better, before, after, why)

    def _obstacle(self, layer: LinearLayer, data: TuningData) -> str:
        """Why a layer is left as it is; empty if it is not."""
        assert layer.scheme is not None
        if layer.scheme.format.is_float:
            return "codes of 8-bit floats are rounded to nearest"
        if not layer.scheme.fits(layer.depth):
            return f"groups of {layer.scheme.group} do not divide its {layer.depth} inputs"
        if data.weights.is_stored(layer.key):
            return "it is kept as codes already"
        return ""
