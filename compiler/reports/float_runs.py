"""The float model, run with some weights replaced: to see its layers, and its output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation

from tilewright.backends.reference.executor import run_function
from tilewright.backends.reference.graph_run import Observer
from tilewright.compiler.calibration.observe import layer_of
from tilewright.compiler.calibration.run import FloatWeights
from tilewright.compiler.calibration.samples import CalibrationData, Sample, input_names
from tilewright.compiler.language_model import ImportedModel, LanguageModel
from tilewright.compiler.quantization.linear_weights import LinearWeight, linear_weights
from tilewright.compiler.reports.figures import ChannelSums
from tilewright.compiler.reports.sensitivity import EndToEnd
from tilewright.compiler.runtime import SCORE
from tilewright.compiler.weights.source import WeightSource
from tilewright.compiler.workbench.blas_threads import threads_for
from tilewright.dialects import graph
from tilewright.dialects.context import make_context
from tilewright.dialects.scopes import walk_calls
from tilewright.passes.add_score_function import PREFILL, AddScoreFunctionPass

Array = npt.NDArray[Any]


def scored(model: ImportedModel, data: CalibrationData) -> tuple[ImportedModel, CalibrationData]:
    """A language model whose prefill gives the logits of every position, and its data; any other
    model as it is. So the head sees all tokens, not the last of each sample alone."""
    if not isinstance(model, LanguageModel) or data.function != PREFILL:
        return model, data
    module = model.module.clone()
    AddScoreFunctionPass().apply(make_context(), module)
    return replace(model, module=module), replace(data, function=SCORE)


@dataclass
class FloatRuns:
    """Runs of one function of a model on samples, in f32."""

    model: ImportedModel
    data: CalibrationData
    source: WeightSource
    _reader: FloatWeights = field(init=False)
    _exact: list[Array] = field(init=False, default_factory=list[Array])

    def __post_init__(self) -> None:
        self._reader = FloatWeights(self.source, self.model.tables())

    def run(
        self,
        sample: Sample,
        changed: Mapping[str, Array] | None = None,
        on_op: Observer[Array] | None = None,
    ) -> list[Array]:
        """The results on one sample, with the weights `changed` in the place of the model's."""
        replaced = changed or {}

        def weight(key: str, op: Operation) -> Array:
            return replaced[key] if key in replaced else self._reader(key, op)

        names = input_names(self.model, self.data.function)
        with threads_for(self.model.module):
            return run_function(
                self.model.module,
                self.data.function,
                [sample.inputs[name] for name in names],
                weights=weight,
                states={},
                on_op=on_op,
            )

    def layers(self) -> Iterator[tuple[LinearWeight, Array]]:
        """The linear layers that the function runs, with their weights `[N, K]` as f32."""
        known = linear_weights(self.model.module)
        seen: set[str] = set()
        weights: dict[str, Operation] = {}
        for op, scope in walk_calls(self.model.module, self.data.function):
            if isinstance(op, graph.Weight):
                weights[scope + op.key.data] = op
            linear = layer_of(op)
            if linear is None:
                continue
            key = scope + linear[1].key.data
            if key in seen or key not in known:
                continue
            seen.add(key)
            matrix = self._reader(key, weights[key])
            yield known[key], matrix.T if known[key].transposed else matrix

    def end_to_end(self, layer: LinearWeight, made: Array) -> EndToEnd:
        """The error of the function's results with `made` `[N, K]` as the weight of `layer`.

        Runs the model once for each sample (and once more before the first layer).
        """
        if not self._exact:
            self._exact = [self._result(sample, {}) for sample in self.data.samples]
        changed = {layer.key: np.ascontiguousarray(made.T) if layer.transposed else made}
        total: ChannelSums | None = None
        divergence, rows = 0.0, 0
        is_logits = isinstance(self.model, LanguageModel)
        for sample, exact in zip(self.data.samples, self._exact, strict=True):
            result = self._result(sample, changed)
            sums = ChannelSums.of(exact, result)
            total = sums if total is None else total + sums
            if is_logits:
                divergence += float(divergences(exact, result).sum())
                rows += len(exact)
        snr = math.inf if total is None else total.snr_db
        return EndToEnd(snr, divergence / rows if rows else None)

    def _result(self, sample: Sample, changed: Mapping[str, Array]) -> Array:
        """The first result that is floating-point, `[rows, channels]`, without padding."""
        result = next(x for x in self.run(sample, changed) if x.dtype.kind == "f")
        if 0 < sample.tokens < sample.positions == len(result):
            result = result[: sample.tokens]
        return result.reshape(-1, result.shape[-1] if result.ndim else 1)


def divergences(exact: Array, made: Array) -> Array:
    """`sum p ln(p / q)` in nats of each row of logits, `p` of the exact ones; f64 `[rows]`."""
    log_p, log_q = _log_softmax(exact), _log_softmax(made)
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0.0)


def _log_softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
