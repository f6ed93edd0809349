"""What passes that change weights work on: the weights and the statistics of their inputs, by
resolved key, in a context variable.

    with tuning(TuningData(weights, statistics, quant)):
        run_pipeline(module, passes)

`top.Weight` ops are keys, not data (docs/decisions/0004), so these passes leave the module as it
is. What they change is in `weights`, what they have done in `reports`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewright.dialects.element_types import F16, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme
from tilewright.passes.tuning.report import LayerReport

Array = npt.NDArray[Any]

LOG = logging.getLogger("tilewright.tuning")
"""Each report is a line of it, at level INFO."""


class TunableWeights(Protocol):
    """Weights that passes may change."""

    def read(self, key: str) -> Array:
        """The tensor as the model reads it, f32 (or f64); not to be written to. Raises
        `ModelReadError` where there is none of that name."""
        ...

    def replace(self, key: str, array: Array) -> None:
        """Put a dense tensor in the place of another of its shape."""
        ...

    def store(
        self, key: str, codes: Array, scale: Array, zero: Array | None, scheme: Scheme
    ) -> None:
        """Keep a matrix as codes `[N, K]` (one in each element, as integers), stored scales and
        zero points `[N, G]`, to be used as they are."""
        ...

    def is_stored(self, key: str) -> bool:
        """Whether the tensor is kept as codes already."""
        ...


class Statistics(Protocol):
    """What is known of the inputs `x[..., K]` of a linear layer, over many rows."""

    @property
    def absmax(self) -> Array:
        """`max |x_k|`, `[K]`."""
        ...

    @property
    def mean_abs(self) -> Array:
        """`mean |x_k|`, `[K]`."""
        ...

    @property
    def hessian(self) -> Array | None:
        """`X^T X / rows`, f64 `[K, K]`, if it was gathered."""
        ...


@dataclass(frozen=True)
class ScaledStatistics:
    """`Statistics` of inputs that have been divided, channel by channel."""

    absmax: Array
    mean_abs: Array
    hessian: Array | None


@dataclass
class TuningData:
    """Weights, statistics and schemes of a module, and what has become of them."""

    weights: TunableWeights
    statistics_of: Callable[[str], Statistics | None]
    """The calibration's statistics of a linear layer, by the resolved key of its weight."""
    quant_of: Callable[[str], str]
    """What the weight of a linear layer is to be stored as: a scheme, or a dense type."""
    scale_element: ElementType = F16
    """The type of stored scales: that of activations."""
    input_scales: dict[str, Array] = field(default_factory=dict[str, Array])
    """What the inputs of layers have been divided by so far, f64 `[K]`, by resolved key."""
    reports: list[LayerReport] = field(default_factory=list[LayerReport])

    def statistics(self, key: str, *, reason: str) -> Statistics:
        """The statistics of a layer's inputs as they are now, after `divide_inputs`.

        Raises `OptionError` where the calibration keeps none, or did not see the layer.
        """
        found = self.statistics_of(key)
        if found is None:
            raise OptionError(
                f"there are no statistics of the inputs of {key!r}",
                why=f"{reason} needs them; the calibration was written without, or did not see "
                "the layer",
                hint="tw calibrate --statistics on this model, or --hessian, which gptq needs",
            )
        scale = self.input_scales.get(key)
        if scale is None:
            return found
        hessian = found.hessian
        return ScaledStatistics(
            found.absmax / scale,
            found.mean_abs / scale,
            None if hessian is None else hessian / np.outer(scale, scale),
        )

    def hessian(self, key: str, *, reason: str) -> Array:
        """The Hessian of a layer's inputs as they are now; raises `OptionError` if there is none,
        or one that is not finite."""
        hessian = self.statistics(key, reason=reason).hessian
        if hessian is None:
            raise OptionError(
                f"there is no Hessian of the inputs of {key!r}",
                why=f"{reason} needs the second moments of the inputs",
                hint="tw calibrate --hessian",
            )
        if not np.isfinite(hessian).all():
            raise OptionError(
                f"the Hessian of the inputs of {key!r} is not finite",
                hint="calibrate again: the data or the model made NaN or infinity",
            )
        return hessian

    def record(self, report: LayerReport) -> None:
        """Keep a report, and log it."""
        self.reports.append(report)
        LOG.info("%s", report.line())

    def divide_inputs(self, key: str, scale: Array) -> None:
        """Say that a layer's inputs are divided by `scale` `[K]` from now on."""
        self.input_scales[key] = self.input_scales.get(key, np.ones(len(scale))) * scale


_DATA: ContextVar[TuningData | None] = ContextVar("tuning_data", default=None)


@contextmanager
def tuning(data: TuningData) -> Generator[TuningData]:
    """Let the passes that run inside work on `data`."""
    token = _DATA.set(data)
    try:
        yield data
    finally:
        _DATA.reset(token)


def tuning_data(pass_name: str) -> TuningData:
    """What the pass works on; raises `OptionError` where it runs outside of `tuning`."""
    data = _DATA.get()
    if data is None:
        raise OptionError(
            f"{pass_name} has no weights and no calibration to work on",
            why="it changes weights by what the model's inputs look like; the IR holds neither",
            hint="tw calibrate MODEL --hessian -o c.calib.json, then "
            f"tw compile MODEL --calibration c.calib.json --tune {pass_name}",
        )
    return data
