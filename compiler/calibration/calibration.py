"""The outcome of a calibration: ranges by layer, and the proof that it ran."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp, StringAttr

from tilewright.compiler.calibration.methods import Method
from tilewright.compiler.calibration.statistics import InputStatistics
from tilewright.compiler.quantization.linear_weights import linear_weights
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.errors import OptionError
from tilewright.passes.lowerings.conversion import CALIBRATION_ATTRIBUTE

_LISTED = 5
"""Layers that an error names before it says how many more there are."""


@dataclass(frozen=True)
class LayerRange:
    """What is quantized to the largest code, at the input and at the output of a linear layer.

    Both are finite and above 0; a tensor that was 0 throughout has 1.
    """

    input_absmax: float
    output_absmax: float
    count: int
    """Rows (tokens) that went through the layer."""
    input_largest: float | None = None
    """The largest magnitude that was seen, clipped or not; none if it is not known."""
    output_largest: float | None = None


@dataclass(frozen=True)
class DataRecord:
    """The data that went in: a file's name and SHA-256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Calibration:
    """Ranges of the inputs and outputs of linear layers, by the resolved key of the weight."""

    method: Method
    samples: int
    tokens: int
    """Rows that went into the model; padding is not among them."""
    model: str
    """The model's name."""
    fingerprint: str
    """Which model it is: `model_fingerprint`."""
    data: DataRecord
    ranges: Mapping[str, LayerRange]
    input_statistics: Mapping[str, InputStatistics] = field(
        default_factory=dict[str, InputStatistics], repr=False, compare=False
    )
    """By key; layers that read the same tensor share theirs. Not part of the digest."""
    edited: bool = False
    """Somebody has changed the file by hand, and has said so."""

    @property
    def digest(self) -> str:
        """SHA-256 over all that the ranges and their proof say."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """What the digest is of, as JSON values."""
        return {
            "method": {"name": self.method.name, "percentile": self.method.percentile},
            "samples": self.samples,
            "tokens": self.tokens,
            "model": {"name": self.model, "fingerprint": self.fingerprint},
            "data": asdict(self.data),
            "edited": self.edited,
            "layers": {key: asdict(layer) for key, layer in self.ranges.items()},
        }

    def statistics(self, key: str) -> InputStatistics | None:
        """The statistics of a layer's inputs; none where it was not seen, or nothing was kept."""
        return self.input_statistics.get(key)


def calibration_record(calibration: Calibration) -> dict[str, Any]:
    """What an artifact's manifest says of a calibration: the proof that it ran, and the ranges."""
    content = calibration.content()
    layers = {
        key: [layer.input_absmax, layer.output_absmax, layer.count]
        for key, layer in calibration.ranges.items()
    }
    return {"digest": calibration.digest, **content, "layers": layers}


def range_problem(layer: LayerRange) -> str:
    """What is wrong with a range; empty if nothing is."""
    for name, value in (
        ("input_absmax", layer.input_absmax),
        ("output_absmax", layer.output_absmax),
    ):
        if not math.isfinite(value) or value <= 0:
            return f"{name} is {value}, not a finite number above 0"
    return "" if layer.count > 0 else f"its count is {layer.count}: no row went through it"


def model_fingerprint(module: ModuleOp, weights: WeightSource) -> str:
    """What tells models apart, whatever number of positions they are built for.

    A SHA-256 over the keys and shapes of the weights that products and lookups read and the first
    row of each, and over the `fingerprints()` of the checkpoint (names, shapes, types).
    """
    digest = hashlib.sha256(json.dumps(sorted(weights.fingerprints().items())).encode())
    known = frozenset(weights.keys())
    for key, weight in sorted(linear_weights(module).items()):
        shape = [key, weight.channels, weight.depth, weight.transposed]
        digest.update(json.dumps(shape).encode())
        if key in known:  # others are computed
            quantized = weights.quantized(key)
            row = weights.read_rows(key, 0, 1) if quantized is None else quantized.codes[:1]
            digest.update(np.ascontiguousarray(row).tobytes())
    return digest.hexdigest()


def check_model(calibration: Calibration, module: ModuleOp, weights: WeightSource) -> None:
    """Raise `OptionError` where a calibration was made for another model."""
    fingerprint = model_fingerprint(module, weights)
    if calibration.fingerprint != fingerprint:
        raise OptionError(
            "the calibration is one of another model",
            why=f"it is of {calibration.model!r} with fingerprint {calibration.fingerprint}, and "
            f"this model's is {fingerprint}",
            hint="run tw calibrate on this model",
        )


def mark_calibrated(
    module: ModuleOp, calibration: Calibration, keys: Iterable[str] | None = None
) -> None:
    """Say in a top module that it may be lowered to int8: sets its attribute `top.calibration`.

    `keys` are the resolved keys of the weights that will be int8; those of all linear layers but
    heads if left out. Raises `OptionError` where one of them has no range, or one that no row went
    into.
    """
    if keys is None:
        keys = [key for key, weight in linear_weights(module).items() if weight.is_layer]
    missing = [
        key
        for key in keys
        if key not in calibration.ranges or range_problem(calibration.ranges[key])
    ]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise OptionError(
            f"the calibration has no range for {', '.join(missing[:_LISTED])}{more}",
            why="an int8 layer needs the range of its inputs and outputs, over one row or more",
            hint="calibrate again with data that reaches these layers, or give them another scheme",
        )
    module.attributes[CALIBRATION_ATTRIBUTE] = StringAttr(calibration.digest)
