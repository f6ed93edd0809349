"""Weights that passes have changed, over the checkpoint that they come from.

`tune` runs passes that look at calibration data (`gptq`, `awq-scale`, `smooth-quant`) on the
weights of a module. What comes of it is a `WeightSource`: some tensors are replaced, some are kept
as codes, all others are the checkpoint's.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from tilewright.backends.reference import numerics
from tilewright.compiler.calibration.calibration import Calibration, LayerRange
from tilewright.compiler.quantization.tuning_passes import tuning_passes
from tilewright.compiler.quantization.tuning_report import TuningReport
from tilewright.compiler.weights.container import TensorInfo
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.compiler.weights.source import WeightSource
from tilewright.compiler.workbench.blas_threads import threads_for
from tilewright.compiler.workbench.runner import run_pipeline
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme
from tilewright.passes.tuning.data import TuningData, tuning

Array = npt.NDArray[Any]

_FOR = {
    "smooth-quant": "int8 layers behind a norm",
    "awq-scale": "quantized layers behind a norm, a gated product or attention",
    "gptq": "quantized layers",
}
"""The layers that each tuning pass looks at."""

_MOST_IN_MEMORY = 64 << 20
"""Replaced tensors of more bytes wait in a temporary file."""


def tune(
    module: ModuleOp,
    source: WeightSource,
    calibration: Calibration,
    passes: str,
    quant_of: Callable[[str], str],
    *,
    scale_element: ElementType = F16,
) -> tuple[TunedWeights, TuningReport]:
    """Run the tuning `passes` (`awq-scale,gptq{percdamp=0.05}`) on the weights of a top module.

    `quant_of` gives the scheme, or the dense type, of a linear layer by the resolved key of its
    weight; `scale_element` is the type of activations. The module stays as it is. Raises
    `OptionError` for passes that do something else, or find no layer to look at, and where the
    calibration lacks what a pass needs.
    """
    chosen = tuning_passes(passes)
    weights = TunedWeights(source)
    data = TuningData(weights, calibration.statistics, quant_of, scale_element)
    with tuning(data), threads_for(module):
        run_pipeline(module, chosen)
    _check_none_is_idle(passes, [each.name for each in chosen], data)
    ranges = adjusted_ranges(calibration, data.input_scales)
    return weights, TuningReport(passes, tuple(data.reports), ranges)


def _check_none_is_idle(passes: str, chosen: Sequence[str], data: TuningData) -> None:
    """Raise `OptionError` for a pass that looked at no layer: who asked for better rounding would
    take the model for one that has it."""
    worked = {report.pass_name for report in data.reports}
    for name in chosen:
        if name not in worked:
            raise OptionError(
                f"{name} finds no layer to change",
                where=f"--tune {passes!r}",
                why=f"it is for {_FOR[name]}",
                hint="another --quant, or leave the pass out",
            )


def adjusted_ranges(
    calibration: Calibration, input_scales: Mapping[str, Array]
) -> dict[str, LayerRange]:
    """The ranges of a calibration after inputs have been divided, channel by channel, by
    `input_scales`.

    The largest input becomes `max_k(absmax_k / s_k)`. A range that clips (percentile, KL, MSE) is
    not searched again: it keeps its ratio to the largest input. Ranges of outputs stay, as the
    function does.
    """
    ranges = dict(calibration.ranges)
    for key, scale in input_scales.items():
        statistics, known = calibration.statistics(key), ranges.get(key)
        if statistics is None or known is None:
            continue
        largest = float(statistics.absmax.max())
        ratio = float(np.max(statistics.absmax / scale)) / largest if largest > 0 else 1.0
        seen = known.input_largest
        ranges[key] = replace(
            known,
            input_absmax=known.input_absmax * ratio,
            input_largest=None if seen is None else seen * ratio,
        )
    return ranges


class TunedWeights:
    """A `WeightSource` whose tensors can be replaced, or kept as codes (`TunableWeights`)."""

    def __init__(self, source: WeightSource) -> None:
        self.source = source
        self.dense: dict[str, Array] = {}
        """The tensors that have been replaced, f32."""
        self.codes: dict[str, QuantizedWeight] = {}
        """The matrices that are kept as codes."""

    # What passes see.

    def read(self, key: str) -> Array:
        """The dense tensor as it is now, f32."""
        if key in self.dense:
            return self.dense[key]
        shape = self.source.info(key).shape
        rows = self.source.read_rows(key, 0, shape[0] if shape else 1)
        return rows.astype(np.float32).reshape(shape)

    def replace(self, key: str, array: Array) -> None:
        """Put a dense tensor of the same shape in the place of the one there was."""
        values = np.asarray(array, np.float32)
        if values.nbytes > _MOST_IN_MEMORY:
            with tempfile.TemporaryFile() as file:
                held = np.memmap(file, np.float32, "w+", shape=values.shape)
            held[...] = values
            values = held
        self.dense[key] = values

    def store(
        self, key: str, codes: Array, scale: Array, zero: Array | None, scheme: Scheme
    ) -> None:
        """Keep a matrix as codes i8 `[N, K]`, one in each element, scales and zero points."""
        elements = {element.dtype: element for element in (F16, BF16, F32)}
        self.codes[key] = QuantizedWeight(
            scheme,
            (codes.shape[0], codes.shape[1]),
            numerics.stored_codes(codes, scheme.format),
            scale,
            elements[scale.dtype],
            zero,
        )

    def is_stored(self, key: str) -> bool:
        """Whether the tensor is kept as codes, here or in the source."""
        return self.quantized(key) is not None

    # What the weight store sees.

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return self.source.keys()

    def info(self, key: str) -> TensorInfo:
        """Shape and type; the place is that of the tensor that it was made of."""
        info = self.source.info(key)
        if key not in self.dense:
            return info
        return replace(info, dtype="F32", size_bytes=self.dense[key].nbytes)

    def quantized(self, key: str) -> QuantizedWeight | None:
        """The tensor as it was quantized before; none if it is dense."""
        return self.codes[key] if key in self.codes else self.source.quantized(key)

    def read_rows(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows of a dense tensor, as `WeightContainer.read_rows`."""
        if key not in self.dense:
            return self.source.read_rows(key, start, stop, out)
        return _into(out, np.atleast_1d(self.dense[key])[start:stop])

    def read_columns(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Columns of a dense matrix, as `WeightContainer.read_columns`."""
        if key not in self.dense:
            return self.source.read_columns(key, start, stop, out)
        return _into(out, self.dense[key][:, start:stop])

    def fingerprints(self) -> dict[str, str]:
        """Those of the source, and the SHA-256 of all that is not the source's."""
        digest = hashlib.sha256()
        for key, array in sorted(self.dense.items()):
            digest.update(f"{key} {array.shape} dense".encode())
            digest.update(np.ascontiguousarray(array).data)
        for key, weight in sorted(self.codes.items()):
            digest.update(f"{key} {weight.shape} {weight.scheme.name}".encode())
            for part in (weight.codes, weight.scale, weight.zero):
                if part is not None:
                    digest.update(np.ascontiguousarray(part).view(np.uint8).data)
        return {**self.source.fingerprints(), "tuned": digest.hexdigest()}


def _into(out: Array | None, values: Array) -> Array:
    """`values` in the buffer `out`, if there is one."""
    if out is None:
        return np.ascontiguousarray(values)
    held = out[: values.nbytes].view(values.dtype).reshape(values.shape)
    np.copyto(held, values)
    return held
