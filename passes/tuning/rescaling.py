"""Factors on the inputs of linear layers, applied to the weights and taken out of what makes the
inputs."""

from __future__ import annotations

import numpy as np

from tilewright.dialects.errors import OptionError
from tilewright.passes.tuning.data import Array, TuningData
from tilewright.passes.tuning.folds import Fold
from tilewright.passes.tuning.layers import LinearLayer

LEAST = 1e-4
"""No factor is below this part of the largest: inputs that are (almost) never there have no say."""


def input_factors(fold: Fold, factor: Array) -> Array:
    """The factor of each input `[K]` from those of the producers' elements `[C]`."""
    return factor[np.asarray(fold.class_of)]


def by_class(fold: Fold, values: Array) -> Array:
    """The mean of `values` `[K]` over the inputs that share a factor, f64 `[C]`."""
    index = np.asarray(fold.class_of)
    totals = np.bincount(index, weights=values.astype(np.float64), minlength=fold.classes)
    return totals / np.bincount(index, minlength=fold.classes)


def normalized(factor: Array) -> Array:
    """Factors with `max * min = 1`: so neither the weights nor the inputs leave the range of
    16-bit floats for it."""
    bounded = np.maximum(factor, LEAST * factor.max()) if factor.max() > 0 else factor + 1
    return bounded / np.sqrt(bounded.max() * bounded.min())


def apply_fold(fold: Fold, factor: Array, layers: dict[str, LinearLayer], data: TuningData) -> None:
    """Multiply the consumers' columns by `factor` f64 `[C]` and divide the producers by it.

    The model computes the same function, but for one rounding of each changed weight to the type
    that it was read as: a relative error of at most `2^-24` a weight in f32, so of at most
    `2 * 2^-24 / (1 - 2 * 2^-24)` a product of an input and a weight.
    """
    scale = input_factors(fold, factor)
    for key in fold.consumers:
        weight = layers[key].read(data)
        layers[key].replace(data, (weight * scale).astype(weight.dtype))
        data.divide_inputs(key, scale)
    for producer in fold.producers:
        weight = data.weights.read(producer.key)
        divided = weight.astype(np.float64)
        elements = np.moveaxis(divided, producer.axis, -1)
        elements[..., producer.start : producer.start + len(factor)] /= factor
        data.weights.replace(producer.key, divided.astype(weight.dtype))


def check_not_stored(pass_name: str, fold: Fold, data: TuningData) -> None:
    """Raises `OptionError` if a weight of the fold is kept as codes already."""
    for key in (*fold.consumers, *(producer.key for producer in fold.producers)):
        if data.weights.is_stored(key):
            raise OptionError(
                f"{pass_name} cannot change {key!r}, which is kept as codes",
                why="a pass before it has rounded the weight, or the checkpoint holds codes",
                hint=f"run {pass_name} before gptq, on a checkpoint of dense weights",
            )
